"""runtime.transport: payloads that repeat and rates that are wrong, over many frames."""

from __future__ import annotations

import numpy as np
import pytest

from robult_edge import faults
from robult_edge.frames import Frame
from robult_edge.modality import ChannelStats, ModalitySpec
from runtime.transport import Transport


def spec(spread: float = 0.5, hop: int = 32) -> ModalitySpec:
    stats = ChannelStats(mean=(0.0,), std=(1.0,), low=(-9.0,), high=(9.0,), spread=(spread,))
    return ModalitySpec(
        name="acc", channels=("x",), unit="g", rate_hz=50.0, window=64, hop=hop, timeout_s=1.0,
        stats=stats,
    )  # fmt: skip


def heard(
    m: ModalitySpec, *, rate_hz: float = 50.0, n: int = 4, frames: int = 40, frozen: bool = False,
    jitter_ms: float = 0.0, pause_at: int | None = None,
) -> list[str | None]:  # fmt: skip
    """What is wrong after each frame."""
    transport, rng, lies, t_s = Transport(faults.limits(m)), np.random.default_rng(0), [], 0.0
    for seq in range(frames):
        payload = np.arange(n)[:, None] if frozen else rng.normal(size=(n, 1))
        t_s += 5.0 if seq == pause_at else 0.0
        t_ns = round((t_s + rng.uniform(-1, 1) * jitter_ms / 1e3) * 1e9)
        frame = Frame("acc", "rig", seq, t_ns, payload.astype(np.float32))
        transport.observe(frame, follows=seq > 0 and seq != pause_at)
        lies.append(transport.lie)
        t_s += n / rate_hz
    return lies


@pytest.mark.parametrize(
    "case",
    [
        {},
        {"n": 1},
        {"n": 64},
        {"jitter_ms": 15.0},
        {"rate_hz": 52.0},
        {"rate_hz": 48.0},
        {"pause_at": 20},
    ],
    ids=str,
)
def test_an_honest_sensor_is_left_alone(case: dict[str, float]) -> None:
    assert set(heard(spec(), **case)) == {None}  # type: ignore[arg-type]


@pytest.mark.parametrize("n", [1, 4, 32, 64])
@pytest.mark.parametrize(
    ("rate_hz", "reason"),
    [
        (43.0, "samples arrive at 43 Hz instead of 50"),
        (100.0, "samples arrive at 100 Hz instead of 50"),
    ],
)
def test_a_wrong_rate_is_named_within_a_hop(n: int, rate_hz: float, reason: str) -> None:
    lies = heard(spec(), rate_hz=rate_hz, n=n, frames=200)
    assert lies.index(reason) * n <= max(32, n), "the frame after a hop's worth"
    assert set(lies[lies.index(reason) :]) == {reason}


@pytest.mark.parametrize("n", [4, 8, 32])
def test_a_payload_that_repeats_for_a_hop_is_frozen(n: int) -> None:
    lies = heard(spec(), n=n, frozen=True)
    frames = 32 // n + 1
    assert lies[frames - 2 : frames] == [None, f"payload frozen: {frames} frames the same"]


def test_a_sensor_that_may_stand_still_is_not_frozen() -> None:
    assert set(heard(spec(spread=0.0), frozen=True)) == {None}
    assert set(heard(spec(hop=1), n=1, frozen=True)) == {None}


def camera(longest_run: int | None, hop: int = 1) -> ModalitySpec:
    stats = ChannelStats(
        mean=(0.5,), std=(0.3,), low=(0.0,), high=(1.0,), spread=(0.1,), longest_run=longest_run
    )
    return ModalitySpec(
        name="camera", channels=("grey",), unit="1", rate_hz=10.0, window=1, hop=hop, timeout_s=1.0,
        size=(4, 6), stats=stats,
    )  # fmt: skip


def filmed(m: ModalitySpec, images: np.ndarray) -> list[str | None]:
    """What is wrong after each of the images."""
    transport, lies = Transport(faults.limits(m)), []
    for seq, image in enumerate(images.astype(np.float32)):
        transport.observe(Frame("camera", "rig", seq, seq * 100_000_000, image[None]), seq > 0)
        lies.append(transport.lie)
    return lies


@pytest.mark.parametrize("hop", [1, 4])
@pytest.mark.parametrize("longest_run", [1, 2, 5])
def test_an_image_is_frozen_after_twice_the_longest_run_of_training(
    longest_run: int, hop: int
) -> None:
    moving = np.random.default_rng(0).uniform(size=(20, 1, 4, 6))
    frozen = np.concatenate([moving, np.repeat(moving[-1:], 20, 0)])
    lies = filmed(camera(longest_run, hop), frozen)
    last_good = 19 + 2 * longest_run - 1
    assert set(lies[: last_good + 1]) == {None}
    assert lies[last_good + 1] == f"payload frozen: {2 * longest_run + 1} frames the same"
    assert None not in lies[last_good + 1 :]


def test_images_that_repeat_as_in_training_are_not_frozen() -> None:
    images = np.repeat(np.random.default_rng(0).uniform(size=(20, 1, 4, 6)), 5, 0)
    assert set(filmed(camera(5), images)) == {None}


def test_of_older_bundles_no_image_is_frozen() -> None:
    assert set(filmed(camera(None), np.full((30, 1, 4, 6), 0.5))) == {None}


def test_a_black_image_over_and_over_is_frozen_too() -> None:
    assert filmed(camera(1), np.zeros((5, 1, 4, 6)))[-1] == "payload frozen: 5 frames the same"


def test_a_channel_that_stands_still_is_left_to_the_check_of_its_hop() -> None:
    assert set(heard(spec(), n=1, frozen=True)) == {None}


def test_it_is_believed_again_once_its_payload_changes() -> None:
    transport, ramp = Transport(faults.limits(spec())), np.arange(4.0)[:, None]
    for seq in range(20):
        transport.observe(Frame("acc", "rig", seq, seq * 80_000_000, ramp), seq > 0)
    assert transport.lie is not None
    transport.observe(Frame("acc", "rig", 20, 20 * 80_000_000, -ramp), True)
    assert transport.lie is None
