"""robult_edge.faults: a sensor that lies is told in words, one that does not is left alone."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from robult_edge import faults
from robult_edge.data.stats import channel_stats
from robult_edge.modality import RUN_HOPS, ChannelStats, HopStats, ModalitySpec

HOP = 25


def spec(stats: ChannelStats | None, **changes: Any) -> ModalitySpec:
    given: dict[str, Any] = {"window": 100, "hop": HOP, **changes}
    return ModalitySpec(
        name="gyro",
        channels=("gx", "gy", "gz"),
        unit="rad/s",
        rate_hz=50.0,
        timeout_s=1.0,
        stats=stats,
        **given,
    )


def measured(recordings: list[np.ndarray]) -> ChannelStats:
    """What training on these recordings would know of the sensor."""
    return channel_stats(lambda: recordings, HOP)


def stats(**changes: Any) -> ChannelStats:
    """Channels that live within ±1, ±1 and 9..11, and move by at least .5 in every hop."""
    given: dict[str, Any] = {
        "mean": (0.0, 0.0, 10.0),
        "std": (0.5, 0.5, 0.5),
        "low": (-1.0, -1.0, 9.0),
        "high": (1.0, 1.0, 11.0),
        "spread": (0.5, 0.5, 0.5),
        **changes,
    }
    return ChannelStats(**given)


def honest(n: int = HOP) -> np.ndarray:
    wave = np.sin(np.linspace(0, 6, n))[:, None]
    return (0.9 * wave + [0, 0, 10]).astype(np.float32)


def changed(n: int = HOP, **at: Any) -> np.ndarray:
    """Honest samples with ``where`` (an index) set to ``value``."""
    samples = honest(n)
    samples[at["where"]] = at["value"]
    return samples


ALL = np.s_[:]


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (changed(where=np.s_[3, 1], value=np.nan), "1 % NaN"),
        (changed(where=np.s_[:, 1], value=np.nan), "33 % NaN"),
        (changed(where=ALL, value=np.nan), "100 % NaN"),
        (changed(where=np.s_[:5, 0], value=np.inf), "7 % infinite"),
        (changed(where=np.s_[:5, 0], value=-np.inf), "7 % infinite"),
        (changed(where=np.s_[0, 0], value=9.0), "channel gx at 9× its training range"),
        (changed(where=np.s_[-1, 1], value=-4.0), "channel gy at 4× its training range"),
        (changed(where=np.s_[7, 2], value=22.5), "channel gz at 12.5× its training range"),
        (changed(where=np.s_[7, 2], value=0.0), "channel gz at 10× its training range"),
        (changed(where=np.s_[:, 2], value=10.0), "channel gz flat"),
        (changed(where=np.s_[:, 0], value=0.3), "channel gx flat"),
        (changed(where=np.s_[:, :2], value=0.0), "channel gx, gy flat"),
    ],
)
def test_a_lie_is_named_in_a_technicians_words(samples: np.ndarray, reason: str) -> None:
    assert faults.check(samples, faults.limits(spec(stats()))) == reason


@pytest.mark.parametrize(
    "samples",
    [
        honest(),
        honest(1),
        honest(4 * HOP),
        changed(where=np.s_[5, 0], value=2.9),
        changed(where=np.s_[5, 2], value=7.1),
        changed(HOP - 1, where=ALL, value=[0.0, 0.0, 10.0]),
        changed(where=np.s_[:, 0], value=[0.02] + [0.0] * (HOP - 1)),
    ],
    ids=[
        "clean", "one sample", "a window", "a little above the range", "a little below it",
        "still for less than a hop", "a small step",
    ],
)  # fmt: skip
def test_an_honest_sensor_is_believed(samples: np.ndarray) -> None:
    assert faults.check(samples, faults.limits(spec(stats()))) is None


def test_a_sensor_that_may_stand_still_is_never_flat() -> None:
    limits = faults.limits(spec(stats(spread=(0.0, 0.0, 0.0))))
    assert faults.check(np.full((HOP, 3), [0, 0, 10], np.float32), limits) is None


def test_a_range_of_one_value_still_lets_that_value_pass() -> None:
    limits = faults.limits(spec(stats(low=(0.0, 0.0, 10.0), high=(0.0, 0.0, 10.0))))
    still = np.full((HOP, 3), [0, 0, 10], np.float32)
    assert faults.check(still[:1], limits) is None
    assert "its training range" in str(faults.check(still[:1] + 1, limits))


@pytest.mark.parametrize("value", [0.0, 1e30, -1e30, 5.0])
def test_without_statistics_any_finite_value_is_believed(value: float) -> None:
    assert faults.check(np.full((HOP, 3), value, np.float32), faults.limits(spec(None))) is None


@pytest.mark.parametrize(
    ("value", "reason"), [(np.nan, "1 % NaN"), (np.inf, "1 % infinite"), (-np.inf, "1 % infinite")]
)
def test_without_statistics_only_what_is_no_number_is_a_lie(value: float, reason: str) -> None:
    samples = changed(where=np.s_[0, 0], value=value)
    assert faults.check(samples, faults.limits(spec(None))) == reason


DARK = np.array([0, 1, 1])[:, None, None]
"""What a camera sees whose first colour plane is dead."""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda x: x, None),
        (lambda x: x[:2], None),
        (lambda x: np.where(np.arange(6) == 2, 7.0, x), "channel gx at 7× its training range"),
        (lambda x: np.where(np.arange(6) == 2, np.nan, x), "17 % NaN"),
        (lambda x: x * DARK, "channel gx flat"),
        (lambda x: x[:1] * DARK, None),
    ],
    ids=[
        "clean",
        "less than a hop",
        "a bright column",
        "a dead column",
        "a dark plane",
        "for once",
    ],
)
def test_an_image_is_judged_by_its_colour_planes(change: Any, reason: str | None) -> None:
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (4, 3, 5, 6)) + np.array([0, 0, 10])[:, None, None]
    camera = spec(stats(), window=1, hop=4, size=(5, 6))
    got = faults.check(change(images).astype(np.float32), faults.limits(camera))
    assert got == reason


def test_data_like_the_training_data_are_never_a_lie() -> None:
    rng = np.random.default_rng(1)
    train, live = (rng.normal([0, 5, -3], [1, 0.1, 20], (5000, 3)) for _ in range(2))
    limits = faults.limits(spec(measured([train.astype(np.float32)])))
    for at in range(0, len(live), HOP):
        assert faults.check(live[at : at + HOP].astype(np.float32), limits) is None


RNG = np.random.default_rng(5)


def moving(n: int, rng: np.random.Generator = RNG) -> np.ndarray:
    """Three channels that swing about (0, 5, −3) at changing pace, with a little noise [n, 3]."""
    phase = np.cumsum(rng.uniform(0.05, 0.3, (n, 3)), 0) + rng.uniform(0, 6, 3)
    return (np.array([0, 5, -3]) + np.sin(phase) + rng.normal(0, 0.02, (n, 3))).astype(np.float32)


MOVING = spec(measured([moving(400) for _ in range(20)]))
STEP = np.arange(2 * HOP)[:, None]
STD = np.sqrt(0.5)
LIES: dict[str, Any] = {
    "noise": lambda x: x + RNG.normal(0, STD, x.shape),
    "spikes": lambda x: x + 8 * STD * (STEP % 9 == 4),
    "cut off above": lambda x: np.minimum(x, np.quantile(x, 0.5, axis=0)),
    "repeated": lambda x: x[STEP[:, 0] // 2 * 2],
    "lifeless": lambda x: x.mean(0) + 0.05 * (x - x.mean(0)),
    "lifted": lambda x: x + np.array([0, 3 * STD, 0]),
    "tenfold": lambda x: 2 * x,
}


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        ("noise", r"channel g[xyz]: noise \d[\d.]*× its usual"),
        ("spikes", r"spikes \d+× its usual roughness|channel g[xyz]: noise .*"),
        ("cut off above", r"channel gx cut off at -?[\d.e-]+"),
        ("repeated", r"channel gx repeats \d+ % of its samples"),
        ("lifeless", r"channel g[xyz] 0\.\d+× as lively as ever in training"),
    ],
)
def test_how_a_hop_moves_gives_a_lie_away(lie: str, reason: str) -> None:
    limits = faults.limits(MOVING)
    for _ in range(20):
        samples = LIES[lie](moving(2 * HOP)).astype(np.float32)
        assert re.fullmatch(reason, str(faults.check(samples, limits)))


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        ("lifted", r"channel gy shifted by \+\d[\d.]* times its spread"),
        ("tenfold", r"channel g[xyz] shifted by .*|values .*× the largest of training: .*"),
    ],
)
def test_where_two_hops_lie_gives_a_bias_away(lie: str, reason: str) -> None:
    limits = faults.limits(MOVING)
    for _ in range(20):
        samples = LIES[lie](moving(2 * HOP)).astype(np.float32)
        assert re.fullmatch(reason, str(faults.check_level(samples, limits)))


@pytest.mark.parametrize(
    ("factor", "reason"),
    [
        (1.0, None),
        (10.0, "× the largest of training: wrong scale or unit?"),
        (0.1, "× the smallest of training: wrong scale or unit?"),
    ],
)
def test_a_wrong_unit_shows_in_the_length_of_the_sample(factor: float, reason: str | None) -> None:
    """One g, whichever way it points, so that no channel's level says anything."""

    def turned(n: int) -> np.ndarray:
        way = RNG.normal(size=3)
        swing = np.sin(np.arange(n)[:, None] / 5 + [0, 1, 2])
        return (way / np.linalg.norm(way) + 0.1 * swing).astype(np.float32)

    m = spec(measured([turned(100) for _ in range(100)]))
    size = faults.length(factor * turned(2 * HOP))
    low, high = faults.limits(m).hop.length  # type: ignore[union-attr]
    assert (low <= size <= high) == (reason is None)
    if reason is not None and factor < 1:
        assert reason in str(faults.check_level(factor * turned(2 * HOP), faults.limits(m)))


