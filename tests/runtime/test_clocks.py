"""Senders' clocks that are wrong in every way, and sensors that keep different time.

Frames and time as in test_rigs; the clock is turned by hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from robult_edge.frames import Frame
from robult_edge.modality import ModalitySpec
from runtime.rigs import Rigs
from tests.runtime.test_rigs import (
    BOTH,
    DELAY,
    FRAME,
    HOP,
    HOP_NS,
    MS,
    PATIENCE,
    PERIOD,
    T0,
    Arrival,
    by_hop,
    delayed,
    hops,
    play,
    sensor,
)

ACC, GYRO = BOTH.modalities
SECOND = 1000 * MS


def stamped(
    spec: ModalitySpec, seconds: float, clock: Callable[[int], int], frame: int = FRAME
) -> list[Arrival]:
    """A sensor's frames of ``frame`` samples, on time, as its own clock stamps them."""
    period_ns, sent = spec.period_ns, []
    for seq in range(round(seconds * spec.rate_hz) // frame):
        j = seq * frame + np.arange(frame)
        first_ns = T0 + seq * frame * period_ns + period_ns // 2
        arrives = first_ns + (frame - 1) * period_ns + DELAY
        samples = j.astype(np.float32).reshape(-1, 1)
        sent.append(Arrival(arrives, Frame(spec.name, "rig", seq, clock(first_ns), samples)))
    return sent


@pytest.mark.parametrize("ppm", [-200, -20, 20, 200])
def test_a_drifting_clock_costs_no_tick_and_moves_no_window_by_more_than_a_sample(ppm: int) -> None:
    def drifts(t_ns: int) -> int:
        return t_ns + (t_ns - T0) * ppm // 1_000_000

    answered = by_hop(
        play(Rigs(BOTH, 1), sensor("acc", 300), stamped(GYRO, 300, drifts), until=299)
    )
    assert list(answered) == list(range(1, 599))
    for hop in range(3, 598):
        assert answered[hop].used == "acc+gyro"
        assert abs(answered[hop].last_sample["gyro"] - (HOP * hop - 1)) <= 1


def paced(percent: float, seconds: float) -> list[Arrival]:
    """The gyroscope's frames, if its crystal is so much too fast: samples and stamps alike are.

    So the stamps look right by themselves; only the time of receipt tells.
    """
    pace = 1 + percent / 100
    truly = msgspec.structs.replace(GYRO, rate_hz=GYRO.rate_hz * pace)
    return stamped(truly, seconds, lambda t: T0 + round((t - T0) * pace))


@pytest.mark.parametrize("percent", [-10, -3, 3, 7])
def test_a_clock_of_another_pace_is_found_by_the_time_of_receipt(percent: int) -> None:
    answered = play(Rigs(BOTH, 1), sensor("acc", 60), paced(percent, 60), until=60)
    assert [a.seq for a in answered] == list(range(len(answered)))
    later = answered[32:]  # within 16 s, and for good
    assert {a.used for a in later} == {"acc"}
    assert {a.states["gyro"] for a in later} == {"faulty"}
    pace = "fast" if percent > 0 else "slow"
    for a in later:
        found = re.match(rf"its clock runs (\d+\.\d)% {pace}", a.reasons["gyro"])
        assert found
        assert abs(float(found[1]) - abs(percent)) <= 0.2


@pytest.mark.parametrize("percent", [-1.5, -1, -0.5, -0.3, 0.3, 0.5, 1, 1.5])
def test_a_pace_that_is_a_little_off_is_made_good(percent: float) -> None:
    """A slow clock's windows would come later and later, until no deadline waits for them."""
    answered = play(Rigs(BOTH, 1), sensor("acc", 60), paced(percent, 60), until=60)
    for a in answered[32:-1]:
        assert a.used == "acc+gyro"
        truly = (a.end_ns - T0) / PERIOD * (1 + percent / 100)
        assert abs(a.last_sample["gyro"] - truly) <= 3


def test_a_clock_that_goes_right_again_is_believed_again() -> None:
    def slow_for_a_while(t_ns: int) -> int:
        return t_ns - min(t_ns - T0, 30 * SECOND) // 20

    answered = play(Rigs(BOTH, 1), sensor("acc", 80), stamped(GYRO, 80, slow_for_a_while), until=80)
    assert any("its clock runs 5.0% slow" in a.reasons["gyro"] for a in answered)
    assert answered[-1].used == "acc+gyro"


def test_a_clock_a_little_off_and_delays_that_come_and_go_are_no_lie() -> None:
    rng = np.random.default_rng(3)
    gyro = stamped(GYRO, 120, lambda t: t + (t - T0) // 100)  # 1 % fast
    queued = [Arrival(a.at_ns + int(rng.exponential(30)) * MS, a.frame) for a in gyro]
    congested = [
        Arrival(a.at_ns + (300 * MS if 300 <= a.frame.seq < 450 else 0), a.frame) for a in queued
    ]
    rigs = Rigs(BOTH, 1)
    answered = play(rigs, sensor("acc", 120), congested, until=120)
    assert not any("clock runs" in a.reasons["gyro"] for a in answered)


@pytest.mark.parametrize("back_ms", [110, 200, 500, 1000, 3000, 3900])
def test_a_clock_that_steps_back_a_little_costs_one_window_and_is_counted(back_ms: int) -> None:
    rigs, at = Rigs(BOTH, 1), T0 + 5 * SECOND
    steps = stamped(GYRO, 10, lambda t: t - (back_ms * MS if t >= at else 0))
    answered = by_hop(play(rigs, sensor("acc", 10), steps, until=10))
    counts = rigs.rigs["rig"].streams[1].counts
    assert counts["clock step"] == 1
    assert counts["duplicate"] == counts["late"] == 0
    assert answered[11].reasons["gyro"] == "clock step; 50 % of a clean window"
    used = [answered[hop].used for hop in (10, 11, 12, 13)]
    assert used == ["acc+gyro", "acc", "acc+gyro", "acc+gyro"]
    assert all(answered[hop].last_sample["gyro"] == HOP * hop - 1 for hop in range(12, 20))


@pytest.mark.parametrize("ahead_ms", [200, 1000, 3000])
def test_a_clock_that_steps_ahead_a_little_costs_one_window(ahead_ms: int) -> None:
    at = T0 + 5 * SECOND
    steps = stamped(GYRO, 10, lambda t: t + (ahead_ms * MS if t >= at else 0))
    answered = by_hop(play(Rigs(BOTH, 1), sensor("acc", 10), steps, until=10))
    assert answered[11].used == "acc"
    assert answered[11].reasons["gyro"] == "clock step; 50 % of a clean window"
    for hop in range(12, 20):
        assert answered[hop].used == "acc+gyro"
        assert answered[hop].last_sample["gyro"] == HOP * hop - 1


def test_a_clock_that_steps_again_and_again_costs_a_window_each_and_no_result() -> None:
    def steps(t_ns: int) -> int:
        return t_ns - (t_ns - T0) // (4 * SECOND) * 700 * MS

    rigs = Rigs(BOTH, 1)
    answered = play(rigs, sensor("acc", 40), stamped(GYRO, 40, steps), until=40)
    assert [a.seq for a in answered] == list(range(80))
    assert rigs.rigs["rig"].streams[1].counts["clock step"] == 9
    assert [a.used for a in answered].count("acc") == 9
    assert all("acc" in a.used for a in answered[1:])


def test_disorder_on_the_way_is_not_taken_for_a_clock_step() -> None:
    rigs = Rigs(BOTH, 1)
    late = [
        Arrival(a.at_ns + (130 * MS if a.frame.seq % 7 == 3 else 0), a.frame)
        for a in sensor("gyro", 10)
    ]
    play(rigs, sensor("acc", 10), late, until=10)
    counts = rigs.rigs["rig"].streams[1].counts
    assert counts["late"] == 14
    assert counts["clock step"] == 0


def test_sensors_of_different_rates_and_windows_share_one_tick() -> None:
    slow = ModalitySpec(
        name="gyro", channels=("x",), unit="g", rate_hz=10.0, window=30, hop=5, timeout_s=1.2,
        stats=GYRO.stats,
    )  # fmt: skip
    mixed = msgspec.structs.replace(BOTH, modalities=(ACC, slow))
    gyro = stamped(slow, 10, lambda t: t + 77 * SECOND, frame=1)
    answered = by_hop(play(Rigs(mixed, 1), sensor("acc", 10), gyro, until=10))
    assert list(answered) == list(range(1, 21))
    for hop in range(3, 6):  # the gyroscope's window takes three seconds to fill
        assert answered[hop].used == "acc"
        assert answered[hop].at_ns < answered[hop].end_ns, "and nobody waits for it"
    for hop in range(6, 21):
        assert answered[hop].last_sample == {"acc": HOP * hop - 1, "gyro": 5 * hop - 1}
        assert answered[hop].at_ns == answered[hop].end_ns - PERIOD // 2 + DELAY


def test_late_data_are_counted_and_never_waited_for() -> None:
    rigs = Rigs(BOTH, 1)
    gyro = sensor("gyro", 5) + delayed(sensor("gyro", 5, start=5), 400 * MS)
    answered = play(rigs, sensor("acc", 10), gyro, until=10)
    assert hops(answered) == list(range(1, 20))
    for a in answered[10:]:
        assert a.used == "acc"
        assert a.at_ns == a.end_ns + FRAME * PERIOD + PATIENCE
    assert rigs.rigs["rig"].streams[1].counts["late window"] == 9
    assert answered[-1].end_ns == T0 + 19 * HOP_NS
