"""Split-conformal prediction sets (Vovk et al. 2005; the LAC score of Sadinle et al. 2019)."""

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
    n = len(y)
    k = ceil((n + 1) * rate)
    if k > n:
        return 0.0
    # Taken from p itself: 1 − (1 − p) rounds, and would drop a class that ties with it.
    return float(np.sort(p[np.arange(n), y])[n - k])


def prediction_sets(p: np.ndarray, threshold: float) -> np.ndarray:
    """Classes that cannot be ruled out, [..., K] bool; never empty: the most probable one stays."""
    return p >= np.minimum(threshold, p.max(-1, keepdims=True))
