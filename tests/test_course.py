"""robult_edge.course: windows of a machine's cycle are measured by what is usual in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from robult_edge.course import LEAST, course
from robult_edge.data import load
from robult_edge.modality import ChannelStats, ModalitySpec
from robult_edge.nn.robult import Encoders
from train.config import TrainConfig
from train.crossfit import make_plan
from train.kernel import by_level, by_shape
from train.plan import fit_encoders

N, T = 400, 64
RNG = np.random.default_rng(0)
WAVE = np.sign(np.sin(2 * np.pi * np.arange(T) / 32))
STILL = ChannelStats(mean=(5.0,), std=(2.0,), low=(0.0,), high=(9.0,), spread=(0.1,))
CYCLE = ModalitySpec(
    name="pressure", channels=("bar",), unit="bar", rate_hz=1, window=T, hop=T, timeout_s=99,
    stats=STILL,
)  # fmt: skip


def cycles(n: int) -> np.ndarray:
    """Windows [n, 1, T] that begin with the cycle, in bar."""
    return (5 + 2 * (WAVE + 0.2 * RNG.standard_normal((n, 1, T)))).astype(np.float32)


def test_the_usual_course_is_the_mean_and_spread_at_each_sample() -> None:
    x = WAVE + 0.5 * RNG.standard_normal((N, 1, T))
    mean, spread = course(x)
    np.testing.assert_allclose(mean, x.mean(0), atol=1e-6)
    np.testing.assert_allclose(spread, x.std(0), atol=1e-6)


def test_where_windows_hardly_differ_noise_is_not_blown_up() -> None:
    x = WAVE + 0.01 * RNG.standard_normal((N, 1, T))
    np.testing.assert_array_equal(course(x)[1], np.float32(LEAST))


@pytest.mark.parametrize("n", [0, 1, 2, N])
def test_windows_that_begin_anywhere_have_no_course(n: int) -> None:
    x = np.stack([np.roll(WAVE, k) for k in RNG.integers(0, T, N)])[:n, None]
    mean, spread = course(x)
    assert not mean.any()
    assert (spread == 1).all()


def test_each_channel_has_its_own() -> None:
    x = RNG.standard_normal((N, 2, T))
    x[:, 1] += 3 * WAVE
    mean, spread = course(x)
    assert not mean[0].any()
    assert (spread[0] == 1).all()
    np.testing.assert_allclose(mean[1], x[:, 1].mean(0), atol=1e-6)


def test_a_branch_sees_what_differs_from_it() -> None:
    x = cycles(N)
    encoders = Encoders((CYCLE,), 8, {"pressure": "conv1d"})
    normalise = encoders[0][0]
    torch.testing.assert_close(normalise(torch.from_numpy(x)), torch.from_numpy((x - 5) / 2))
    assert encoders.in_phase == []
    encoders.fit({"pressure": x}, np.random.default_rng(0), in_phase=["pressure"])
    assert encoders.in_phase == ["pressure"]
    seen = normalise(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(seen.mean(0), 0, atol=1e-5)
    assert seen.std() == pytest.approx((x.std(0) / 2 / LEAST).clip(max=1).mean(), rel=0.05)


def test_what_all_windows_have_in_common_changes_no_feature() -> None:
    x = cycles(N)
    more = (x + 3 * WAVE[::-1]).astype(np.float32)
    for features in (lambda *a: by_shape(*a, np.random.default_rng(0)), by_level):
        one, two = (features(CYCLE, w)(w) for w in (x, more))
        np.testing.assert_allclose(one, two, atol=1e-3)


def test_what_trains_on_windows_shifted_in_time_has_none() -> None:
    data = load("synthetic:windows=200,modalities=2,groups=4")
    plan = make_plan(data, TrainConfig(folds=2))
    first, second = data.modalities
    wave = 9 * np.sign(np.sin(np.arange(first.window)))
    windows = {name: (w + wave).astype(np.float32) for name, w in plan.windows.items()}
    plan = replace(plan, windows=windows, invariances={first.name: ("shift",), second.name: ()})
    encoders = Encoders(plan.modalities, 8, {})
    fit_encoders(encoders, plan, TrainConfig())
    assert encoders.in_phase == [second.name]
