"""Many rigs: they appear and vanish, and names that somebody made up cost the served ones nothing.

Frames and time as in test_rigs; the clock is turned by hand.
"""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from robult_edge.errors import FrameError
from robult_edge.frames import Frame
from runtime.rigs import BURST_NS, Rigs, memory_bytes
from tests.runtime.test_rigs import (
    BOTH,
    HOP_NS,
    MS,
    T0,
    TIMEOUT_S,
    WINDOW,
    Arrival,
    play,
    sensor,
)

SECOND = 1000 * MS
IDLE_S = 20
TRIAL_S = WINDOW / 50 + 0.5 + TIMEOUT_S
"""A window, a hop and the timeout."""


def rigs(most: int) -> Rigs:
    return Rigs(BOTH, most, IDLE_S * SECOND)


def invented(count: int, seconds: float, start: float = 0.0) -> list[Arrival]:
    """One frame each of ever new names, all the time."""
    frames = sensor("acc", seconds, start=start)
    return [
        Arrival(a.at_ns, msgspec.structs.replace(a.frame, source=f"fake-{k}-{i}"))
        for k, a in enumerate(frames)
        for i in range(count)
    ]


def flooded(house: Rigs, *sensors: list[Arrival], until: float, source: str = "rig"):
    """`play` for a house that refuses some: what is refused is left out, as the server does."""
    place, refused = house.place, []

    def place_or_count(frame, now_ns):
        try:
            return place(frame, now_ns)
        except FrameError as error:
            refused.append(error.reason)

    house.place = place_or_count  # type: ignore[method-assign, assignment]
    return play(house, *sensors, until=until, source=source), refused


def test_a_flood_of_invented_names_costs_a_served_source_nothing() -> None:
    alone = play(rigs(8), sensor("acc", 60), sensor("gyro", 60), until=60)
    answered, refused = flooded(
        rigs(8), sensor("acc", 60), sensor("gyro", 60), invented(20, 60, start=1), until=60
    )
    assert answered == alone
    assert set(refused) == {"sources"}


def test_the_number_of_sources_never_passes_the_cap() -> None:
    house = rigs(8)
    flooded(house, sensor("acc", 60), sensor("gyro", 60), invented(20, 60), until=60)
    assert len(house.rigs) == 8
    assert house.forgotten > 8, "places did change hands"


def test_an_honest_newcomer_gets_in_once_invented_names_are_idle() -> None:
    house, comes = rigs(8), 10.0
    flood = invented(20, comes)
    new = sensor("acc", 20, "new", start=comes), sensor("gyro", 20, "new", start=comes)
    answered, _ = flooded(house, sensor("acc", 30), flood, *new, until=30, source="new")
    first = answered[0].end_ns - T0
    assert first <= comes * SECOND + TRIAL_S * SECOND + 3 * HOP_NS
    assert answered[-1].used == "acc+gyro"


def test_a_served_source_keeps_its_place_through_a_silence_under_flood() -> None:
    acc = sensor("acc", 5) + sensor("acc", 5, start=5 + IDLE_S - 1)
    answered, _ = flooded(rigs(8), acc, invented(20, 30, start=1), until=5 + IDLE_S + 2)
    assert [a.seq for a in answered] == list(range(len(answered)))
    assert answered[-1].used == "acc"


def test_an_idle_source_is_forgotten_after_results_that_say_so_and_starts_anew() -> None:
    house = rigs(8)
    acc = sensor("acc", 5) + sensor("acc", 5, start=60)
    keeps_time = sensor("acc", 65, "other")
    answered = play(house, acc, keeps_time, until=65)
    gap = next(i for i, a in enumerate(answered) if a.seq == 0 and i)
    last, first = answered[gap - 1], answered[gap]
    assert IDLE_S - 1 <= (last.at_ns - T0) / SECOND - 5 <= IDLE_S + 1
    assert last.states == {"acc": "stale", "gyro": "absent"}
    assert last.used == ""
    assert (first.at_ns - T0) / SECOND >= 60
    assert first.states == {"acc": "absent", "gyro": "absent"}
    assert answered[-1].used == "acc"
    assert house.forgotten == 1


def test_a_short_idle_time_still_ends_with_a_result_without_an_answer() -> None:
    house = Rigs(BOTH, 8, 1)
    answered = play(house, sensor("acc", 5), sensor("acc", 20, "other"), until=20)
    assert answered[-1].used == ""
    assert answered[-1].states["acc"] == "stale"
    assert list(house.rigs) == ["other"]


def test_sources_have_their_own_states() -> None:
    house = rigs(8)
    play(
        house,
        sensor("acc", 10, "one"),
        sensor("gyro", 10, "one"),
        sensor("acc", 10, "two"),
        sensor("gyro", 4, "two"),
        sensor("gyro", 10, "three"),
        until=10,
    )
    states = {
        name: [stream.liveness.state for stream in rig.streams] for name, rig in house.rigs.items()
    }
    assert states == {
        "one": ["alive", "alive"],
        "two": ["alive", "stale"],
        "three": ["absent", "alive"],
    }


def test_a_sensor_that_sends_too_many_frames_is_held_and_the_others_are_not() -> None:
    house, frame = rigs(2), sensor("acc", 0.1)[0].frame
    for _ in range(4 * 50 * BURST_NS // SECOND):  # ten seconds' worth
        house.place(frame, T0)
    with pytest.raises(FrameError, match="more than 4 frames per sample") as refused:
        house.place(frame, T0)
    assert refused.value.reason == "rate"
    house.place(sensor("gyro", 0.1)[0].frame, T0)
    house.place(sensor("acc", 0.1, "other")[0].frame, T0)
    house.place(frame, T0 + SECOND // 200)


def test_a_sensor_that_takes_a_sample_a_minute_may_send_it() -> None:
    acc = msgspec.structs.replace(BOTH.modalities[0], rate_hz=1 / 60, hop=1, window=2)
    gyro = msgspec.structs.replace(acc, name="gyro")
    house = Rigs(msgspec.structs.replace(BOTH, modalities=(acc, gyro)), 1)
    for minute in range(10):
        at = T0 + minute * 60 * SECOND
        samples = np.full((1, 1), minute, np.float32)
        for _ in range(3):
            house.place(Frame("acc", "rig", minute, at, samples), at)
    assert house.rigs["rig"].streams[0].counts["fresh"] == 10


def test_honest_sensors_may_send_a_sample_per_frame_and_every_frame_twice() -> None:
    house = rigs(1)
    for k in range(50 * 60):
        for name in BOTH.names:
            at = T0 + k * SECOND // 50
            frame = msgspec.structs.replace(
                sensor(name, 0.1)[0].frame, seq=k, t_ns=at, samples=np.full((1, 1), k, np.float32)
            )
            for _ in range(2):
                house.place(frame, at)
    assert house.rigs["rig"].streams[0].counts["fresh"] == 50 * 60


def test_memory_of_a_source_is_what_its_rings_take() -> None:
    house = rigs(1)
    house.place(sensor("acc", 0.1)[0].frame, T0)
    rings = [stream.ring for stream in house.rigs["rig"].streams]
    held = sum(r._samples.nbytes + r._filled.nbytes for r in rings)
    assert memory_bytes(BOTH) == held
