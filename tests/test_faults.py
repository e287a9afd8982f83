"""robult_edge.faults: a sensor that lies is told in words, one that does not is left alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from robult_edge import faults
from robult_edge.data.stats import channel_stats
from robult_edge.modality import ChannelStats, ModalitySpec

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
    limits = faults.limits(spec(channel_stats([train.astype(np.float32)], HOP)))
    for at in range(0, len(live), HOP):
        assert faults.check(live[at : at + HOP].astype(np.float32), limits) is None