def test_over_a_long_run_a_bias_shows_that_two_hops_may_hide() -> None:
    def swinging(n: int) -> np.ndarray:
        pace = np.arange(n)[:, None] / [10, 13, 16]
        return np.sin(pace + RNG.uniform(0, 6, 3)).astype(np.float32)

    limits = faults.limits(spec(measured([swinging(1000) for _ in range(10)])))
    hidden = 0
    for _ in range(20):
        samples = swinging(RUN_HOPS * HOP)
        assert faults.check_run(samples, limits) is None
        biased = samples + np.float32(0.45)
        assert "an offset?" in str(faults.check_run(biased, limits))
        hidden += faults.check_level(biased[: 2 * HOP], limits) is None
    assert hidden > 0


def test_moving_like_in_training_is_never_a_lie() -> None:
    limits = faults.limits(MOVING)
    samples = moving(200 * HOP)
    for end in range(RUN_HOPS * HOP, len(samples) + 1, HOP):
        assert faults.check(samples[end - HOP : end], limits) is None
        assert faults.check_level(samples[end - 2 * HOP : end], limits) is None
        assert faults.check_run(samples[end - RUN_HOPS * HOP : end], limits) is None


def test_a_sensor_in_doubt_is_judged_by_the_extremes_of_training() -> None:
    hop = HopStats(
        level=((-1.0, 1.0),) * 3, roughness=((0.01, 1.0),) * 3, repeats=(0.0,) * 3,
        usual=(0.1,) * 3, length=(0.5, 5.0), spikiness=(1.0, 9.0), lean=2.0,
    )  # fmt: skip
    m = spec(stats(hop=hop))
    samples = honest(2 * HOP) * [1, 1, 0]
    samples[:, 0] += 1.3 - samples[:, 0].mean()
    assert faults.check_level(samples, faults.limits(m)) is None
    assert faults.check_level(samples, faults.limits(m, margin=0.0)) == (
        "channel gx shifted by +2.6 times its spread"
    )


