"""The usual course of a window: what all windows of a machine's cycle have in common.

Windows that begin with the cycle rise and fall alike, by far more than what tells one state from
another. A network sees little beside that, until each sample is measured against what is usual at
its place. Windows that begin anywhere have no such course, and are left as they are.
"""

from __future__ import annotations

import numpy as np

SHARED = 0.5
"""Of the movement within windows, the share that is common to all from which on it hides the rest.
Where windows begin anywhere it is a hundredth or less."""
LEAST = 0.3
"""Spreads of the channel: where windows hardly differ, so much counts as usual."""


def course(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is usual at each sample of a window, (mean, spread), each [C, T].

    Args:
        x: training windows [n, C, T], each channel's mean 0 and spread 1.

    Returns:
        0 and 1 for channels without a common course.
    """
    mean, spread = np.zeros(x.shape[1:], np.float32), np.ones(x.shape[1:], np.float32)
    if len(x):
        usual, within = x.mean(0), x.var(2).mean(0)
        # The mean of n windows that have nothing in common still moves by an n-th.
        common = usual.var(1) > (SHARED + 1 / len(x)) * within
        mean[common] = usual[common]
        spread[common] = np.maximum(x.std(0)[common], LEAST)
    return mean, spread
