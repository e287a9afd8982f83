"""What late fusion's numbers mean: one small class per task, all with the same four methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec
import numpy as np

from robult_edge import conformal, fusion, native
from robult_edge.bundle import Manifest, Measured, SubsetEntry
from robult_edge.results import Estimate, Expected
from robult_edge.task import Task

Rows = Sequence[Sequence[float]]

SURE = 0.368
"""Nats between (.9, .1) and (.1, .9): whoever is less sure of another class does not contradict."""


class Reading(msgspec.Struct, frozen=True):
    """The part of a `robult_edge.results.Result` that a task fills in."""

    label: str | None = None
    probabilities: dict[str, float] = {}
    prediction_set: list[str] = []
    labels: list[str] | None = None
    certain: list[str] | None = None
    estimates: dict[str, Estimate] | None = None


class Reads(Protocol):
    """How a task reads answers [K]: probabilities, or standardised values.

    Attributes:
        nothing: what is said when nothing is alive.
    """

    nothing: Reading

    def answer(self, fused: Sequence[float], entry: SubsetEntry) -> Reading:
        """The fused answer, by the table row that it was computed by."""

    def branch(self, said: Sequence[float]) -> dict[str, Any]:
        """One branch's own answer, as fields of `robult_edge.results.ModalityAnswer`."""

    def conflict(self, branches: Rows) -> bool:
        """Whether answers [B][K] of the alive branches contradict one another."""

    def differ(self, one: np.ndarray, others: np.ndarray) -> bool:
        """Whether an answer [K] contradicts that of the others [K]."""

    def expected(self, here: Measured, full: Measured) -> Expected:
        """What to expect of a subset, and with everything alive."""


class Classes:
    """classification: one class of K."""

    nothing = Reading()

    def __init__(self, manifest: Manifest) -> None:
        self._classes, self._conflict = manifest.classes, manifest.conflict

    def answer(self, fused: Sequence[float], entry: SubsetEntry) -> Reading:
        top = max(fused)
        bar = min(entry.threshold, top)
        return Reading(
            label=self._classes[fused.index(top)],
            probabilities={c: round(v, 6) for c, v in zip(self._classes, fused, strict=True)},
            prediction_set=[c for c, v in zip(self._classes, fused, strict=True) if v >= bar],
        )

    def branch(self, said: Sequence[float]) -> dict[str, Any]:
        top = max(said)
        return {"label": self._classes[said.index(top)], "probability": round(top, 4)}

    def conflict(self, branches: Rows) -> bool:
        said = [p.index(max(p)) for p in branches]
        if said.count(said[0]) == len(said):
            return False  # branches of one mind do not contradict one another
        return divergence(branches) > self._conflict

    def differ(self, one: np.ndarray, others: np.ndarray) -> bool:
        if one.argmax() == others.argmax():
            return False  # as most often, and sooner known
        return divergence([one.tolist(), others.tolist()]) >= SURE

    def expected(self, here: Measured, full: Measured) -> Expected:
        return Expected(accuracy=here.accuracy, full_accuracy=full.accuracy, coverage=here.coverage)


class Labels:
    """multilabel: any of K labels."""

    nothing = Reading(labels=[], certain=[])

    def __init__(self, manifest: Manifest) -> None:
        self._labels, self._conflict = manifest.classes, manifest.conflict

    def answer(self, fused: Sequence[float], entry: SubsetEntry) -> Reading:
        p = np.array(fused)
        possible, certain = conformal.label_sets(p, entry.threshold)
        return Reading(
            probabilities={c: round(v, 6) for c, v in zip(self._labels, fused, strict=True)},
            prediction_set=self._named(possible),
            labels=self._named(p >= 0.5),
            certain=self._named(certain),
        )

    def branch(self, said: Sequence[float]) -> dict[str, Any]:
        return {"labels": self._named(np.array(said) >= 0.5)}

    def conflict(self, branches: Rows) -> bool:
        p = np.array(branches)
        said = p >= 0.5
        if (said == said[0]).all():
            return False
        return float(fusion.label_conflict(p)) > self._conflict

    def differ(self, one: np.ndarray, others: np.ndarray) -> bool:
        return bool(((one >= 0.5) != (others >= 0.5)).any())

    def expected(self, here: Measured, full: Measured) -> Expected:
        return Expected(macro_f1=here.macro_f1, full_macro_f1=full.macro_f1, coverage=here.coverage)

    def _named(self, chosen: np.ndarray) -> list[str]:
        return [c for c, there in zip(self._labels, chosen.tolist(), strict=True) if there]


class Values:
    """regression: a value per target, in its unit."""

    nothing = Reading(estimates={})

    def __init__(self, manifest: Manifest) -> None:
        self._targets, self._scales = manifest.classes, manifest.scales
        self._conflict = manifest.conflict

    def answer(self, fused: Sequence[float], entry: SubsetEntry) -> Reading:
        estimates = {}
        for (name, value), half, scale in zip(
            self._values(fused).items(), entry.half_widths, self._scales, strict=True
        ):
            low, high = (None, None) if half is None else (value - half, value + half)
            estimates[name] = Estimate(value, low, high, scale.unit)
        return Reading(estimates=estimates)

    def branch(self, said: Sequence[float]) -> dict[str, Any]:
        return {"values": self._values(said)}

    def conflict(self, branches: Rows) -> bool:
        return float(fusion.value_conflict(np.array(branches))) > self._conflict

    def differ(self, one: np.ndarray, others: np.ndarray) -> bool:
        return self.conflict([one.tolist(), others.tolist()])

    def expected(self, here: Measured, full: Measured) -> Expected:
        return Expected(
            coverage=here.coverage,
            mae=dict(zip(self._targets, here.mae, strict=True)),
            full_mae=dict(zip(self._targets, full.mae, strict=True)),
        )

    def _values(self, standardised: Sequence[float]) -> dict[str, float]:
        return {
            name: scale.mean + scale.std * v
            for name, scale, v in zip(self._targets, self._scales, standardised, strict=True)
        }


def divergence(branches: Rows) -> float:
    """`robult_edge.fusion.conflict` of distributions [B][K]."""
    said = native.conflict(branches)
    return float(fusion.conflict(np.array(branches))) if said is None else said


READINGS: dict[Task, Callable[[Manifest], Reads]] = {
    "classification": Classes,
    "multilabel": Labels,
    "regression": Values,
}
