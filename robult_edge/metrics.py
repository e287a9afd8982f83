"""How good answers are, for each task; and one score by which they are compared."""

from __future__ import annotations

import numpy as np

from robult_edge.task import Task

SCORES: dict[Task, str] = {
    "classification": "accuracy",
    "multilabel": "macro-F1",
    "regression": "R²",
}


def score(task: Task, answer: np.ndarray, y: np.ndarray) -> float:
    """The task's one score, at most 1, higher is better; see SCORES for its name.

    Args:
        task: what was asked.
        answer: fused answers [N, K]: probabilities, or standardised values.
        y: truth [N] or [N, K].
    """
    if task == "classification":
        return accuracy(answer.argmax(1), y)
    if task == "multilabel":
        return label_f1(answer >= 0.5, y)[1]
    return float(r2(answer, y).mean())


def each(task: Task, answer: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How good the answer to each window is, higher is better; arguments as in `score`.

    Returns:
        [N]: 1 or 0, the share of its labels that are right, or less its mean squared error.
    """
    if task == "classification":
        return (answer.argmax(1) == y).astype(float)
    if task == "multilabel":
        return ((answer >= 0.5) == y).mean(1)
    return -np.square(answer - y).mean(1)


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
    return _gap(p.max(1), p.argmax(1) == y, bins)


def ece_floor(p: np.ndarray, bins: int = 15, draws: int = 50) -> float:
    """ECE of answers that are right just as often as they say: on N windows luck is a gap too.

    Args:
        p: probabilities [N, K]; from each answer's confidence it is drawn whether it is right.
        bins: number of bins.
        draws: of that, from one seed; the ECE is their mean.
    """
    confidence = p.max(1)
    luck = np.random.default_rng(0).random((draws, len(p)))
    return float(np.mean([_gap(confidence, hit, bins) for hit in luck < confidence]))


def _gap(confidence: np.ndarray, hit: np.ndarray, bins: int) -> float:
    """Mean over bins, by their size, of how far hits [N] are from their confidence [N]."""
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gap = np.bincount(which, weights=hit - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(hit))


def coverage(sets: np.ndarray, y: np.ndarray) -> float:
    """Share of prediction sets [N, K] bool that hold the truth y [N]."""
    return float(np.mean(sets[np.arange(len(y)), y]))


def label_f1(said: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Micro- and macro-F1 of label sets [N, K]; labels that never occur count in neither."""
    hit, either = ((said == 1) & (y == 1)).sum(0), (said == 1).sum(0) + (y == 1).sum(0)
    seen = either > 0
    if not seen.any():
        return 1.0, 1.0  # nothing was there, and nothing was said
    return float(2 * hit.sum() / either.sum()), float(np.mean(2 * hit[seen] / either[seen]))


def label_ece(p: np.ndarray, y: np.ndarray, bins: int = 15) -> float:
    """ECE over every decision for or against a label: p and y [N, K]."""
    return ece(np.stack([1 - p, p], -1).reshape(-1, 2), y.reshape(-1), bins)


def mae(v: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Mean absolute error of each target: [N, K] twice → [K]."""
    return np.abs(v - y).mean(0)


def rmse(v: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Root mean square error of each target: [N, K] twice → [K]."""
    return np.sqrt(np.square(v - y).mean(0))


def r2(v: np.ndarray, y: np.ndarray) -> np.ndarray:
    """1 − residual / total sum of squares of each target, [K]: 0 is as good as the mean of y.

    A target that does not move in y has no mean to beat and scores 0.
    """
    rest, total = np.square(v - y).sum(0), np.square(y - y.mean(0)).sum(0)
    moves = total > 1e-9
    return np.where(moves, 1 - rest / np.where(moves, total, 1), 0.0)
