"""How good answers are: accuracy, macro-F1, balanced accuracy, ECE, coverage."""

from __future__ import annotations

import numpy as np


def accuracy(predicted: np.ndarray, y: np.ndarray) -> float:
    """Share of equal entries of two [N] integer arrays."""
    return float(np.mean(predicted == y))


def confusion(predicted: np.ndarray, y: np.ndarray, classes: int) -> np.ndarray:
    """Counts [classes, classes]: row = truth, column = prediction."""
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (y, predicted), 1)
    return table


def macro_f1(predicted: np.ndarray, y: np.ndarray, classes: int) -> float:
    """F1 averaged over the classes that occur in truth or prediction."""
    table = confusion(predicted, y, classes)
    hit, truth, said = table.diagonal(), table.sum(1), table.sum(0)
    seen = truth + said > 0
    return float(np.mean(2 * hit[seen] / (truth + said)[seen]))


def balanced_accuracy(predicted: np.ndarray, y: np.ndarray, classes: int) -> float:
    """Recall averaged over the classes that occur in truth."""
    table = confusion(predicted, y, classes)
    truth = table.sum(1)
    seen = truth > 0
    return float(np.mean(table.diagonal()[seen] / truth[seen]))


def ece(p: np.ndarray, y: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error (Guo et al. 2017, eq. 3) with equal-width confidence bins.

    Args:
        p: probabilities [N, K].
        y: true classes [N].
        bins: number of bins.
    """
    confidence, hit = p.max(1), p.argmax(1) == y
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gap = np.bincount(which, weights=hit - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(y))


def coverage(sets: np.ndarray, y: np.ndarray) -> float:
    """Share of prediction sets [N, K] bool that hold the truth y [N]."""
    return float(np.mean(sets[np.arange(len(y)), y]))
