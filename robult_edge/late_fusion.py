"""Fitting how each alive subset answers, out of fold, from labels inside the budget."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from robult_edge import calibration, conformal, fusion, subsets
from robult_edge.fusion import Rule


@dataclass(frozen=True)
class Answers:
    """What branches and head said of ``n`` windows whose truth is known.

    Attributes:
        branch: logits [n, M, K].
        head: logits [n, 2^M − 1, K], over every subset by ascending mask.
        y: true classes [n].
        present: [n, M] bool; what is absent has no meaning in ``branch``.
    """

    branch: np.ndarray
    head: np.ndarray
    y: np.ndarray
    present: np.ndarray

    def with_all(self, mask: int) -> np.ndarray:
        """Rows [n] bool where every modality of ``mask`` is present."""
        return np.all(self.present[:, list(subsets.members(mask))], axis=1)

    def rows(self, some: np.ndarray | slice) -> Answers:
        """The answers to ``some`` of the windows."""
        return Answers(self.branch[some], self.head[some], self.y[some], self.present[some])


@dataclass(frozen=True)
class SubsetFit:
    """How one alive subset answers; see `robult_edge.bundle.SubsetEntry`."""

    uses: int
    weights: np.ndarray
    threshold: float


@dataclass(frozen=True)
class Fit:
    """All that late fusion needs, by rule and ascending mask."""

    temperatures: np.ndarray
    tables: dict[Rule, tuple[SubsetFit, ...]]
    conflict: float

    def probabilities(self, rule: Rule, mask: int, answers: Answers) -> np.ndarray:
        """Fused probabilities [n, K] when ``mask`` is alive; as the runtime computes them."""
        row = self.tables[rule][mask - 1]
        return fusion.fuse(rule, tempered(answers, row.uses, self.temperatures), row.weights)


def tempered(answers: Answers, uses: int, temperatures: np.ndarray) -> np.ndarray:
    """ŷ_i / T_i of the branches in ``uses`` and of the head over them; zeros elsewhere.

    Args:
        temperatures: [M + 1], the head's last.

    Returns:
        [n, M + 1, K].
    """
    y = np.concatenate([answers.branch, answers.head[:, uses - 1, None]], axis=1)
    y = y / temperatures[:, None]
    m = answers.branch.shape[1]
    y[:, [i for i in range(m) if not uses >> i & 1]] = 0
    return y


def fit(oof: Answers, coverage: float) -> Fit:
    """Fit temperatures, both rules' tables, and the conflict threshold.

    Args:
        oof: out-of-fold answers on the labelled windows.
        coverage: the rate that prediction sets are to promise.
    """
    m, k = oof.branch.shape[1:]
    every = subsets.all_subsets(m)
    temperatures = np.array(
        [
            calibration.fit_temperature(oof.branch[rows, i], oof.y[rows])
            for i, rows in enumerate(oof.present.T)
        ]
        + [_head_temperature(oof)]
    )
    tables: dict[Rule, list[SubsetFit]] = {"pool": [], "mean": []}
    for mask in every:
        here = oof.rows(oof.with_all(mask))
        for rule, table in tables.items():
            row = (
                _pool_row(here, mask, temperatures, table)
                if rule == "pool"
                else SubsetFit(mask, _mean_weights(mask, m), 0.0)
            )
            p = fusion.fuse(rule, tempered(here, row.uses, temperatures), row.weights)
            table.append(replace(row, threshold=conformal.threshold(p, here.y, coverage)))
    both = oof.with_all(subsets.full(m))
    p = fusion.softmax(oof.branch[both] / temperatures[:-1, None])
    divergence = fusion.conflict(p) if both.any() else np.log([min(m, k)])
    return Fit(
        temperatures,
        {rule: tuple(table) for rule, table in tables.items()},
        float(np.quantile(divergence, 0.99)),
    )


def _mean_weights(mask: int, m: int) -> np.ndarray:
    alive = subsets.as_bools([mask], m)[0]
    return np.r_[alive / alive.sum(), 0.0]


def _pool_row(
    here: Answers, mask: int, temperatures: np.ndarray, smaller: list[SubsetFit]
) -> SubsetFit:
    """The pool of ``mask``, or the rule of a smaller subset where that was right more often.

    So a subset never loses to its best member, or to a smaller subset of itself, out of fold.
    """
    m = here.branch.shape[1]
    columns = [*subsets.members(mask), m]
    y = tempered(here, mask, temperatures)
    weights = np.zeros(m + 1)
    weights[columns] = (
        calibration.fit_pool(y[:, columns], here.y)
        if len(here.y)
        else _mean_weights(mask, m)[columns]
    )
    best, best_hits = SubsetFit(mask, weights, 0.0), _hits(y, weights, here.y)
    for child in subsets.children(mask):
        rule = smaller[child - 1]
        hits = _hits(tempered(here, rule.uses, temperatures), rule.weights, here.y)
        if hits > best_hits:
            best, best_hits = rule, hits
    return best


def _hits(y: np.ndarray, weights: np.ndarray, truth: np.ndarray) -> int:
    return int((fusion.pool(y, weights).argmax(1) == truth).sum())


def _head_temperature(oof: Answers) -> float:
    """One temperature for the head over all subsets, each as heavy as its share of the windows."""
    m = oof.branch.shape[1]
    masks = subsets.all_subsets(m)
    seen = [(mask, oof.with_all(mask)) for mask in masks]
    logits = np.concatenate([oof.head[rows, mask - 1] for mask, rows in seen])
    return calibration.fit_temperature(logits, np.concatenate([oof.y[rows] for _, rows in seen]))
