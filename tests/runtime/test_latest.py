"""runtime.latest: every new window gives a result, and nothing old is given twice.

Frames and time as in test_rigs; the clock is turned by hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import pytest

from robult_edge import subsets
from runtime.latest import LatestRig
from runtime.policy import Policy
from runtime.rigs import Rigs
from tests.runtime.test_rigs import (
    BOTH,
    DELAY,
    FRAME,
    HOP_NS,
    MS,
    PERIOD,
    T0,
    Arrival,
    delayed,
    sensor,
    with_samples,
)

LAG = 150 * MS
"""How much later the gyroscope's frames come than the accelerometer's.

To the runtime that is a clock 150 ms slow: its windows end 8 samples earlier, in a later frame.
"""


@dataclass(frozen=True)
class Given:
    """A result: when, where its newest window ends, what it rests on, and the branches' values."""

    at_ns: int
    end_ns: int
    seq: int
    alive: tuple[str, ...]
    said: tuple[float, ...]


def play(*sensors: list[Arrival], until: float, max_age_ns: int = 2 * HOP_NS) -> list[Given]:
    """What comes out; each branch says its window's last sample."""
    rigs = Rigs(BOTH, 1, rig=partial(LatestRig, policy=Policy(max_age_ms=max_age_ns / MS)))
    arrivals = sorted((a for s in sensors for a in s), key=lambda a: a.at_ns)
    given: list[Given] = []
    end_ns = T0 + round(until * 1000) * MS
    while True:
        due_ns = rigs.next_due_ns()
        now = min(arrivals[0].at_ns if arrivals else end_ns, due_ns or end_ns)
        if now >= end_ns:
            return given
        if arrivals and arrivals[0].at_ns <= now:
            rigs.place(arrivals.pop(0).frame, now)
        for rig in rigs.waiting(now):
            while True:
                behind, found = rig.may_be_behind(now), rig.windows(now, 0)
                assert behind or not found, "the server would not have looked"
                for i, window in found:
                    rig.tick.logits[i, 0] = window[0, -1]
                if not rig.is_due(now):
                    break
                rig.close(now)
                alive = list(subsets.members(rig.tick.mask))
                said = rig.tick.logits[alive, 0].tolist()
                names = tuple(BOTH.names[i] for i in alive)
                given.append(Given(now, rig.tick.end_ns, rig.seq, names, tuple(said)))
                rig.next_tick(now)


def test_each_new_window_gives_a_result_at_once_with_the_others_newest() -> None:
    given = play(sensor("acc", 10), delayed(sensor("gyro", 10), LAG), until=10)
    running = [g for g in given if g.end_ns > T0 + 3 * HOP_NS]
    for acc, gyro in zip(running[::2], running[1::2], strict=False):
        hop = (acc.end_ns - T0) // HOP_NS
        assert acc.at_ns == acc.end_ns - PERIOD // 2 + DELAY, "nobody is waited for"
        assert acc.alive == gyro.alive == ("acc", "gyro")
        assert acc.said == (25 * hop - 1, 25 * (hop - 1) - 9), "the gyroscope's before"
        assert gyro.at_ns == acc.at_ns + LAG % (FRAME * PERIOD)
        assert gyro.said == (25 * hop - 1, 25 * hop - 9)
        assert gyro.end_ns == acc.end_ns
    assert len(running) >= 28


def test_seq_rises_by_one_per_result_and_time_never_falls() -> None:
    given = play(sensor("acc", 10), delayed(sensor("gyro", 5), LAG), until=12)
    assert [g.seq for g in given] == list(range(len(given)))
    assert all(a.end_ns <= b.end_ns for a, b in pairwise(given))


def test_windows_that_come_together_share_a_result() -> None:
    gyro = sensor("gyro", 10)
    given = play(sensor("acc", 10), gyro, until=10, max_age_ns=HOP_NS)
    assert {g.alive for g in given if g.end_ns > T0 + 3 * HOP_NS} <= {("acc", "gyro")}


@pytest.mark.parametrize("max_age_hops", [1, 2, 3])
def test_a_window_older_than_the_maximum_age_has_no_part(max_age_hops: int) -> None:
    dies = 5.0
    given = play(
        sensor("acc", 10), sensor("gyro", dies), until=10, max_age_ns=max_age_hops * HOP_NS
    )
    last_end_ns = T0 + round(dies * 1000) * MS
    after = [g for g in given if g.at_ns > last_end_ns]
    with_it = [g for g in after if "gyro" in g.alive]
    assert all(g.at_ns - last_end_ns <= max_age_hops * HOP_NS for g in with_it)
    # Silence ends it sooner than age where the sensor's timeout, 1.2 s, is the shorter.
    assert len(with_it) == min(max_age_hops, 2)
    assert {g.alive for g in after[len(with_it) :]} == {("acc",)}


def test_where_nothing_new_came_results_rest_on_nothing() -> None:
    given = play(sensor("acc", 4), sensor("gyro", 4), until=10, max_age_ns=100 * HOP_NS)
    after = [g for g in given if g.at_ns > T0 + 4 * 1000 * MS]
    assert len(after) >= 10
    assert {g.alive for g in after} == {()}
    assert {b.at_ns - a.at_ns for a, b in pairwise(after)} == {HOP_NS}


def test_no_window_is_the_newest_twice() -> None:
    given = play(sensor("acc", 10), delayed(sensor("gyro", 10), LAG), until=12)
    answered = [g for g in given if g.alive]
    assert all(a.said != b.said for a, b in pairwise(answered))


def test_a_sensor_that_lies_takes_no_part_though_its_last_window_is_young() -> None:
    def spoil(samples: np.ndarray) -> None:
        samples[2] = np.nan

    gyro = sensor("gyro", 5) + with_samples(sensor("gyro", 5, start=5), spoil)
    given = play(sensor("acc", 10), delayed(gyro, -2 * MS), until=10, max_age_ns=10 * HOP_NS)
    after = [g for g in given if g.end_ns > T0 + 10 * HOP_NS]
    assert {g.alive for g in after} == {("acc",)}


def test_a_sensor_that_returns_after_a_long_time_is_at_the_present_at_once() -> None:
    back = sensor("gyro", 5, start=60)
    given = play(sensor("acc", 65), sensor("gyro", 4), back, until=65)
    used = [g for g in given if "gyro" in g.alive and g.at_ns > T0 + 60_000 * MS]
    assert used[0].end_ns == T0 + 61_000 * MS, "one clean window"
    assert used[0].said[1] == 61 * 50 - 1
