"""robult_edge.calibration: temperatures and pool weights are what the data say, and no more."""

from __future__ import annotations

import numpy as np
import pytest

from robult_edge import fusion, metrics
from robult_edge.calibration import (
    LOG_LOSSES,
    binary_cross_entropy,
    fit_pool,
    fit_temperature,
    gaussian,
    pool_loss,
    usual_rule,
)

N, K = 4000, 5


def spoken(rng: np.random.Generator, n: int, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits [n, K] that are ``temperature`` times too sure, and the truths."""
    z = rng.normal(0, 1.5, (n, K))
    y = (fusion.softmax(z).cumsum(1) < rng.random((n, 1))).sum(1)
    return temperature * z, np.minimum(y, K - 1)


def members(seed: int, n: int, noise: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Logits [n, R, K] of members that see one truth through noise, and the truths [n]."""
    rng = np.random.default_rng(seed)
    y = rng.integers(K, size=n)
    said = [2 * np.eye(K)[y] + rng.normal(0, s, (n, K)) for s in noise]
    return np.stack(said, axis=1), y


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 5.0])
def test_a_known_temperature_is_recovered(temperature: float) -> None:
    logits, y = spoken(np.random.default_rng(3), N, temperature)
    assert fit_temperature(logits, y) == pytest.approx(temperature, rel=0.06)


def test_tempered_probabilities_are_calibrated() -> None:
    rng = np.random.default_rng(4)
    logits, y = spoken(rng, N, 3.0)
    fresh, truth = spoken(rng, N, 3.0)
    t = fit_temperature(logits, y)
    assert metrics.ece(fusion.softmax(fresh), truth) > 0.1
    assert metrics.ece(fusion.softmax(fresh / t), truth) < 0.03


def test_without_labels_the_temperature_is_one() -> None:
    assert fit_temperature(np.zeros((0, K)), np.zeros(0, int)) == 1.0


@pytest.mark.parametrize("right", [True, False])
def test_few_labels_do_not_move_the_temperature_far(right: bool) -> None:
    logits = np.zeros((2, K))
    logits[:, 0] = 3.0
    y = np.full(2, 0 if right else 1)
    t = fit_temperature(logits, y)
    assert 0.8 < t < 2.5
    assert (t < 1) == right


def test_the_gradient_of_the_pools_loss_is_its_slope() -> None:
    y_hat, y = members(5, 60, (1.0, 2.0, 0.5))
    w, step = np.array([0.3, 0.9, 0.1]), 1e-6
    _, gradient = pool_loss(w, y_hat, y)
    for r, d in enumerate(step * np.eye(3)):
        slope = (pool_loss(w + d, y_hat, y)[0] - pool_loss(w - d, y_hat, y)[0]) / (2 * step)
        assert gradient[r] == pytest.approx(slope, rel=1e-5, abs=1e-5)


def test_the_pools_loss_is_the_log_loss_of_what_the_runtime_computes() -> None:
    y_hat, y = members(6, 60, (1.0, 2.0, 0.5))
    w = np.array([0.3, 0.9, 0.1])
    want = -np.log(fusion.pool(y_hat, w)[np.arange(len(y)), y]).sum()
    assert pool_loss(w, y_hat, y)[0] == pytest.approx(want)


@pytest.mark.parametrize(("count", "who"), [(2, 0), (3, 2), (5, 4)])
def test_one_branch_answers_alone_and_for_several_the_head_does(count: int, who: int) -> None:
    np.testing.assert_array_equal(usual_rule(count), np.eye(count)[who])
    nothing = np.zeros((0, count, 4)), np.zeros(0, int), np.zeros(0, int)
    np.testing.assert_array_equal(fit_pool(*nothing), usual_rule(count))


@pytest.mark.parametrize("n", [1, 5, 50, 500])
@pytest.mark.parametrize("noise", [(1.0, 1.0, 1.0), (0.3, 4.0, 4.0), (4.0, 0.5), (2, 2, 2, 2, 0.5)])
def test_a_fitted_pool_is_never_worse_than_the_usual_rule(n: int, noise: tuple[float, ...]) -> None:
    y_hat, y = members(7, n, noise)
    w = fit_pool(y_hat, y, np.arange(len(y)))
    assert pool_loss(w, y_hat, y)[0] <= pool_loss(usual_rule(len(noise)), y_hat, y)[0] + 1e-9
    assert (w >= 0).all()


