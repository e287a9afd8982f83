"""How alike windows are: inner products of their features, by shape and by level.

MiniRocket's kernels sum to zero: what they see is a series' shape, not where it lies. Levels are
features of their own, and of a sensor whose windows are flat they are what there is to see. Both
are of what differs from windows' usual course, where they have one. Of a vector or an image the
shape is what a Gaussian kernel sees, and the levels are its values. Sensors' products are summed,
and those of every two multiplied: windows are alike in what lies between two sensors if they are
alike, or both unlike, in each.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from scipy.spatial.distance import pdist

from robult_edge.course import course
from robult_edge.modality import ModalitySpec
from robult_edge.nn.minirocket import LENGTH, MiniRocket
from train.plan import FITTED_TO, Plan

FEATURES = 84 * 24
FOURIER = 1024
"""Waves that stand for a Gaussian kernel."""
SOFTNESS = 0.05
"""Of the count of features, a fifth of an encoder's: details show that a wider one blurs, and no
noise is met here but the training windows' own."""
FLAT = 0.9
"""Of a sensor's movement, the share between windows above which they are flat. Temperatures have
.99, an accelerometer at the wrist .5."""
CHUNK = 512

Features = Callable[[np.ndarray], np.ndarray]
"""Windows [n, *window_shape] → features [n, F] float32, each with mean 0 and spread 1 or so."""


