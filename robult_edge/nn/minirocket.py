"""MiniRocket's features (Dempster et al. 2021, arXiv 2012.08791), for one or many channels.

84 fixed kernels of length 9, weights −1 and three times 2; dilations spread exponentially; biases
are quantiles of what each kernel finds in one training window; a feature is the share of samples
at which a kernel exceeds a bias. Kernel and dilation read a random set of channels and add them up.

One thing is not the paper's: exceeding is counted softly, over a share of the spread of what the
kernel finds. A hard count jumps at the bias, and where a sensor stands still every kernel finds
exactly 0: there the least noise, or another processor's rounding, decides.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

LENGTH = 9
FEATURES = 84 * 5
KERNELS = torch.full((84, LENGTH), -1.0)
for _row, _three in zip(KERNELS, combinations(range(LENGTH), 3), strict=True):
    _row[list(_three)] = 2.0


class MiniRocket(nn.Module):
    """x [B, C, T] → features [B, F], each with mean 0 and spread 1 on the windows it was fitted to.

    Nothing in it is trained; `fit` draws it.

    Args:
        channels: C.
        samples: T, at least 9.
        features: F, rounded down to a multiple of 84.
        softness: width of the soft count, in spreads of what a kernel finds; the paper's is 0,
            here 1e-6 or more.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, channels: int, samples: int, features: int = FEATURES, softness: float = 0.25
    ) -> None:
        super().__init__()
        self.softness = softness
        self.dilations, self.counts = spread(samples, features // 84)
        for i, count in enumerate(self.counts):
            self.register_buffer(f"weights{i}", torch.zeros(84, channels, LENGTH))
            self.register_buffer(f"biases{i}", torch.zeros(84, count))
        self.size = 84 * sum(self.counts)
        self.register_buffer("mean", torch.zeros(self.size))
        self.register_buffer("std", torch.ones(self.size))

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, T] → [B, F]."""
        return (self._shares(x) - self.mean) / self.std

    @torch.no_grad()
    def fit(self, x: Tensor, rng: np.random.Generator) -> MiniRocket:
        """Draw channels and biases, and measure the features.

        Args:
            x: training windows [n, C, T].
            rng: of the draws.
        """
        channels = x.shape[1]
        # The golden ratio's multiples fill (0, 1) evenly, however many are taken.
        quantiles = np.arange(1, self.size + 1) * ((5**0.5 + 1) / 2) % 1
        taken = 0
        for i, count in enumerate(self.counts):
            reads = torch.zeros(84, channels)
            for kernel in range(84):
                most = int(2 ** rng.uniform(0, np.log2(min(channels, LENGTH) + 1)))
                reads[kernel, rng.choice(channels, most, replace=False)] = 1
            self._buffer("weights", i).copy_(KERNELS[:, None] * reads[:, :, None])
            some = x[torch.from_numpy(rng.integers(len(x), size=84))]
            for half, seen in zip(HALVES, self._found(some, i), strict=True):
                width = self.softness * seen.std((0, 2)).clamp(min=1e-6)
                self._buffer("weights", i)[half] /= width[:, None, None]
                for row, kernel in enumerate(range(84)[half]):
                    at = torch.from_numpy(quantiles[taken : taken + count]).float()
                    bias = seen[kernel, row].quantile(at) / width[row]
                    self._buffer("biases", i)[kernel] = 0.5 - bias
                    taken += count
        shares = torch.cat([self._shares(x[b : b + 64]) for b in range(0, len(x), 64)])
        self.mean.copy_(shares.mean(0))
        # One that hardly moves must not be blown up: its movements are chance.
        self.std.copy_(shares.std(0, correction=0).clamp(min=0.01))
        return self

    def _shares(self, x: Tensor) -> Tensor:
        """[B, C, T] → [B, F] in [0, 1], by dilation, half, kernel, bias."""
        shares = []
        for i in range(len(self.dilations)):
            biases = self._buffer("biases", i)
            for half, seen in zip(HALVES, self._found(x, i), strict=True):
                over = seen[:, :, None] + biases[half][:, :, None]
                shares.append(over.clamp(0, 1).mean(3))
        return torch.cat([s.flatten(1) for s in shares], 1)

    def _found(self, x: Tensor, i: int) -> tuple[Tensor, Tensor]:
        """What the two halves of the kernels find at dilation ``i``, [B, 42, ≤ T] each.

        At every sample, zeros outside; every second kernel and dilation leaves out the borders.
        """
        border = self.dilations[i] * (LENGTH // 2)
        found = F.conv1d(x, self._buffer("weights", i), padding=border, dilation=self.dilations[i])
        inner = found[:, HALVES[1 - i % 2], border : x.shape[2] - border]
        outer = found[:, HALVES[i % 2]]
        return (outer, inner) if i % 2 == 0 else (inner, outer)

    def _buffer(self, name: str, i: int) -> Tensor:
        return self.get_buffer(f"{name}{i}")


HALVES = slice(0, None, 2), slice(1, None, 2)
"""Even and odd kernels."""


def spread(t: int, per_kernel: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Dilations for windows of ``t`` samples, and how many features a kernel has at each."""
    most = min(per_kernel, 32)
    exponents = np.linspace(0, np.log2((t - 1) / (LENGTH - 1)), most)
    dilations, counts = np.unique((2**exponents).astype(int), return_counts=True)
    counts = (counts * per_kernel / most).astype(int)
    for i in range(per_kernel - counts.sum()):
        counts[i % len(counts)] += 1
    return tuple(dilations.tolist()), tuple(counts.tolist())
