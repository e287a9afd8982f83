"""MiniRocket and a ridge classifier per sensor, averaged: what a practitioner would pick."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from sklearn.linear_model import RidgeClassifierCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from robult_edge import calibration, fusion, subsets
from robult_edge.nn import minirocket
from train.comparators.shape import Fitted, Tables, Windows, calibrated
from train.config import TrainConfig
from train.plan import Plan


class Ridge:
    """One sensor's classifier, its penalty chosen by leave-one-out inside the fit (aeon's way)."""

    def __init__(self, x: np.ndarray, y: np.ndarray, classes: int, seed: int) -> None:
        """Windows x [n, *window_shape] and their classes y [n]."""
        self.classes = classes
        self.known = np.unique(y)
        self.ridge: Pipeline | None = None
        if len(self.known) > 1:
            series = x.ndim == 3 and x.shape[2] >= minirocket.LENGTH
            rng = np.random.default_rng(seed)
            self.features = _rocket(x, rng) if series else _flat
            self.ridge = make_pipeline(
                StandardScaler(), RidgeClassifierCV(alphas=np.logspace(-3, 3, 10))
            ).fit(self.features(x), y)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Scores [n, K], about 1 for the class and −1 for the others."""
        scores = np.full((len(x), self.classes), -1.0)
        if self.ridge is None:
            scores[:, self.known] = 1.0
            return scores
        found = self.ridge.decision_function(self.features(x))
        scores[:, self.known] = np.stack([-found, found], 1) if found.ndim == 1 else found
        return scores


def fit(plan: Plan, config: TrainConfig, rates: Sequence[float]) -> Fitted:
    """Rule "minirocket"; there is no learning rate to choose."""
    rows = np.flatnonzero(plan.known)
    y, folds, judged = plan.y[rows], plan.fold[rows], plan.judged[rows]
    ridges, temperatures = [], []
    scores = np.full((len(rows), len(plan.modalities), plan.classes), np.nan)
    for i, m in enumerate(plan.modalities):
        x, here = plan.windows[m.name][rows], plan.present[rows, i]
        for fold in plan.folds:
            mine, other = here & (folds != fold), here & (folds == fold) & judged
            if mine.any() and other.any():
                scores[other, i] = Ridge(x[mine], y[mine], plan.classes, config.seed)(x[other])
        seen = np.isfinite(scores[:, i]).all(1)
        temperatures.append(calibration.fit_temperature(scores[seen, i], y[seen]))
        ridges.append(Ridge(x[here], y[here], plan.classes, config.seed))

    def tables(scores: np.ndarray) -> Tables:
        return {"minirocket": averaged(scores / np.array(temperatures)[:, None])}

    def logits(windows: Windows, present: np.ndarray) -> Tables:
        said = np.full((*present.shape, plan.classes), np.nan)
        for i, (m, ridge) in enumerate(zip(plan.modalities, ridges, strict=True)):
            here = present[:, i]
            if here.any():
                said[here, i] = ridge(windows[m.name][here])
        return tables(said)

    return calibrated(tables(scores), y, logits, {})


def averaged(y_hat: np.ndarray) -> np.ndarray:
    """log mean_i softmax(ŷ_i) over every subset: [n, M, K] → [n, 2^M − 1, K]."""
    p = fusion.softmax(y_hat)
    masks = subsets.all_subsets(y_hat.shape[1])
    means = np.stack([p[:, subsets.members(mask)].mean(1) for mask in masks], 1)
    return np.log(means.clip(np.finfo(means.dtype).tiny))


def _rocket(x: np.ndarray, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """MiniRocket as its authors made it, drawn from windows x [n, C, T]."""
    _, channels, samples = x.shape
    rocket = minirocket.MiniRocket(channels, samples, features=10_000, softness=1e-6)
    rocket.fit(torch.from_numpy(x), rng)

    def features(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return torch.cat([rocket(part) for part in torch.from_numpy(x).split(64)]).numpy()

    return features


def _flat(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1)
