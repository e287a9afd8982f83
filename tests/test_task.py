"""robult_edge.task: what is known, how it is scaled, and what counts as alike for a fair draw."""

from __future__ import annotations

import numpy as np
import pytest

from robult_edge import task
from robult_edge.task import Scale


@pytest.mark.parametrize(
    ("y", "known"),
    [
        (np.array([0, -1, 2]), [True, False, True]),
        (np.array([[0, 1], [-1, -1], [1, -1]]), [True, False, False]),
        (np.array([[0.5, -1], [np.nan, 1], [np.inf, 1]], np.float32), [True, False, False]),
    ],
)
def test_a_row_with_anything_unknown_is_unlabelled(y: np.ndarray, known: list[bool]) -> None:
    assert task.labelled(y).tolist() == known


def test_values_come_back_from_their_scales() -> None:
    y = np.random.default_rng(0).normal([1e5, 0.01], [100, 0.002], (50, 2))
    by = task.scales(y, ("Pa", "m"))
    out = task.standardised(y, by)
    assert [s.unit for s in by] == ["Pa", "m"]
    np.testing.assert_allclose(out.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(out.std(0), 1, atol=1e-5)
    np.testing.assert_allclose([s.mean for s in by] + out * [s.std for s in by], y, rtol=1e-6)


def test_a_value_that_never_moves_is_left_unscaled() -> None:
    assert task.scales(np.full((3, 1), 7.0), ("m",)) == (Scale(unit="m", mean=7.0, std=1.0),)


def test_classes_and_labels_have_no_scale() -> None:
    y = np.array([[0, 1], [1, 1]])
    assert task.scales(y, ()) == ()
    assert task.standardised(y, ()) is y


def test_strata_are_classes_label_sets_or_quantiles() -> None:
    classes = np.array([2, 0, 1])
    assert task.strata(classes) is classes
    sets = np.array([[0, 1], [1, 1], [0, 1], [0, 0], [0, 1], [1, 1]])
    assert task.strata(sets).tolist() == [0, 1, 0, 2, 0, 1]
    values = np.random.default_rng(1).permutation(800)[:, None].astype(np.float32)
    assert np.bincount(task.strata(values)).tolist() == [100] * task.STRATA
    levels = np.repeat([90.0, 100.0, 130.0], [5, 40, 5])[:, None]
    assert len(np.unique(task.strata(levels))) == 3


def test_rare_label_sets_share_a_stratum_so_that_a_budget_is_kept() -> None:
    many = np.random.default_rng(2).integers(2, size=(500, 8))
    counts = np.bincount(task.strata(many))
    assert len(counts) == task.STRATA
    assert counts.sum() == 500


def test_nothing_has_no_strata() -> None:
    for y in (np.zeros(0, int), np.zeros((0, 2), int), np.zeros((0, 1), np.float32)):
        assert task.strata(y).shape == (0,)
