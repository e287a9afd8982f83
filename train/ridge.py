"""Kernel ridge regression whose penalty and temperature labels left out choose."""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter

import numpy as np

from robult_edge import fusion
from robult_edge.calibration import LOG_LOSSES, fit_temperature
from robult_edge.task import Task, as_answers

PENALTIES = np.logspace(-4, 2, 13)
"""Tried, in means of the kernel's eigenvalues; the middle one where nothing can be left out, or
labels left out are named no better than by naming the commonest class always: with a dozen labels
the fit that does just that may seem the best."""
SHARPNESS = 2.5
"""Of a ridge's scores, about −1 to 1, as logits, before a temperature is fitted."""
UNASKED = 0.2
"""Temperature of its scores where nothing can be left out, until it has rehearsed: a ridge that
knows one label of each class has small scores elsewhere, and is right far more often than they
say."""


@dataclass(frozen=True)
class Ridge:
    """Kernel ridge regression: products with the known windows [B, n] → answers [B, K].

    Attributes:
        weights: [n, K].
        middle: [K], what it says where features are 0.
        temperature: of its scores.
        unseen: its answers to the windows it was fitted to, each left out; its label of the only
            one of a class.
        asked: whether any window could be left out.
        cost: squared error of its scores on windows left out, summed.
        task: what is asked.
    """

    weights: np.ndarray
    middle: np.ndarray
    temperature: float
    unseen: np.ndarray
    asked: bool
    cost: float
    task: Task

    def __call__(self, products: np.ndarray) -> np.ndarray:
        return fusion.LINKS[self.task](self.scores(products) / self.temperature)

    def scores(self, products: np.ndarray) -> np.ndarray:
        """What the temperature is of: [B, n] → [B, K], for classes about −1 to 1."""
        return products @ self.weights + self.middle


def ridge(
    kernel: np.ndarray,
    y: np.ndarray,
    mine: np.ndarray,
    classes: int,
    task: Task,
    intercept: float,
) -> Ridge:
    """Fit to the known windows that are ``mine``; penalty and temperature by leaving one out.

    What is said of a window by the fit without it is its target less c_i / (G⁻¹)_ii, with
    G⁻¹ the inverse of the penalised kernel and c its weights (Rifkin & Lippert 2007, eq. 9). The
    only window of its class is not asked about: without it the class is unheard of.

    Args:
        kernel: [n, n] among the known windows.
        y: their truth [n] or [n, K].
        mine: [n] bool.
        classes: K.
        task: what is asked.
        intercept: the square of a feature that is the same everywhere, see
            `train.teacher.INTERCEPT`.
    """
    y = y[mine]
    label = as_answers(y, classes, task)
    targets = label.astype(float) if task == "regression" else 2.0 * label - 1
    middle = targets.mean(0)
    asked = np.ones(len(y), bool)
    if task == "classification":
        asked = np.bincount(y, minlength=classes)[y] > 1
    same = intercept * kernel.diagonal().mean()
    values, q = np.linalg.eigh(kernel[np.ix_(mine, mine)].astype(float) + same)
    trials = []
    for penalty in PENALTIES * values.mean():
        inverse = 1 / (values + penalty)
        best = q @ (inverse[:, None] * (q.T @ (targets - middle)))
        unseen = targets - best / (np.square(q) @ inverse)[:, None]
        trials.append((float(np.square(unseen - targets)[asked].sum()), best, unseen))
    cost, best, unseen = min(trials, key=itemgetter(0))
    if task == "classification" and not _learnt(unseen[asked], y[asked]):
        cost, best, unseen = trials[len(PENALTIES) // 2]
    weights = np.zeros((len(mine), targets.shape[1]))
    weights[mine] = best
    sharp = 1.0 if task == "regression" else SHARPNESS
    t = fit_temperature(sharp * unseen[asked], y[asked], LOG_LOSSES[task])
    temperature = t / sharp if asked.any() else UNASKED
    answers = np.where(asked[:, None], fusion.LINKS[task](unseen / temperature), label)
    return Ridge(
        weights, middle + same * best.sum(0), temperature, answers, bool(asked.any()), cost, task
    )


def _learnt(scores: np.ndarray, y: np.ndarray) -> bool:
    """Whether scores [n, K] name classes better than by naming the commonest always."""
    return bool((scores.argmax(1) == y).sum() > np.bincount(y, minlength=1).max())