class Kernel:
    """Inner products of windows with those at ``learned``, by every sensor's features.

    An absent sensor's features are zeros, their mean; those of the others count for more then, so
    that a window is as long with few sensors as with all.

    Args:
        plan: holds the windows.
        learned: [a] rows of the plan.
        rng: of what is drawn.
    """

    def __init__(self, plan: Plan, learned: np.ndarray, rng: np.random.Generator) -> None:
        self._plan = plan
        self._features, self._flat = [], []
        for m, there in zip(plan.modalities, plan.present.T, strict=True):
            rows = rng.permutation(np.flatnonzero(there))
            # Half at most: features that are 0 on average over all known windows, as targets are,
            # tell what is said of the one left out.
            rows = np.sort(rows[: min(FITTED_TO, -(-len(rows) // 2))])
            some = plan.windows[m.name][rows]
            self._features.append((by_shape(m, some, rng), by_level(m, some)))
            self._flat.append(is_flat(m, some))
        parts = [self._of(rows) for rows in chunks(learned)]
        self._learned = [
            tuple(np.concatenate(kind) for kind in zip(*part, strict=True))
            for part in zip(*parts, strict=True)
        ]

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Products [4, len(rows), a], each as large as the others.

        Σ_i k_i of what is natural to each sensor: its levels if it is flat, else its shape;
        Σ_{i<j} k_i k_j of the same; Σ_i k_i by shape; Σ_i k_i by level.
        """
        return self._products(self._of(rows))

    def among(self) -> np.ndarray:
        """The same of those at ``learned``: [4, a, a]."""
        return self._products(self._learned)

    def _products(self, features: list[tuple[np.ndarray, ...]]) -> np.ndarray:
        natural, squares, shapes, levels = np.zeros(
            (4, len(features[0][0]), len(self._learned[0][0])), np.float32
        )
        for flat, mine, theirs in zip(self._flat, features, self._learned, strict=True):
            shape, level = (a @ b.T for a, b in zip(mine, theirs, strict=True))
            k = level if flat else shape
            natural += k
            squares += np.square(k)
            shapes += shape
            levels += level
        m = len(features)
        pairs = (np.square(natural) - squares) * (m / max(1, m - 1))
        return np.stack([natural, pairs, shapes, levels])

    def _of(self, rows: np.ndarray) -> list[tuple[np.ndarray, ...]]:
        there = self._plan.present[rows].sum(1, keepdims=True).clip(1)
        parts = []
        for i, (m, kinds) in enumerate(zip(self._plan.modalities, self._features, strict=True)):
            x, here = self._plan.windows[m.name][rows], self._plan.present[rows, i, None]
            found = (np.where(here, features(x), np.float32(0)) for features in kinds)
            parts.append(tuple(f / np.sqrt(f.shape[1] * there, dtype=np.float32) for f in found))
        return parts


def by_shape(spec: ModalitySpec, some: np.ndarray, rng: np.random.Generator) -> Features:
    """Of a series MiniRocket's features; of anything else Fourier's."""
    if not _series(spec, some):
        return _fourier(spec, some, rng)
    unusual = _unusual(spec, some)
    rocket = MiniRocket(len(spec.channels), spec.window, FEATURES, SOFTNESS)
    rocket.fit(torch.from_numpy(unusual(some)), rng)

    def features(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            parts = torch.from_numpy(unusual(x)).split(64)
            return torch.cat([rocket(part) for part in parts]).numpy()

    return features


def _fourier(spec: ModalitySpec, some: np.ndarray, rng: np.random.Generator) -> Features:
    """Random ones of the kernel exp(−d² / median d²) (Rahimi & Recht 2007), less their means."""
    x = _values(spec, some)
    apart = pdist(x, "sqeuclidean")
    apart = apart[apart > 0]  # of a switch nearly all windows are the same
    width = np.median(apart) if len(apart) else 1.0
    frequencies = rng.normal(0, np.sqrt(2 / width), (x.shape[1], FOURIER)).astype(np.float32)
    phases = rng.uniform(0, 2 * np.pi, FOURIER).astype(np.float32)

    def waves(x: np.ndarray) -> np.ndarray:
        return np.sqrt(2, dtype=np.float32) * np.cos(x @ frequencies + phases)

    mean = waves(x).mean(0) if len(x) else np.float32(0)
    return lambda x: waves(_values(spec, x)) - mean


def by_level(spec: ModalitySpec, some: np.ndarray) -> Features:
    """Of a series where each channel lies and, unless it is flat, how far it goes; else values."""
    if not _series(spec, some):
        return partial(_values, spec)

    unusual = _unusual(spec, some)
    flat = is_flat(spec, some)

    def raw(x: np.ndarray) -> np.ndarray:
        x = unusual(x)
        return x.mean(2) if flat else np.concatenate([x.mean(2), x.std(2), x.min(2), x.max(2)], 1)

    mean, std = raw(some).mean(0), raw(some).std(0).clip(0.01)
    return lambda x: ((raw(x) - mean) / std).clip(-3, 3)


def is_flat(spec: ModalitySpec, some: np.ndarray) -> bool:
    """Whether nearly all of the movement of a series is between windows, next to none within."""
    if not _series(spec, some):
        return False
    x = _unusual(spec, some)(some)
    return bool(x.mean(2).var(0).sum() > FLAT * x.var((0, 2)).sum())


def _series(spec: ModalitySpec, some: np.ndarray) -> bool:
    return spec.size is None and spec.window >= LENGTH and len(some) > 0


def _values(spec: ModalitySpec, x: np.ndarray) -> np.ndarray:
    return _normalised(spec, x).reshape(len(x), -1)


def _unusual(spec: ModalitySpec, some: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Windows → what differs from the usual course of ``some``."""
    mean, spread = course(_normalised(spec, some))
    return lambda x: (_normalised(spec, x) - mean) / spread


def _normalised(spec: ModalitySpec, x: np.ndarray) -> np.ndarray:
    assert spec.stats is not None
    shape = (-1, *[1] * (len(spec.window_shape) - 1))
    mean, std = (np.array(v, np.float32).reshape(shape) for v in (spec.stats.mean, spec.stats.std))
    return (x - mean) / std


def chunks(rows: np.ndarray) -> list[np.ndarray]:
    """So many rows that their windows and features fit in memory."""
    return [rows[i : i + CHUNK] for i in range(0, len(rows), CHUNK)]
