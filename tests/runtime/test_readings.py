"""runtime.readings: what a task's numbers are told as; classes are tested in test_tick."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from robult_edge.bundle import Manifest, Measured, SubsetEntry
from robult_edge.results import Estimate, Expected
from robult_edge.task import Scale
from runtime.readings import READINGS, Labels, Values
from tests.runtime.test_tick import MANIFEST

LABELLED = Measured(micro_f1=0.7, macro_f1=0.8, ece=0.1, set_size=1.5, coverage=0.9, n=10)
VALUED = Measured(mae=(2.0, 0.1), rmse=(3.0, 0.2), r2=(0.5, 0.6), coverage=0.9, n=10)


def entry(**own: object) -> SubsetEntry:
    return msgspec.structs.replace(MANIFEST.tables["pool"][0], **own)


def manifest(task: str, expected: Measured, **own: object) -> Manifest:
    """The manifest of test_tick with another question."""
    halves = {"half_widths": (None,) * len(expected.mae)}
    table = [
        msgspec.structs.replace(e, expected=expected, **halves) for e in MANIFEST.tables["pool"]
    ]
    return msgspec.structs.replace(
        MANIFEST, task=task, tables={"pool": tuple(table), "mean": tuple(table)}, **own
    )


LABELS = Labels(manifest("multilabel", LABELLED, classes=("hot", "wet", "old"), conflict=0.3))
VALUES = Values(
    manifest(
        "regression",
        VALUED,
        classes=("oil", "air"),
        scales=(Scale(unit="bar", mean=100, std=10), Scale(unit="K", mean=300, std=2)),
        conflict=1.0,
    )
)


@pytest.mark.parametrize(
    ("p", "threshold", "labels", "certain", "possible"),
    [
        ([0.9, 0.3, 0.01], 0.2, ["hot"], ["hot"], ["hot", "wet"]),
        ([0.7, 0.3, 0.01], 0.2, ["hot"], [], ["hot", "wet"]),
        ([0.7, 0.6, 0.4], 0.9, ["hot", "wet"], ["hot", "wet"], ["hot", "wet"]),
        ([0.2, 0.1, 0.1], 0.15, [], [], ["hot"]),
        ([1.0, 0.0, 0.0], 0.0, ["hot"], [], ["hot", "wet", "old"]),
    ],
)
def test_labels_are_given_certain_or_possible(
    p: list[float], threshold: float, labels: list[str], certain: list[str], possible: list[str]
) -> None:
    got = LABELS.answer(np.array(p), entry(threshold=threshold))
    assert got.label is None
    assert list(got.probabilities.values()) == p
    assert (got.labels, got.certain, got.prediction_set) == (labels, certain, possible)


def test_values_are_told_in_their_unit_with_an_interval_where_one_is_promised() -> None:
    got = VALUES.answer([0.5, -1.0], entry(half_widths=(4.0, None)))
    assert got.estimates == {
        "oil": Estimate(105.0, 101.0, 109.0, "bar"),
        "air": Estimate(298.0, None, None, "K"),
    }
    assert (got.label, got.probabilities, got.prediction_set) == (None, {}, [])


def test_a_branch_tells_what_it_alone_would_have_said() -> None:
    assert LABELS.branch([0.6, 0.2, 0.5]) == {"labels": ["hot", "old"]}
    assert VALUES.branch([1.0, 0.0]) == {"values": {"oil": 110.0, "air": 300.0}}


def test_what_to_expect_is_told_in_the_tasks_own_score() -> None:
    assert LABELS.expected(LABELLED, LABELLED) == Expected(
        macro_f1=0.8, full_macro_f1=0.8, coverage=0.9
    )
    assert VALUES.expected(VALUED, VALUED) == Expected(
        mae={"oil": 2.0, "air": 0.1}, full_mae={"oil": 2.0, "air": 0.1}, coverage=0.9
    )


def test_branches_conflict_where_they_differ_more_than_validation_did() -> None:
    assert not LABELS.conflict([[0.9, 0.1, 0.1], [0.6, 0.4, 0.4]])
    assert LABELS.conflict([[0.99, 0.1, 0.1], [0.01, 0.9, 0.1]])
    assert not VALUES.conflict([[0.5, 0.1], [-0.5, 0.1]])
    assert VALUES.conflict([[3.0, 0.1], [-3.0, 0.1]])
    for one in (LABELS, VALUES):
        assert not one.conflict([[0.9, 0.1, 0.8]])


@pytest.mark.parametrize(
    ("one", "others", "contradicts"),
    [
        ((0.95, 0.05, 0.0), (0.05, 0.95, 0.0), True),
        ((0.9, 0.1, 0.0), (0.0, 0.1, 0.9), True),
        ((0.9, 0.1, 0.0), (0.1, 0.9, 0.0), True),
        ((0.89, 0.11, 0.0), (0.11, 0.89, 0.0), False),
        ((0.8, 0.2, 0.0), (0.2, 0.8, 0.0), False),
        ((0.99, 0.01, 0.0), (0.4, 0.6, 0.0), False),
        ((0.99, 0.005, 0.005), (0.5, 0.25, 0.25), False),
    ],
)
def test_who_is_undecided_contradicts_nobody(
    one: tuple[float, ...], others: tuple[float, ...], contradicts: bool
) -> None:
    classes = READINGS["classification"](MANIFEST)
    for pair in ((one, others), (others, one)):
        assert classes.differ(*map(np.array, pair)) is contradicts


def test_with_nothing_alive_each_task_has_its_keys_and_nothing_in_them() -> None:
    nothing = {task: reads.nothing for task, reads in READINGS.items()}  # type: ignore[attr-defined]
    assert (nothing["multilabel"].labels, nothing["multilabel"].certain) == ([], [])
    assert nothing["regression"].estimates == {}
    assert nothing["classification"].labels is None
