"""Fitting how each alive subset answers, out of fold, from labels inside the budget."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.special import ndtri

from robult_edge import calibration, conformal, fusion, metrics, subsets
from robult_edge.fusion import Rule
from robult_edge.task import Task

NEVER = 1e9
"""A conflict threshold that nothing exceeds, where no window shows all sensors together."""
LUCK = 0.05
"""Chance that of all smaller subsets' rules any is taken that is no better."""


@dataclass(frozen=True)
class Answers:
    """What branches and head said of ``n`` windows whose truth is known.

    Attributes:
        branch: outputs [n, M, K].
        head: outputs [n, 2^M − 1, K], over every subset by ascending mask.
        y: truth as the task has it, values standardised.
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
    """How one alive subset answers; see `robult_edge.bundle.SubsetEntry`.

    ``half_widths`` [K] are standardised, and empty but for values.
    """

    uses: int
    weights: np.ndarray
    threshold: float
    half_widths: np.ndarray = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True)
class Fit:
    """All that late fusion needs, by rule and ascending mask."""

    temperatures: np.ndarray
    tables: dict[Rule, tuple[SubsetFit, ...]]
    conflict: float
    task: Task = "classification"

    def probabilities(self, rule: Rule, mask: int, answers: Answers) -> np.ndarray:
        """Fused probabilities (or values) [n, K] when ``mask`` is alive; as the runtime's."""
        row = self.tables[rule][mask - 1]
        y = tempered(answers, row.uses, self.temperatures)
        return fusion.fuse(rule, y, row.weights, fusion.LINKS[self.task])


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


def fit(oof: Answers, groups: np.ndarray, coverage: float, task: Task = "classification") -> Fit:
    """Fit temperatures, both rules' tables, and the conflict threshold.

    Args:
        oof: out-of-fold answers on the labelled windows.
        groups: of those windows [n].
        coverage: the rate that prediction sets or intervals are to promise.
        task: what was asked.
    """
    m = oof.branch.shape[1]
    log_loss, link = calibration.LOG_LOSSES[task], fusion.LINKS[task]
    temperatures = np.array(
        [
            calibration.fit_temperature(oof.branch[rows, i], oof.y[rows], log_loss)
            for i, rows in enumerate(oof.present.T)
        ]
        + [_head_temperature(oof, log_loss)]
    )
    tables: dict[Rule, list[SubsetFit]] = {"pool": [], "mean": []}
    for mask in subsets.all_subsets(m):
        rows = oof.with_all(mask)
        here = oof.rows(rows)
        for rule, table in tables.items():
            row = (
                _pool_row(here, groups[rows], mask, temperatures, table, task)
                if rule == "pool"
                else SubsetFit(mask, _mean_weights(mask, m), 0.0)
            )
            p = fusion.fuse(rule, tempered(here, row.uses, temperatures), row.weights, link)
            table.append(replace(row, **_promise(task, p, here.y, coverage)))
    both = oof.with_all(subsets.full(m))
    answers = link(oof.branch[both] / temperatures[:-1, None])
    return Fit(
        temperatures,
        {rule: tuple(table) for rule, table in tables.items()},
        float(np.quantile(fusion.CONFLICTS[task](answers), 0.99)) if both.any() else NEVER,
        task,
    )


def _promise(task: Task, p: np.ndarray, y: np.ndarray, coverage: float) -> dict[str, Any]:
    """What bounds the truth at the rate ``coverage``, as fields of `SubsetFit`."""
    if task == "regression":
        return {"half_widths": conformal.half_widths(p, y, coverage)}
    fit_bar = conformal.threshold if task == "classification" else conformal.label_threshold
    return {"threshold": fit_bar(p, y, coverage)}


def _mean_weights(mask: int, m: int) -> np.ndarray:
    alive = subsets.as_bools([mask], m)[0]
    return np.r_[alive / alive.sum(), 0.0]


def _pool_row(
    here: Answers,
    groups: np.ndarray,
    mask: int,
    temperatures: np.ndarray,
    smaller: list[SubsetFit],
    task: Task,
) -> SubsetFit:
    """The pool of ``mask``, or the rule of a smaller subset where that was clearly better.

    So no subset clearly loses to its best member, or to a smaller subset of itself, out of fold.
    A rule that was better by a few windows, or in a few groups, was lucky: taken as well, it loses
    on unseen groups. Where no window shows all of ``mask`` nothing is fitted: with many holes in
    training that is so of all large subsets.
    """
    m = here.branch.shape[1]
    columns = [*subsets.members(mask), m]
    y = tempered(here, mask, temperatures)
    weights = np.zeros(m + 1)
    log_loss = calibration.LOG_LOSSES[task]
    weights[columns] = calibration.fit_pool(y[:, columns], here.y, groups, log_loss)
    best = SubsetFit(mask, weights, 0.0)
    if not len(here.y):
        return best
    mine, most = _scores(y, weights, here.y, task), clear(m)
    for rule in (smaller[child - 1] for child in subsets.children(mask)):
        members = tempered(here, rule.uses, temperatures)
        found = lead(_scores(members, rule.weights, here.y, task) - mine, groups)
        if found > most:
            best, most = rule, found
    return best


def lead(more: np.ndarray, groups: np.ndarray) -> float:
    """By how many standard errors one rule is better: of windows or of groups, the larger.

    Of classes and windows it is McNemar's. But windows of a group are alike: a thousand of them
    that say the same are one observation. So G groups cannot show a lead of more than √G.

    Args:
        more: by how much it is better on each window [n].
        groups: of the windows [n].
    """
    _, group = np.unique(groups, return_inverse=True)
    errors = [np.linalg.norm(more), np.linalg.norm(np.bincount(group, more))]
    return float(more.sum() / max(*errors, 1e-9))


def clear(m: int) -> float:
    """The `lead` from which a smaller subset's rule is taken.

    M sensors make M (2^(M−1) − 1) comparisons, so by luck some lead by two (Bonferroni).
    """
    return float(-ndtri(LUCK / max(1, m * ((1 << m - 1) - 1))))


def _scores(y: np.ndarray, weights: np.ndarray, truth: np.ndarray, task: Task) -> np.ndarray:
    return metrics.each(task, fusion.pool(y, weights, fusion.LINKS[task]), truth)


def _head_temperature(oof: Answers, log_loss: calibration.LogLoss) -> float:
    """One temperature for the head over all subsets, each as heavy as its share of the windows."""
    m = oof.branch.shape[1]
    masks = subsets.all_subsets(m)
    seen = [(mask, oof.with_all(mask)) for mask in masks]
    logits = np.concatenate([oof.head[rows, mask - 1] for mask, rows in seen])
    y = np.concatenate([oof.y[rows] for _, rows in seen])
    return calibration.fit_temperature(logits, y, log_loss)
