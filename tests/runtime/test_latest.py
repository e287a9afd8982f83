"""runtime.latest: every new window gives a result, and nothing old is given twice.

Frames and time as in test_rigs; the clock is turned by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from types import MappingProxyType

import msgspec
import numpy as np
import pytest

from robult_edge import subsets
from robult_edge.bundle import Manifest
from runtime.latest import LatestRig
from runtime.policy import Policy
from runtime.rigs import Rigs
from tests.runtime.test_clocks import paced, stamped
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


def play(
    *sensors: list[Arrival],
    until: float,
    max_age_ns: int = 2 * HOP_NS,
    manifest: Manifest = BOTH,
    reloads: Mapping[int, Manifest] = MappingProxyType({}),
) -> list[Given]:
    """What comes out; each branch says its window's last sample.

    Another manifest is adopted at each of ``reloads``.
    """
    rigs = Rigs(manifest, 1, rig=partial(LatestRig, policy=Policy(max_age_ms=max_age_ns / MS)))
    coming = sorted(reloads.items())
    arrivals = sorted((a for s in sensors for a in s), key=lambda a: a.at_ns)
    given: list[Given] = []
    end_ns = T0 + round(until * 1000) * MS
    while True:
        due_ns = rigs.next_due_ns()
        now = min(arrivals[0].at_ns if arrivals else end_ns, due_ns or end_ns)
        if coming and coming[0][0] <= now:
            at_ns, manifest = coming.pop(0)
            rigs.adopt(manifest, 1, at_ns)
            now = at_ns
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
                names = tuple(manifest.names[i] for i in alive)
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


def other(**gyro: object) -> Manifest:
    """Another bundle for the same sensors; the gyroscope's spec with these changes."""
    acc, spec = BOTH.modalities
    changed = msgspec.structs.replace(spec, **gyro)
    return msgspec.structs.replace(BOTH, name="other", modalities=(acc, changed))


RELOAD_NS = T0 + 5 * 1000 * MS + 130 * MS


def test_a_reload_costs_no_result_and_leaves_every_window_in_hand() -> None:
    sensors = sensor("acc", 10), delayed(sensor("gyro", 10), LAG)
    undisturbed = play(*sensors, until=10)
    given = play(*sensors, until=10, reloads={RELOAD_NS: other()})
    assert [g.seq for g in given] == list(range(len(given)))
    assert given == undisturbed, "the old branches' answers are asked of the new ones anew"


def test_many_reloads_in_a_row_give_no_result_twice() -> None:
    sensors = sensor("acc", 20), delayed(sensor("gyro", 20), LAG)
    often = {T0 + 3000 * MS + k * 37 * MS: other() for k in range(400)}
    given = play(*sensors, until=20, reloads=often)
    assert given == play(*sensors, until=20)


def test_a_sensor_that_is_another_after_a_reload_starts_anew_and_the_other_answers_on() -> None:
    given = play(
        sensor("acc", 10), delayed(sensor("gyro", 10), LAG), until=10,
        reloads={RELOAD_NS: other(timeout_s=0.9)},
    )  # fmt: skip
    assert [g.seq for g in given] == list(range(len(given)))
    after = [g for g in given if g.at_ns > RELOAD_NS]
    assert after[0].alive == ("acc",)
    back = next(g for g in after if "gyro" in g.alive)
    assert RELOAD_NS < back.at_ns <= RELOAD_NS + 4 * HOP_NS, "with its first whole window"
    assert {g.alive for g in after if g.at_ns > back.at_ns} == {("acc", "gyro")}


def test_sensors_of_different_rates_and_windows_each_answer_at_their_own_end() -> None:
    """Ten samples a second in windows of three seconds, beside fifty in windows of one."""
    slow = {"rate_hz": 10.0, "window": 30, "hop": 5}
    gyro = stamped(other(**slow).modalities[1], 12, lambda t: t + 77_000 * MS, frame=1)
    given = play(sensor("acc", 12), delayed(gyro, 260 * MS), until=12, manifest=other(**slow))
    assert [g.seq for g in given] == list(range(len(given)))
    assert {g.alive for g in given if g.at_ns < T0 + 3000 * MS} <= {(), ("acc",)}
    running = [g for g in given if g.at_ns > T0 + 4000 * MS]
    assert {g.alive for g in running} == {("acc", "gyro")}
    assert len(running) >= 2 * 15, "each has a result of its own at every hop"
    for g in running:
        acc, slower = g.said
        assert (acc + 1) % 25 == 0, "its own windows, on the grid"
        assert abs(acc / 50 - slower / 10) <= 1.0, "beside the other's newest"


@pytest.mark.parametrize("percent", [-1, 1])
def test_a_clock_of_a_slightly_other_pace_gives_a_result_per_window(percent: float) -> None:
    given = play(sensor("acc", 60), paced(percent, 60), until=60)
    assert [g.seq for g in given] == list(range(len(given)))
    later = [g for g in given if g.at_ns > T0 + 20_000 * MS]
    assert {g.alive for g in later} == {("acc", "gyro")}
    assert all(abs(g.said[0] - g.said[1] / (1 + percent / 100)) <= 30 for g in later)
