"""Robult in the shape of every method, late fusion fitted out of fold as a bundle's is."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from robult_edge import late_fusion, subsets
from robult_edge.fusion import Rule
from robult_edge.late_fusion import Answers
from robult_edge.nn.robult import Robult
from train import crossfit, loop
from train.comparators.shape import COVERAGE, Fitted, Tables, Windows, calibrated
from train.config import TrainConfig
from train.plan import Plan


def fit(plan: Plan, config: TrainConfig, rates: Sequence[float]) -> Fitted:
    """Rules "robult" (the pool), "robult-mean" (the paper's) and "robult-head"."""
    trials = [_crossfit(plan, replace(config, lr=lr)) for lr in rates]
    costs = [_cost(trial.oof, plan) for trial in trials]
    best = int(np.argmin(costs))
    fitted = trials[best]
    model = loop.build(plan, config).eval()
    model.load_state_dict(fitted.weights)
    y, present = fitted.oof["y"], fitted.oof["present"]
    judged = Answers(fitted.oof["branch"], fitted.oof["head"], y, present)
    fused = late_fusion.fit(judged, fitted.oof["group"], COVERAGE)
    head = calibrated(
        {"robult-head": fitted.oof["head"]},
        y,
        lambda windows, there: {"robult-head": _said(model, plan, windows, there).head},
        {"lr": rates[best], "epochs": fitted.epochs},
    )
    rules: dict[str, Rule] = {"robult": "pool", "robult-mean": "mean"}

    def answer(windows: Windows, there: np.ndarray) -> Tables:
        said = _said(model, plan, windows, there)
        masks = subsets.all_subsets(there.shape[1])
        out = {}
        for name, rule in rules.items():
            p = np.stack([fused.probabilities(rule, mask, said) for mask in masks], 1)
            for j, mask in enumerate(masks):
                p[~said.with_all(mask), j] = np.nan
            out[name] = p
        return out | head.answer(windows, there)

    thresholds = {
        name: np.array([row.threshold for row in fused.tables[rule]])
        for name, rule in rules.items()
    }
    return Fitted(answer, thresholds | head.thresholds, head.chosen)


def _crossfit(plan: Plan, config: TrainConfig) -> crossfit.Fitted:
    with tempfile.TemporaryDirectory() as folder:
        return crossfit.fit(plan, config, Path(folder) / "folds", lambda _: None)


def _cost(oof: dict[str, np.ndarray], plan: Plan) -> float:
    fair = (1 / np.bincount(oof["y"], minlength=plan.classes).clip(1))[oof["y"]]
    return loop.oof_error(np.concatenate([oof["branch"], oof["head"]], 1), oof["y"], fair)


def _said(model: Robult, plan: Plan, windows: Windows, present: np.ndarray) -> Answers:
    n, m = present.shape
    seen = replace(plan, windows=dict(windows), present=present)
    branch, head = loop.predict(model, seen, np.arange(n), subsets.all_subsets(m))
    return Answers(branch, head, np.zeros(n, int), present)
