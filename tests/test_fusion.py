"""robult_edge.fusion: late fusion against the same sums written as loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from robult_edge import fusion

RNG = np.random.default_rng(0)
Y = RNG.normal(0, 3, (5, 4, 6))
"""Tempered logits of 5 moments, 3 branches and the head, 6 classes."""


def softmax_by_hand(z: np.ndarray) -> list[float]:
    top = max(z)
    e = [math.exp(v - top) for v in z]
    return [v / sum(e) for v in e]


def test_softmax_is_the_textbook_one() -> None:
    want = [[softmax_by_hand(z) for z in moment] for moment in Y]
    np.testing.assert_allclose(fusion.softmax(Y), want, rtol=1e-12)


@pytest.mark.parametrize("z", [[1e4, 0.0, -1e4], [-1e30, -1e30, -1e30], [88.8, 89.0, 90.0]])
def test_softmax_of_extreme_logits_is_finite_and_sums_to_one(z: list[float]) -> None:
    p = fusion.softmax(np.array(z, np.float32))
    assert np.isfinite(p).all()
    assert p.sum() == pytest.approx(1)


def test_softmax_ignores_what_is_added_to_all_classes() -> None:
    np.testing.assert_allclose(fusion.softmax(Y + 1000), fusion.softmax(Y), rtol=1e-9)


@pytest.mark.parametrize("w", [[1 / 3, 1 / 3, 1 / 3], [0.5, 0, 0.5], [0, 1, 0]])
def test_mean_averages_the_branches_probabilities(w: list[float]) -> None:
    got = fusion.mean(Y[:, :3], np.array(w))
    for p, moment in zip(got, Y, strict=True):
        members = [softmax_by_hand(z) for z in moment[:3]]
        want = [sum(w[i] * members[i][k] for i in range(3)) for k in range(6)]
        np.testing.assert_allclose(p, want, rtol=1e-12)


@pytest.mark.parametrize("w", [[0.3, 0.2, 0.5, 0.7], [1, 0, 2, 0], [0, 0, 0, 0.4]])
def test_pool_multiplies_powers_of_the_members_probabilities(w: list[float]) -> None:
    got = fusion.pool(Y, np.array(w))
    for p, moment in zip(got, Y, strict=True):
        members = [softmax_by_hand(z) for z in moment]
        powers = [math.prod(members[i][k] ** w[i] for i in range(4)) for k in range(6)]
        np.testing.assert_allclose(p, np.array(powers) / sum(powers), rtol=1e-9)


@pytest.mark.parametrize("member", range(4))
def test_a_pool_with_one_weight_of_one_is_that_member(member: int) -> None:
    got = fusion.pool(Y, np.eye(4)[member])
    np.testing.assert_allclose(got, fusion.softmax(Y[:, member]), rtol=1e-12)


def test_a_pool_without_weights_knows_nothing() -> None:
    np.testing.assert_allclose(fusion.pool(Y, np.zeros(4)), np.full((5, 6), 1 / 6))


@pytest.mark.parametrize("rule", ["pool", "mean"])
def test_a_member_of_weight_zero_has_no_say(rule: fusion.Rule) -> None:
    w = np.array([0.5, 0, 0.5, 0])
    changed = Y.copy()
    changed[:, [1, 3]] = RNG.normal(0, 50, (5, 2, 6))
    np.testing.assert_allclose(fusion.fuse(rule, changed, w), fusion.fuse(rule, Y, w), rtol=1e-12)


def test_fuse_is_pool_over_all_rows_and_mean_over_the_branches_alone() -> None:
    w = np.array([0.2, 0.3, 0.5, 0.9])
    np.testing.assert_array_equal(fusion.fuse("pool", Y, w), fusion.pool(Y, w))
    np.testing.assert_array_equal(fusion.fuse("mean", Y, w), fusion.mean(Y[:, :3], w[:3]))


@pytest.mark.parametrize("shape", [(4, 6), (5, 4, 6), (2, 5, 4, 6)])
@pytest.mark.parametrize("rule", ["pool", "mean"])
def test_fuse_takes_any_number_of_leading_axes(rule: fusion.Rule, shape: tuple[int, ...]) -> None:
    y, w = RNG.normal(0, 2, shape), np.array([0.2, 0.3, 0.5, 0.9])
    got = fusion.fuse(rule, y, w).reshape(-1, 6)
    want = [fusion.fuse(rule, one, w) for one in y.reshape(-1, 4, 6)]
    np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize("branches", [2, 3, 5])
def test_conflict_is_zero_where_all_agree_and_log_b_where_they_exclude_one_another(
    branches: int,
) -> None:
    agree = np.repeat(fusion.softmax(Y[:, :1]), branches, axis=1)
    np.testing.assert_allclose(fusion.conflict(agree), 0, atol=1e-12)
    assert fusion.conflict(np.eye(branches, 6)) == pytest.approx(math.log(branches))


def test_conflict_lies_between_zero_and_log_b_and_does_not_ask_who_said_what() -> None:
    p = fusion.softmax(Y)
    between = fusion.conflict(p)
    assert ((between > 0) & (between < math.log(4))).all()
    np.testing.assert_allclose(fusion.conflict(p[:, ::-1]), between, rtol=1e-12)


def test_sigmoid_is_the_textbook_one_and_never_overflows() -> None:
    want = [[[1 / (1 + math.exp(-v)) for v in z] for z in moment] for moment in Y]
    np.testing.assert_allclose(fusion.sigmoid(Y), want, rtol=1e-9)
    np.testing.assert_array_equal(fusion.sigmoid(np.array([-1e30, 0, 1e30])), [0, 0.5, 1])


@pytest.mark.parametrize("task", fusion.LINKS)
def test_a_pool_links_what_it_weighs_and_a_mean_weighs_what_it_links(task: str) -> None:
    link, w = fusion.LINKS[task], np.array([0.2, 0.3, 0.5, 0.7])
    for moment in Y:
        weighed = sum(w[i] * moment[i] for i in range(4))
        linked = sum(w[i] * link(moment[i]) for i in range(3))
        np.testing.assert_allclose(fusion.fuse("pool", moment, w, link), link(weighed))
        np.testing.assert_allclose(fusion.fuse("mean", moment, w, link), linked)


@pytest.mark.parametrize("task", fusion.CONFLICTS)
def test_branches_of_one_mind_are_in_no_conflict_and_opposites_are(task: str) -> None:
    conflict = fusion.CONFLICTS[task]
    agree = np.repeat(fusion.LINKS[task](Y[:, :1]), 3, axis=1)
    np.testing.assert_allclose(conflict(agree), 0, atol=1e-9)
    assert conflict(np.array([[1.0, 0.0], [0.0, 1.0]])) > 0.4


def test_conflict_over_labels_is_the_sum_of_each_labels() -> None:
    p = fusion.sigmoid(Y)
    each = [fusion.conflict(np.stack([p[..., k], 1 - p[..., k]], -1)) for k in range(6)]
    np.testing.assert_allclose(fusion.label_conflict(p), np.sum(each, 0), rtol=1e-9)
