"""robult_edge.conformal: sets hold the truth at the stated rate, or promise nothing."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robult_edge.conformal import (
    half_widths,
    label_sets,
    label_threshold,
    prediction_sets,
    threshold,
)
from robult_edge.fusion import sigmoid, softmax


def drawn(rng: np.random.Generator, n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [n, k], and truths drawn from something sharper than they say."""
    z = rng.normal(0, 1.5, (n, k))
    y = (softmax(2 * z).cumsum(1) < rng.random((n, 1))).sum(1)
    return softmax(z), np.minimum(y, k - 1)


@pytest.mark.parametrize("rate", [0.5, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("n", [30, 200])
def test_sets_hold_the_truth_at_the_stated_rate_on_exchangeable_data(n: int, rate: float) -> None:
    rng = np.random.default_rng(n)
    held = []
    for _ in range(400):
        p, y = drawn(rng, n + 50, 4)
        sets = p[n:] >= threshold(p[:n], y[:n], rate)
        held.append(sets[np.arange(50), y[n:]].mean())
    error = 4 * np.std(held) / np.sqrt(len(held))
    # Promised: at least the rate, and above it by no more than 1 / (n + 1).
    assert rate - error <= np.mean(held) <= rate + 1 / (n + 1) + error


@pytest.mark.parametrize(
    ("n", "rate", "promised"),
    [(0, 0.9, False), (8, 0.9, False), (9, 0.9, True), (18, 0.95, False), (19, 0.95, True)],
)
def test_too_few_labels_promise_nothing_and_rule_nothing_out(
    n: int, rate: float, promised: bool
) -> None:
    p, y = drawn(np.random.default_rng(1), n, 3)
    bar = threshold(p, y, rate)
    assert (bar > 0) == promised
    if not promised:
        unsure = np.array([[0.98, 0.02, 0.0]])
        assert prediction_sets(unsure, bar).all()


def test_the_bar_is_the_kth_largest_probability_of_the_truth() -> None:
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
    y = np.array([0, 0, 1, 0])  # probabilities of the truth: .9 .8 .7 .4
    assert threshold(p, y, 0.6) == 0.7  # ⌈5 · 0.6⌉ = 3
    assert threshold(p, y, 0.8) == 0.4


def test_a_class_as_probable_as_the_bar_stays() -> None:
    for p_y in np.linspace(0.01, 0.99, 99):
        p = np.array([[p_y, 1 - p_y]] * 9)
        bar = threshold(p, np.zeros(9, int), 0.9)
        assert prediction_sets(p, bar)[:, 0].all()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(0, 2))
def test_sets_are_never_empty_and_hold_the_most_probable_class(p: list[float], bar: float) -> None:
    sets = prediction_sets(np.array(p), bar)
    assert sets[int(np.argmax(p))]


def test_a_higher_bar_never_adds_a_class() -> None:
    p, _ = drawn(np.random.default_rng(2), 50, 5)
    sizes = [prediction_sets(p, bar).sum(1) for bar in np.linspace(0, 1, 21)]
    assert all((after <= before).all() for before, after in pairwise(sizes))
    assert (sizes[0] == 5).all()
    assert (sizes[-1] == 1).all()


def drawn_labels(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [n, 3] of labels, and truths drawn from something less sure."""
    z = rng.normal(0, 2, (n, 3))
    return sigmoid(2 * z), (rng.random((n, 3)) < sigmoid(z)).astype(int)


@pytest.mark.parametrize("rate", [0.8, 0.9])
@pytest.mark.parametrize("n", [30, 200])
def test_at_the_stated_rate_certain_labels_are_true_and_true_ones_possible(
    n: int, rate: float
) -> None:
    rng = np.random.default_rng(n)
    held = []
    for _ in range(400):
        p, y = drawn_labels(rng, n + 50)
        possible, certain = label_sets(p[n:], label_threshold(p[:n], y[:n], rate))
        held.append(np.where(y[n:] == 1, possible, ~certain).all(1).mean())
    assert np.mean(held) >= rate - 4 * np.std(held) / np.sqrt(len(held))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(0, 1))
def test_certain_labels_are_given_and_given_ones_possible(p: list[float], bar: float) -> None:
    possible, certain = label_sets(np.array(p), bar)
    given_ones = np.array(p) >= 0.5
    assert (certain <= given_ones).all()
    assert (given_ones <= possible).all()


def test_too_few_labels_make_nothing_certain_and_nothing_impossible() -> None:
    p, y = drawn_labels(np.random.default_rng(3), 8)
    possible, certain = label_sets(np.array([0.0, 1.0]), label_threshold(p, y, 0.9))
    assert possible.all()
    assert not certain.any()


@pytest.mark.parametrize("rate", [0.8, 0.9])
@pytest.mark.parametrize("n", [30, 200])
def test_intervals_hold_each_target_at_the_stated_rate(n: int, rate: float) -> None:
    rng = np.random.default_rng(n)
    held = []
    for _ in range(400):
        y = rng.normal(size=(n + 50, 2))
        v = y + [0.1, 2.0] * rng.standard_t(3, size=y.shape)
        half = half_widths(v[:n], y[:n], rate)
        held.append((np.abs(v[n:] - y[n:]) <= half).mean(0))
    error = 4 * np.std(held, 0) / np.sqrt(len(held))
    assert (np.mean(held, 0) >= rate - error).all()
    assert (np.mean(held, 0) <= rate + 1 / (n + 1) + error).all()


@pytest.mark.parametrize(("n", "promised"), [(0, False), (8, False), (9, True)])
def test_too_few_values_promise_no_interval(n: int, promised: bool) -> None:
    half = half_widths(np.zeros((n, 1)), np.ones((n, 1)), 0.9)
    assert half.tolist() == [1.0 if promised else np.inf]
