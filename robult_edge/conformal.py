"""Split-conformal prediction sets and intervals (Vovk et al. 2005).

Classes by the LAC score of Sadinle et al. (2019); labels by the worst error in any of them, so that
one bar bounds the label set from both sides; values by the absolute residual (Lei et al. 2018).
"""

from __future__ import annotations

from math import ceil

import numpy as np


def threshold(p: np.ndarray, y: np.ndarray, rate: float) -> float:
    """Least probability a class needs to stay in the set, so that sets hold the truth at ``rate``.

    Args:
        p: calibration probabilities [n, K].
        y: true classes [n].
        rate: stated coverage, e.g. 0.9.

    Returns:
        1 − q̂, with q̂ the ⌈(n + 1)·rate⌉-th smallest score 1 − p_y; 0 (every class stays) where n
        is too small to promise ``rate``.
    """
    return _bar(p[np.arange(len(y)), y], rate)


def label_threshold(p: np.ndarray, y: np.ndarray, rate: float) -> float:
    """The bar for `label_sets`, so that both hold at once, at ``rate``.

    Args:
        p: calibration probabilities [n, K].
        y: true labels [n, K], 0 or 1.
        rate: stated coverage.

    Returns:
        1 − q̂ of the score max_k |y_k − p_k|; 0 where n is too small to promise ``rate``.
    """
    return _bar(np.where(y == 1, p, 1 - p).min(1), rate)


def half_widths(v: np.ndarray, y: np.ndarray, rate: float) -> np.ndarray:
    """Half the length of each target's interval, so that v ± it holds the truth at ``rate``.

    Args:
        v: calibration answers [n, K].
        y: true values [n, K], in the same units.
        rate: stated coverage, of each target for itself.

    Returns:
        [K]; infinite where n is too small to promise ``rate``.
    """
    # A width is a bar on the residual from the other side.
    bars = [_bar(-column, rate, nothing=-np.inf) for column in np.abs(v - y).T]
    return -np.array(bars)


def _bar(agreement: np.ndarray, rate: float, nothing: float = 0.0) -> float:
    """The bar that a fresh window's agreement with its truth [n] reaches at ``rate``."""
    n = len(agreement)
    k = ceil((n + 1) * rate)
    # Taken from the probability itself: 1 − (1 − p) rounds, and would drop a class that ties.
    return float(np.sort(agreement)[n - k]) if k <= n else nothing


def prediction_sets(p: np.ndarray, threshold: float) -> np.ndarray:
    """Classes that cannot be ruled out, [..., K] bool; never empty: the most probable one stays."""
    return p >= np.minimum(threshold, p.max(-1, keepdims=True))


def label_sets(p: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels that cannot be ruled out, and those of them that are certain, each [..., K] bool.

    A label that is more probable than not is never ruled out, and only such a one is certain.
    """
    bar = min(threshold, 0.5)
    return p >= bar, 1 - p < bar
