"""Cutting recordings into windows on the common hop grid. Pure functions on arrays."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from robult_edge.modality import ModalitySpec

MIXED = -2
"""Class of a window over which the label changes: such windows are not trained or tested on."""


def label(seen: np.ndarray) -> np.ndarray:
    """The truth of a window whose samples have the truths ``seen`` [n] or [n, K], n > 0.

    The class or the labels that hold all through it, else MIXED; of values, the last.
    """
    if seen.dtype.kind == "f":
        return seen[-1]
    return seen[0] if (seen == seen[0]).all() else np.full_like(seen[0], MIXED)


def mixed(y: np.ndarray) -> np.ndarray:
    """Which of the windows' truths y [N] or [N, K] are MIXED, [N] bool."""
    if y.dtype.kind == "f":
        return np.zeros(len(y), bool)
    return (y == MIXED).reshape(len(y), -1).any(1)


def cut(samples: np.ndarray, end_index: int, window: int) -> np.ndarray:
    """The window of ``window`` samples that ends just before ``end_index``.

    Args:
        samples: [n, C], or [n, C, H, W] of images.
        end_index: exclusive end, window ≤ end_index ≤ n.
        window: T.

    Returns:
        A view [C, T], or [C, H, W].
    """
    if not window <= end_index <= len(samples):
        raise IndexError(f"no window of {window} ends at {end_index} in {len(samples)} samples")
    part = samples[end_index - window : end_index]
    return part[0] if samples.ndim > 2 else part.T


def ticks(lengths: dict[str, int], modalities: tuple[ModalitySpec, ...]) -> range:
    """Ticks k of a recording: window k of a modality ends at its sample index k · hop, exclusive.

    They begin when every modality has filled a window and end with the longest modality.

    Args:
        lengths: samples per modality; 0 where it was not recorded.
        modalities: the sensors, sharing one hop in seconds.
    """
    there = [m for m in modalities if lengths[m.name]]
    if not there:
        return range(0)
    first = max(-(-m.window // m.hop) for m in there)
    return range(first, max(lengths[m.name] // m.hop for m in there) + 1)


def cut_all(
    samples: Mapping[str, np.ndarray], labels: np.ndarray, modalities: tuple[ModalitySpec, ...]
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Every window of a recording.

    Args:
        samples: per modality [n, C] or [n, C, H, W]; NaN where nothing was measured.
        labels: truth per sample of the first modality, [n0] or [n0, K].
        modalities: the sensors.

    Returns:
        windows per modality [k, *window_shape] (zeros where absent), present [k, M] bool,
        y [k] or [k, K] (−1 or NaN unknown, MIXED where a class or label changes).
    """
    grid = ticks({m.name: len(samples[m.name]) for m in modalities}, modalities)
    present = np.zeros((len(grid), len(modalities)), bool)
    windows = {}
    for i, m in enumerate(modalities):
        out = np.zeros((len(grid), *m.window_shape), np.float32)
        for row, k in enumerate(grid):
            if k * m.hop <= len(samples[m.name]):
                window = cut(samples[m.name], k * m.hop, m.window)
                present[row, i] = np.isfinite(window).all()
                if present[row, i]:
                    out[row] = window
        windows[m.name] = out

    first = modalities[0]
    unknown = np.nan if labels.dtype.kind == "f" else -1
    y = np.full((len(grid), *labels.shape[1:]), unknown, labels.dtype)
    for row, k in enumerate(grid):
        seen = labels[max(k * first.hop - first.window, 0) : k * first.hop]
        if len(seen):
            y[row] = label(seen)
    return windows, present, y