def test_a_member_that_lies_gets_no_weight_rather_than_a_negative_one() -> None:
    y_hat, y = members(8, 500, (1.0, 1.0, 1.0))
    y_hat[:, 1] = -2 * y_hat[:, 1]
    assert fit_pool(y_hat, y, np.arange(len(y)))[1] == pytest.approx(0, abs=1e-9)


def test_few_labels_stay_near_the_usual_rule_and_many_leave_it() -> None:
    away = []
    for n in (4, 2000):
        y_hat, y = members(9, n, (0.7, 1.0, 1.4))
        away.append(np.abs(fit_pool(y_hat, y, np.arange(len(y))) - usual_rule(3)).max())
    assert away[0] < 0.05 < 0.4 < away[1]


def test_more_windows_of_the_same_groups_move_the_pool_no_further() -> None:
    y_hat, y = members(9, 500, (0.7, 1.0, 1.4))
    groups = np.arange(500) // 50
    once = fit_pool(y_hat, y, groups)
    double = np.concatenate([y_hat, y_hat]), np.r_[y, y]
    np.testing.assert_allclose(fit_pool(*double, np.r_[groups, groups]), once, atol=1e-3)
    further = fit_pool(*double, np.r_[groups, groups + 10])
    assert np.abs(further - usual_rule(3)).max() > 1.05 * np.abs(once - usual_rule(3)).max()


def test_independent_members_together_beat_each_alone_on_unseen_data() -> None:
    y_hat, y = members(10, 500, (2.0, 2.0, 2.0))
    fresh, truth = members(11, 2000, (2.0, 2.0, 2.0))
    w = fit_pool(y_hat, y, np.arange(len(y)))
    together = metrics.accuracy(fusion.pool(fresh, w).argmax(1), truth)
    alone = max(metrics.accuracy(fresh[:, i].argmax(1), truth) for i in range(3))
    assert together > alone + 0.05


def truths(task: str, rng: np.random.Generator, n: int) -> np.ndarray:
    return {
        "classification": rng.integers(3, size=n),
        "multilabel": rng.integers(2, size=(n, 3)),
        "regression": rng.normal(size=(n, 3)),
    }[task]


@pytest.mark.parametrize("task", LOG_LOSSES)
def test_every_tasks_log_loss_has_its_slope_as_gradient(task: str) -> None:
    rng = np.random.default_rng(11)
    y, y_hat = truths(task, rng, 40), rng.normal(size=(40, 3, 3))
    w, step = np.array([0.3, 0.9, 0.1]), 1e-6
    loss = LOG_LOSSES[task]
    _, gradient = pool_loss(w, y_hat, y, loss)
    for r, d in enumerate(step * np.eye(3)):
        up, down = pool_loss(w + d, y_hat, y, loss)[0], pool_loss(w - d, y_hat, y, loss)[0]
        assert gradient[r] == pytest.approx((up - down) / (2 * step), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("n", [3, 50, 500])
@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_a_fitted_pool_of_labels_or_values_is_never_worse_than_the_usual_rule(
    task: str, n: int
) -> None:
    rng = np.random.default_rng(12)
    y = truths(task, rng, n)
    y_hat = np.stack([2 * y - 1 + rng.normal(0, s, y.shape) for s in (0.4, 1.0, 3.0)], 1)
    w = fit_pool(y_hat, y, np.arange(n), LOG_LOSSES[task])
    usual = pool_loss(usual_rule(3), y_hat, y, LOG_LOSSES[task])[0]
    assert pool_loss(w, y_hat, y, LOG_LOSSES[task])[0] <= usual + 1e-9
    assert (w >= 0).all()


def test_a_pool_of_values_weighs_members_by_their_precision() -> None:
    rng = np.random.default_rng(13)
    y, spread = rng.normal(size=(20_000, 1)), np.array([0.5, 1.0, 2.0])
    y_hat = y[:, None] + spread[:, None] * rng.normal(size=(20_000, 3, 1))
    # Least squares of a standard normal truth: w_r = (1/s_r²) / (1 + Σ 1/s²).
    want = spread**-2 / (1 + (spread**-2).sum())
    np.testing.assert_allclose(fit_pool(y_hat, y, np.arange(len(y)), gaussian), want, atol=0.02)


def test_a_temperature_of_labels_is_recovered_and_values_have_none() -> None:
    rng = np.random.default_rng(14)
    z = rng.normal(0, 1.5, (N, K))
    y = (rng.random((N, K)) < fusion.sigmoid(z)).astype(int)
    assert fit_temperature(3 * z, y, binary_cross_entropy) == pytest.approx(3, rel=0.06)
    assert fit_temperature(3 * z, z, gaussian) == 1.0
