"""The one shape of every method: a plan and settings in, a calibrated answer to any subset out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robult_edge import calibration, conformal, fusion
from train.config import TrainConfig
from train.plan import Plan

COVERAGE = 0.9
"""What prediction sets promise."""

Windows = Mapping[str, np.ndarray]
"""Per modality [n, *window_shape], raw units."""

Tables = dict[str, np.ndarray]
"""Rule → [n, 2^M − 1, K] by ascending mask, NaN where a modality of the mask is absent."""


@dataclass(frozen=True)
class Fitted:
    """A trained method.

    Attributes:
        answer: (windows, present [n, M]) → probabilities of each rule it can answer by.
        thresholds: [2^M − 1] of each rule, least probability of a class in the prediction set.
        chosen: what the search chose.
    """

    answer: Callable[[Windows, np.ndarray], Tables]
    thresholds: dict[str, np.ndarray]
    chosen: dict[str, float]


Method = Callable[[Plan, TrainConfig, Sequence[float]], Fitted]
"""(plan, settings, learning rates to search) → fitted; all randomness from ``config.seed``."""


def calibrated(
    oof: Tables,
    y: np.ndarray,
    logits: Callable[[Windows, np.ndarray], Tables],
    chosen: dict[str, float],
) -> Fitted:
    """Give each rule a temperature and a prediction-set threshold per subset, out of fold.

    Args:
        oof: out-of-fold logits of the labelled windows.
        y: their classes [n].
        logits: (windows, present) → logits of each rule.
        chosen: what the search chose.
    """
    temperatures, thresholds = {}, {}
    for rule, table in oof.items():
        t, q = np.ones(table.shape[1]), np.zeros(table.shape[1])
        for j in range(table.shape[1]):
            rows = np.isfinite(table[:, j]).all(1)
            t[j] = calibration.fit_temperature(table[rows, j], y[rows])
            p = fusion.softmax(table[rows, j] / t[j])
            q[j] = conformal.threshold(p, y[rows], COVERAGE)
        temperatures[rule], thresholds[rule] = t, q

    def answer(windows: Windows, present: np.ndarray) -> Tables:
        said = logits(windows, present)
        return {rule: fusion.softmax(z / temperatures[rule][:, None]) for rule, z in said.items()}

    return Fitted(answer, thresholds, chosen)
