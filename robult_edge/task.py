"""What is asked: one class of several, any number of labels, or values in physical units.

    task             truth y                   a graph's K outputs       the answer
    classification   int64 [N], −1 unknown     logits                    one class
    multilabel       int64 [N, K], −1 unknown  logits, one per label     any of K labels
    regression       float32 [N, K], NaN       standardised values       a value per target

A row of y with one unknown entry is unlabelled. Outputs of regression stay standardised until the
answer is given: fp16 engines then lose nothing on a pressure of 10⁵ Pa, golden vectors prove the
same precision for every unit, and weights that sum to less than 1 shrink towards the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np

Task = Literal["classification", "multilabel", "regression"]
OUTPUTS: dict[Task, str] = {
    "classification": "classes",
    "multilabel": "labels",
    "regression": "targets",
}
"""What the K outputs are called."""

STRATA = 8


class Scale(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A regression target's unit, and the training labels' mean and spread in it.

    The target is ``mean + std · output``.
    """

    unit: str
    mean: float
    std: float


def scales(y: np.ndarray, units: Sequence[str]) -> tuple[Scale, ...]:
    """Scales of training labels [n, K]; a target that never moved is left unscaled.

    Args:
        y: truth of any task, in its units.
        units: of the targets; none for the other tasks, which have no scales.
    """
    if not units:
        return ()
    return tuple(
        Scale(unit=unit, mean=float(column.mean()), std=float(column.std()) or 1.0)
        for unit, column in zip(units, np.asarray(y, np.float64).T, strict=True)
    )


def standardised(y: np.ndarray, by: Sequence[Scale]) -> np.ndarray:
    """Targets [N, K] in their units → float32 [N, K] as graphs give them; y itself without scales.

    Args:
        y: truth of any task.
        by: of regression; empty for the other tasks.
    """
    if not by:
        return y
    mean, std = np.array([(s.mean, s.std) for s in by]).T
    return ((y - mean) / std).astype(np.float32)


def labelled(y: np.ndarray) -> np.ndarray:
    """Rows [N] bool whose truth is known, whatever the task."""
    known = np.isfinite(y) if y.dtype.kind == "f" else y >= 0
    return np.all(known.reshape(len(y), -1), axis=1)


def as_answers(y: np.ndarray, classes: int, task: Task) -> np.ndarray:
    """Truths [N] or [N, K] as answers [N, K] that are sure of them."""
    return np.eye(classes)[y] if task == "classification" else y


def strata(y: np.ndarray) -> np.ndarray:
    """Which of a few kinds a label is of, so that labels can be drawn evenly, [n] int from 0.

    Its class; its label set, where all but the most frequent count as one; or the quantile of the
    first target among the levels that occur.

    Args:
        y: known truth of any task.
    """
    if y.ndim == 1:
        return y
    if y.dtype.kind == "f":
        levels, which = np.unique(y[:, 0], return_inverse=True)
        return which * min(STRATA, len(levels)) // max(1, len(levels))
    _, which, counts = np.unique(y, axis=0, return_inverse=True, return_counts=True)
    rank = np.argsort(np.argsort(-counts, kind="stable"))
    return np.minimum(rank[which.reshape(-1)], STRATA - 1)
