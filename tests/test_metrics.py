"""robult_edge.metrics: against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from robult_edge import metrics

Y = np.array([0, 0, 0, 0, 1, 1, 2])
SAID = np.array([0, 0, 0, 1, 1, 0, 1])
"""Class 0: 3 of 4 found; class 1: 1 of 2; class 2: 0 of 1. Class 3 never occurs."""


def test_accuracy_is_the_share_of_hits() -> None:
    assert metrics.accuracy(SAID, Y) == pytest.approx(4 / 7)


def test_confusion_has_truth_in_rows_and_prediction_in_columns() -> None:
    want = [[3, 1, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(metrics.confusion(SAID, Y, 4), want)


def test_macro_f1_averages_over_the_classes_that_occur() -> None:
    # F1 = 2 hits / (truths + predictions): 6/8, 2/5, 0/1; class 3 is left out.
    assert metrics.macro_f1(SAID, Y, 4) == pytest.approx((6 / 8 + 2 / 5 + 0) / 3)


def test_a_class_that_is_only_ever_predicted_counts_in_macro_f1() -> None:
    assert metrics.macro_f1(np.array([0, 1]), np.array([0, 0]), 2) == pytest.approx((2 / 3 + 0) / 2)


def test_balanced_accuracy_averages_the_recall_of_the_classes_that_occur_in_truth() -> None:
    assert metrics.balanced_accuracy(SAID, Y, 4) == pytest.approx((3 / 4 + 1 / 2 + 0) / 3)


def test_perfect_answers_score_one() -> None:
    assert metrics.accuracy(Y, Y) == metrics.macro_f1(Y, Y, 4) == 1
    assert metrics.balanced_accuracy(Y, Y, 4) == 1


def test_ece_weighs_each_bins_gap_by_its_size() -> None:
    # Bin of .8: two answers, one right, gap |.5 − .8| = .3; bin of .6: one right, gap .4.
    p = np.array([[0.8, 0.2], [0.8, 0.2], [0.6, 0.4]])
    want = 2 / 3 * 0.3 + 1 / 3 * 0.4
    assert metrics.ece(p, np.array([0, 1, 0]), bins=10) == pytest.approx(want)


@pytest.mark.parametrize(("y", "want"), [([0, 0], 0.0), ([1, 1], 1.0), ([0, 1], 0.5)])
def test_ece_of_full_confidence_is_the_error_rate(y: list[int], want: float) -> None:
    assert metrics.ece(np.array([[1.0, 0.0]] * 2), np.array(y)) == pytest.approx(want)


def test_over_and_under_confidence_do_not_cancel_between_bins() -> None:
    p = np.array([[0.9, 0.1], [0.6, 0.4]])
    assert metrics.ece(p, np.array([1, 0]), bins=10) == pytest.approx((0.9 + 0.4) / 2)


def test_the_ece_floor_is_what_a_calibrated_answer_shows() -> None:
    rng = np.random.default_rng(1)
    sure = rng.uniform(0.5, 1, 400)
    p = np.stack([sure, 1 - sure], 1)
    seen = [metrics.ece(p, (rng.random(400) > sure).astype(int)) for _ in range(200)]
    assert metrics.ece_floor(p) == pytest.approx(np.mean(seen), rel=0.1)


def test_the_ece_floor_sinks_with_the_root_of_the_windows() -> None:
    p = np.tile([[0.7, 0.3]], (400, 1))
    assert metrics.ece_floor(np.tile(p, (16, 1))) == pytest.approx(
        metrics.ece_floor(p) / 4, rel=0.3
    )
    assert metrics.ece_floor(np.array([[1.0, 0.0]])) == 0


def test_coverage_is_the_share_of_sets_that_hold_the_truth() -> None:
    sets = np.array([[True, False], [True, True], [False, True], [False, True]])
    assert metrics.coverage(sets, np.array([0, 1, 0, 1])) == 0.75


LABELS = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0]])
GIVEN = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0]])
"""Label 0: always right; label 1: one false, two missed; label 2 never occurs."""


def test_label_f1_is_pooled_or_averaged_over_the_labels_that_occur() -> None:
    micro, macro = metrics.label_f1(GIVEN, LABELS)
    assert micro == pytest.approx(2 * 2 / (3 + 4))
    assert macro == pytest.approx((1 + 0) / 2)
    assert metrics.label_f1(0 * GIVEN, 0 * LABELS) == (1, 1)


def test_label_ece_counts_every_decision() -> None:
    p = np.array([[0.9, 0.2], [0.9, 0.2]])
    # For: .9 twice, one right; against: .8 twice, both right.
    want = (abs(1 - 1.8) + abs(2 - 1.6)) / 4
    assert metrics.label_ece(p, np.array([[1, 0], [0, 0]]), bins=10) == pytest.approx(want)


def test_errors_of_values_are_told_per_target() -> None:
    y = np.array([[0.0, 10.0], [2.0, 10.0]])
    v = np.array([[1.0, 10.0], [2.0, 14.0]])
    assert metrics.mae(v, y).tolist() == [0.5, 2.0]
    np.testing.assert_allclose(metrics.rmse(v, y), [np.sqrt(0.5), np.sqrt(8)])
    assert metrics.r2(v, y).tolist() == [0.5, 0.0]  # the second target does not move


@pytest.mark.parametrize("task", metrics.SCORES)
def test_a_perfect_answer_has_score_one_and_a_wrong_one_less(task: metrics.Task) -> None:
    y = {"classification": np.array([0, 1, 1])}.get(task, np.array([[0.0, 1], [1, 0], [1, 1]]))
    right = np.eye(2)[y] if task == "classification" else y
    assert metrics.score(task, right, y) == 1
    assert metrics.score(task, 1 - right, y) < 0.5


def test_what_each_window_scores():
    p = np.array([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3]])
    y = np.array([0, 1, 1])
    np.testing.assert_array_equal(metrics.each("classification", p, y), [1, 1, 0])
    labels = np.array([[1, 0], [1, 1], [0, 1]])
    np.testing.assert_array_equal(metrics.each("multilabel", p, labels), [1, 0.5, 0])
    values = p - np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 3.0]])
    np.testing.assert_allclose(metrics.each("regression", p, values), [0, -0.5, -5])
