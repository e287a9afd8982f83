"""robult_edge.modality: a description that makes no sense is refused by field, in one sentence."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from robult_edge.errors import SpecError
from robult_edge.modality import ChannelStats, HopStats, ModalitySpec, common_hop_ns

GOOD: dict[str, Any] = {
    "name": "acc",
    "channels": ("ax", "ay", "az"),
    "unit": "g",
    "rate_hz": 50.0,
    "window": 100,
    "hop": 25,
    "timeout_s": 1.0,
}


HOP_STATS = HopStats(
    level=((0.0, 1.0),), roughness=((0.0, 1.0),), repeats=(0.0,), usual=(1.0,), length=(0.0, 1.0),
    spikiness=(0.0, 1.0), lean=1.0,
)  # fmt: skip


def spec(**changes: Any) -> ModalitySpec:
    return ModalitySpec(**{**GOOD, **changes})


def stats(channels: int, **changes: Any) -> ChannelStats:
    same = {field: (0.0,) * channels for field in ("mean", "std", "low", "high", "spread")}
    return ChannelStats(**{**same, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "name is ''; it must be letters, digits"),
        ({"name": "acc gyro"}, "name is 'acc gyro'; it must be letters, digits"),
        ({"name": "acc\0"}, "name is 'acc\\x00'; it must be letters, digits"),
        ({"name": "a/b"}, "name is 'a/b'"),
        ({"channels": ()}, "channels is (); it must be a list of different names"),
        ({"channels": ("x", "x")}, "channels is ('x', 'x'); it must be a list of different"),
        ({"rate_hz": 0.0}, "rate_hz is 0.0; it must be above 0"),
        ({"rate_hz": -50.0}, "rate_hz is -50.0; it must be above 0"),
        ({"rate_hz": float("nan")}, "rate_hz is nan; it must be above 0"),
        ({"timeout_s": 0.0}, "timeout_s is 0.0; it must be above 0"),
        ({"window": 0}, "window is 0; it must be above 0"),
        ({"hop": -1}, "hop is -1; it must be above 0"),
        ({"size": (8, 8)}, "window is 100; it must be 1 for an image"),
        ({"stats": stats(2)}, "stats.mean is (0.0, 0.0); it must be one number per channel"),
        ({"stats": stats(3, spread=(0.0,))}, "stats.spread is (0.0,); it must be one number"),
        ({"stats": stats(3, hop=HOP_STATS)}, "stats.hop.level is ((0.0, 1.0),); it must be one"),
    ],
)
def test_a_field_that_makes_no_sense_is_refused_by_name(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError) as refused:
        spec(**changes)
    name = changes.get("name", "acc")
    assert str(refused.value).startswith(f"modality {name!r}: {message}")


@pytest.mark.parametrize("name", ["acc", "acc_2", "wrist-left", "imu.gyro", "Gyro9"])
def test_letters_digits_and_a_little_punctuation_make_a_name(name: str) -> None:
    assert spec(name=name).name == name


@pytest.mark.parametrize(
    ("changes", "sample", "window", "capacity"),
    [
        ({}, (3,), (3, 100), 300),
        ({"window": 1, "hop": 1}, (3,), (3, 1), 6),
        ({"window": 1, "hop": 1, "size": (4, 6)}, (3, 4, 6), (3, 4, 6), 6),
    ],
)
def test_shapes_follow_from_channels_window_and_size(
    changes: dict[str, Any],
    sample: tuple[int, ...],
    window: tuple[int, ...],
    capacity: int,
) -> None:
    it = spec(**changes)
    assert (it.sample_shape, it.window_shape, it.capacity) == (sample, window, capacity)


def test_periods_are_whole_nanoseconds_and_hops_are_seconds() -> None:
    it = spec(rate_hz=3.0, hop=6)
    assert it.period_ns == 333_333_333
    assert it.hop_s == 2.0


def test_sensors_of_different_rates_may_share_a_hop() -> None:
    assert common_hop_ns((spec(), spec(name="mic", rate_hz=1000.0, hop=500))) == 500_000_000


def test_hops_that_differ_by_less_than_a_tenth_of_a_sample_are_the_same() -> None:
    apart = spec(name="b", rate_hz=50.05)
    assert common_hop_ns((spec(), apart)) == 500_000_000


def test_hops_that_differ_are_refused_with_the_hop_of_each() -> None:
    with pytest.raises(SpecError, match=r"hop apart \(acc 0\.5 s, gyro 1 s\)"):
        common_hop_ns((spec(), spec(name="gyro", hop=50)))


def test_a_modality_survives_json() -> None:
    it = spec(stats=stats(3), window=1, hop=1, size=(2, 2))
    assert msgspec.json.decode(msgspec.json.encode(it), type=ModalitySpec) == it


def test_an_unknown_field_is_refused() -> None:
    raw = msgspec.json.encode({**GOOD, "colour": "red"})
    with pytest.raises(msgspec.ValidationError, match="unknown field `colour`"):
        msgspec.json.decode(raw, type=ModalitySpec)
