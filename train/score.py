"""Judging a fitted method on held-out groups: every subset, clean and noisy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from robult_edge import conformal, metrics, subsets
from robult_edge.data import Dataset
from train.comparators.shape import Fitted


def judge(fitted: Fitted, dataset: Dataset, noise: Sequence[float], seed: int) -> dict[str, Any]:
    """Scores of every rule, ready for JSON.

    Args:
        fitted: the method.
        dataset: its held-out groups are judged on.
        noise: levels, in spreads of each channel.
        seed: of the noise.

    Returns:
        Per rule: "subsets" {name: scores}, "noise" {level: {"mean", "worst", "full"}} accuracies,
        and "confidence_rises" and "rises_unprovoked", see `confidence_rises`.
    """
    rows = np.flatnonzero(dataset.test & (dataset.y >= 0))
    windows = {name: w[rows] for name, w in dataset.windows.items()}
    present, y = dataset.present[rows], dataset.y[rows]
    names = [m.name for m in dataset.modalities]
    out: dict[str, Any] = {}
    for rule, p in fitted.answer(windows, present).items():
        scores = {}
        for j, mask in enumerate(subsets.all_subsets(len(names))):
            seen = np.isfinite(p[:, j]).all(1)
            if seen.any():
                sets = conformal.prediction_sets(p[seen, j], fitted.thresholds[rule][j])
                scores[subsets.name(mask, names)] = _scores(p[seen, j], y[seen], sets)
        rises, unprovoked = confidence_rises(p)
        out[rule] = {
            "subsets": scores,
            "confidence_rises": round(rises, 4),
            "rises_unprovoked": round(unprovoked, 4),
            "noise": {},
        }
    rng = np.random.default_rng([seed, 4])
    for level in noise:
        noisy = {}
        for m in dataset.modalities:
            assert m.stats is not None
            std = np.reshape(m.stats.std, (-1, *[1] * (len(m.window_shape) - 1)))
            added = level * std * rng.standard_normal(windows[m.name].shape)
            noisy[m.name] = (windows[m.name] + added).astype(np.float32)
        for rule, p in fitted.answer(noisy, present).items():
            right = np.where(np.isfinite(p).all(2), p.argmax(2) == y[:, None], np.nan)
            each = np.nanmean(right[:, ~np.isnan(right).all(0)], 0)
            summary = {"mean": each.mean(), "worst": each.min(), "full": each[-1]}
            out[rule]["noise"][f"{level:g}"] = {k: round(float(v), 4) for k, v in summary.items()}
    return out


def confidence_rises(p: np.ndarray) -> tuple[float, float]:
    """How often an answer is surer with one sensor less, and how often so without reason.

    A sensor that, alone, names another class than the rest must make the answer less sure, and
    taking it away surer. Without reason is a rise where it names the same.

    Args:
        p: probabilities [n, 2^M − 1, K], NaN where a modality of the subset is absent.

    Returns:
        Shares of all (window, subset, member).
    """
    confidence, said = p.max(2), p.argmax(2)
    rises = unprovoked = seen = 0
    for mask in range(1, p.shape[1] + 1):
        for less in subsets.children(mask):
            # To a rounding: a subset that answers by a smaller one's rule is as sure as that.
            up = confidence[:, less - 1] > confidence[:, mask - 1] + 1e-6
            alone = mask & ~less
            rises += int(up.sum())
            unprovoked += int((up & (said[:, alone - 1] == said[:, less - 1])).sum())
            seen += int(np.isfinite(confidence[:, mask - 1]).sum())
    return rises / max(seen, 1), unprovoked / max(seen, 1)


def _scores(p: np.ndarray, y: np.ndarray, sets: np.ndarray) -> dict[str, float | int]:
    said, k = p.argmax(1), p.shape[1]
    values = {
        "accuracy": metrics.accuracy(said, y),
        "balanced_accuracy": metrics.balanced_accuracy(said, y, k),
        "macro_f1": metrics.macro_f1(said, y, k),
        "ece": metrics.ece(p, y),
        "ece_floor": metrics.ece_floor(p),
        "coverage": metrics.coverage(sets, y),
        "set_size": float(sets.sum(1).mean()),
    }
    return {"n": len(y), **{name: round(value, 4) for name, value in values.items()}}
