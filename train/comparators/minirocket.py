"""MiniRocket's features (Dempster et al. 2021, arXiv 2012.08791), for one or many channels.

84 fixed kernels of length 9, weights −1 and three times 2; dilations spread exponentially; biases
are quantiles of what each kernel finds in one training window; a feature is the proportion of
positive values. Kernel and dilation read a random set of channels and add them up.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
import torch.nn.functional as F

LENGTH = 9
KERNELS = np.full((84, LENGTH), -1.0, np.float32)
for _row, _three in zip(KERNELS, combinations(range(LENGTH), 3), strict=True):
    _row[list(_three)] = 2.0


@dataclass(frozen=True)
class Rocket:
    """Fitted features.

    Attributes:
        dilations: of each group of features.
        channels: per dilation [84, C], 1 where the kernel reads the channel.
        biases: per dilation [84, features of each kernel].
    """

    dilations: tuple[int, ...]
    channels: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Windows [n, C, T] → features [n, F] float32, by dilation, kernel, bias."""
        return np.concatenate([self._some(x[i : i + 64]) for i in range(0, len(x), 64)])

    def _some(self, x: np.ndarray) -> np.ndarray:
        features = []
        for index, dilation in enumerate(self.dilations):
            found = convolve(x, self.channels[index], dilation)
            for kernel in range(84):
                seen = found[:, kernel, valid(kernel, index, dilation)]
                features.append((seen[:, None] > self.biases[index][kernel][:, None]).mean(2))
        # By kernel [84 · dilations] of [n, b]: already in the order promised.
        return np.concatenate(features, 1).astype(np.float32)


def fit(x: np.ndarray, rng: np.random.Generator, features: int = 10_000) -> Rocket:
    """Draw channels and biases from training windows.

    Args:
        x: [n, C, T], T ≥ 9.
        rng: of the draws.
        features: at most; a multiple of 84 comes out.
    """
    n, c, t = x.shape
    dilations, counts = spread(t, features // 84)
    # The golden ratio's multiples fill (0, 1) evenly, however many are taken.
    quantiles = np.arange(1, 84 * counts.sum() + 1) * ((5**0.5 + 1) / 2) % 1
    channels, biases, taken = [], [], 0
    for index, (dilation, count) in enumerate(zip(dilations, counts, strict=True)):
        reads, bias = np.zeros((84, c), np.float32), np.zeros((84, count), np.float32)
        for kernel in range(84):
            most = int(2 ** rng.uniform(0, np.log2(min(c, LENGTH) + 1)))
            reads[kernel, rng.choice(c, most, replace=False)] = 1
        for kernel in range(84):
            found = convolve(x[rng.integers(n)][None], reads[kernel : kernel + 1], dilation, kernel)
            seen = found[0, 0, valid(kernel, index, dilation)]
            bias[kernel] = np.quantile(seen, quantiles[taken : taken + count])
            taken += count
        channels.append(reads)
        biases.append(bias)
    return Rocket(tuple(dilations.tolist()), tuple(channels), tuple(biases))


def spread(t: int, per_kernel: int) -> tuple[np.ndarray, np.ndarray]:
    """Dilations for windows of ``t`` samples, and how many features a kernel has at each."""
    most = min(per_kernel, 32)
    exponents = np.linspace(0, np.log2((t - 1) / (LENGTH - 1)), most)
    dilations, counts = np.unique((2**exponents).astype(int), return_counts=True)
    counts = (counts * per_kernel / most).astype(int)
    for i in range(per_kernel - counts.sum()):
        counts[i % len(counts)] += 1
    return dilations, counts


def convolve(
    x: np.ndarray, channels: np.ndarray, dilation: int, kernel: int | None = None
) -> np.ndarray:
    """What the kernels (or one of them) find at every sample, zeros outside: [n, k, T]."""
    weights = KERNELS if kernel is None else KERNELS[kernel : kernel + 1]
    w = torch.from_numpy(weights[:, None] * channels[:, :, None])
    padding = dilation * (LENGTH // 2)
    return F.conv1d(torch.from_numpy(x), w, padding=padding, dilation=dilation).numpy()


def valid(kernel: int, index: int, dilation: int) -> slice:
    """Samples that count: every second kernel and dilation leaves out the padded borders."""
    border = dilation * (LENGTH // 2)
    return slice(border, -border) if (kernel + index) % 2 else slice(None)
