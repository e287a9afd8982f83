"""robult_edge.data.inject: faults are read as written, and do what they say and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from robult_edge.data.inject import KINDS, Fault, Injector, parse
from robult_edge.errors import SpecError
from robult_edge.frames import Frame
from robult_edge.modality import ChannelStats, ModalitySpec

NAMES = ("acc", "gyro", "wrist.imu-2")


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("", ()),
        ("gyro:dead@10-20", (Fault("gyro", "dead", 10.0, 20.0),)),
        ("gyro:dead@10-", (Fault("gyro", "dead", 10.0, None),)),
        ("gyro:dead@0-0.5", (Fault("gyro", "dead", 0.0, 0.5),)),
        ("gyro:noise@1.5-2.25", (Fault("gyro", "noise", 1.5, 2.25, 1.0),)),
        ("gyro:noise(3.5)@1-2", (Fault("gyro", "noise", 1.0, 2.0, 3.5),)),
        ("acc:clockstep(-2)@1-", (Fault("acc", "clockstep", 1.0, None, -2.0),)),
        ("wrist.imu-2:stuck@1-2", (Fault("wrist.imu-2", "stuck", 1.0, 2.0),)),
        (
            "gyro:dead@1-2, acc:scale(10)@3-",
            (Fault("gyro", "dead", 1.0, 2.0), Fault("acc", "scale", 3.0, None, 10.0)),
        ),
    ],
)
def test_faults_are_read_as_written(text: str, faults: tuple[Fault, ...]) -> None:
    assert parse(text, NAMES) == faults


@pytest.mark.parametrize(
    ("text", "blamed"),
    [
        ("gyro", "gyro"),
        ("gyro:dead", "gyro:dead"),
        ("gyro:dead@10", "gyro:dead@10"),
        ("gyro:dead@-10", "gyro:dead@-10"),
        ("gyro:tired@10-20", "gyro:tired@10-20"),
        ("gyro:stuck(3)@10-20", "gyro:stuck(3)@10-20"),
        ("gyro:noise()@10-20", "gyro:noise()@10-20"),
        ("gyro:noise(much)@10-20", "gyro:noise(much)@10-20"),
        ("nose:dead@10-20", "nose:dead@10-20"),
        ("gyro:dead@ten-20", "gyro:dead@ten-20"),
        ("gyro:dead@1e3-", "gyro:dead@1e3-"),
        ("gyro:dead@20-10", "gyro:dead@20-10"),
        ("gyro:dead@10-10", "gyro:dead@10-10"),
        ("gyro:dead@1-2;acc:dead@3-4", "gyro:dead@1-2;acc:dead@3-4"),
        ("acc:dead@1-2,gyro:dead", "gyro:dead"),
    ],
)
def test_a_fault_that_cannot_be_read_is_refused_with_all_kinds(text: str, blamed: str) -> None:
    with pytest.raises(SpecError) as refused:
        parse(text, NAMES)
    said = str(refused.value)
    assert said.startswith(f"--fault {blamed!r} is not SENSOR:KIND(SIZE)@FROM-TO")
    assert all(kind in said for kind in (*KINDS, *NAMES))


STATS = ChannelStats(
    mean=(0.0, 1.0), std=(1.0, 2.0), low=(-3.0, -5.0), high=(3.0, 7.0), spread=(0.1, 0.1)
)
SPEC = ModalitySpec(
    name="acc", channels=("x", "y"), unit="g", rate_hz=50.0, window=32, hop=16, timeout_s=1.0,
    stats=STATS,
)  # fmt: skip
N, PERIOD_NS = 8, 20_000_000
HONEST = np.random.default_rng(0).normal([0, 1], [0.5, 1], (400, 2)).astype(np.float32)


def played(text: str, frames: int = 50) -> list[list[Frame]]:
    """What is sent at each frame's turn; the fault begins with the tenth."""
    injector = Injector(parse(f"acc:{text}@1.6-", ["acc"]), SPEC)
    return [
        injector.sent("rig", HONEST[k * N : (k + 1) * N], k * N * PERIOD_NS, k * N / 50)
        for k in range(frames)
    ]


def samples(turns: list[list[Frame]]) -> np.ndarray:
    return np.concatenate([frame.samples for turn in turns for frame in turn])


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("stuck", lambda x, y: (y == x[0]).all()),
        ("nan(0.5)", lambda x, y: 0.4 < np.isnan(y).mean() < 0.6),
        ("noise(2)", lambda x, y: np.allclose((y - x).std(0), [2, 4], rtol=0.15)),
        ("bias(-2)", lambda x, y: np.allclose(y - x, [-2, -4], atol=1e-5)),
        ("scale(9.81)", lambda x, y: np.allclose(y, 9.81 * x, rtol=1e-5)),
        ("spikes(5)", lambda x, y: 0.02 < ((y - x) ** 2 > 20).mean() < 0.1),
        ("saturate(50)", lambda x, y: np.isin(y, [-3, 3, -5, 7]).mean() > 0.8),
        ("frozen", lambda x, y: (y.reshape(-1, N, 2) == x[:N]).all()),
    ],
)
def test_a_fault_of_the_samples_leaves_their_times_alone(
    text: str, holds: Callable[[np.ndarray, np.ndarray], bool]
) -> None:
    turns = played(text)
    assert (samples(turns[:10]) == HONEST[: 10 * N]).all(), "honest until it begins"
    assert holds(HONEST[10 * N :], samples(turns[10:]))
    assert [f.t_ns for turn in turns for f in turn] == [k * N * PERIOD_NS for k in range(50)]


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("clockstep(-3)", [[(k, k * N * 20 - 3000)] for k in range(10, 14)]),
        ("skew(1.25)", [[(10, 1600)], [(11, 1800)], [(12, 2000)], [(13, 2200)]]),
        ("duplicate", [[(k, k * 160)] * 2 for k in range(10, 14)]),
        ("reorder", [[], [(11, 1760), (10, 1600)], [], [(13, 2080), (12, 1920)]]),
        ("gap(1)", [[], [], [], []]),
        ("dead", [[], [], [], []]),
    ],
)
def test_a_fault_of_the_frames_leaves_their_samples_alone(
    text: str, sent: list[list[tuple[int, int]]]
) -> None:
    turns = played(text)[10:14]
    assert [[(f.seq, f.t_ns // 1_000_000) for f in turn] for turn in turns] == sent
    for frame in (f for turn in turns for f in turn):
        assert (frame.samples == HONEST[frame.seq * N : (frame.seq + 1) * N]).all()


@pytest.mark.parametrize("rate", [0.5, 0.86, 1.2, 2.0])
def test_a_drifting_sensor_takes_that_many_samples_of_the_same_time(rate: float) -> None:
    turns = played(f"drift({rate})")
    assert len(samples(turns[10:])) == pytest.approx(rate * 40 * N, abs=1)
    assert all(turn[0].t_ns == k * N * PERIOD_NS for k, turn in enumerate(turns) if turn)


def test_a_fault_ends_and_leaves_other_sensors_alone() -> None:
    injector = Injector(parse("acc:stuck@0.1-0.2,gyro:dead@0-", ["acc", "gyro"]), SPEC)
    x = HONEST[:N]
    sent = [injector.sent("rig", x, 0, at_s)[0].samples for at_s in (0.0, 0.1, 0.19, 0.2)]
    assert [bool((s == x).all()) for s in sent] == [True, False, False, True]