def test_every_hop_of_a_long_stretch_is_judged_by_itself() -> None:
    samples = moving(4 * HOP)
    samples[HOP : 2 * HOP] += RNG.normal(0, STD, (HOP, 3))
    assert "noise" in str(faults.check(samples, faults.limits(MOVING)))


@pytest.mark.parametrize(
    ("value", "reason"),
    [(1.4, "channel gx stuck at its upper rail"), (-1.4, "channel gx stuck at its lower rail")],
)
def test_a_channel_that_stands_at_the_end_of_its_range_is_stuck_at_a_rail(
    value: float, reason: str
) -> None:
    samples = changed(where=np.s_[:, 0], value=value)
    assert faults.check(samples, faults.limits(spec(stats()))) == reason


def test_a_bundle_without_hop_statistics_is_checked_as_before() -> None:
    limits = faults.limits(spec(stats()))
    noisy = honest(2 * HOP) + RNG.normal(0, 0.3, (2 * HOP, 3)).astype(np.float32)
    assert faults.check(noisy, limits) is None
    assert faults.check_level(noisy + np.float32(0.5), limits) is None
    assert faults.check_run(noisy + np.float32(0.5), limits) is None


def test_a_channel_that_never_moved_in_training_raises_no_alarm_when_it_does_not() -> None:
    still = np.tile(np.array([[1.0, 0.0, 5.0]], np.float32), (400, 1))
    limits = faults.limits(spec(measured([still])))
    assert faults.check(still[:HOP], limits) is None
    assert faults.check_level(still[: 2 * HOP], limits) is None
    assert faults.check_run(still[: RUN_HOPS * HOP], limits) is None
