"""runtime.rigs: ticks come on time, from whichever sensors are alive. The clock is turned by hand.

Two sensors send a frame of five samples every 100 ms; a window is one second, a hop half of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest

from robult_edge.bundle import Branch, FileRef, Head, Manifest, Measured, SubsetEntry
from robult_edge.errors import FrameError
from robult_edge.frames import Frame
from robult_edge.modality import ChannelStats, ModalitySpec
from runtime.rigs import CATCH_UP_TICKS, Rig, Rigs

MS = 1_000_000
PERIOD, HOP, WINDOW, FRAME = 20 * MS, 25, 50, 5
HOP_NS = HOP * PERIOD
T0 = 1_700_000_000 * 1000 * MS
"""The sensors' first sample; on the grid of ticks."""
DELAY = MS
PATIENCE = 50 * MS
TIMEOUT_S = 1.2


def manifest(*names: str) -> Manifest:
    stats = ChannelStats(mean=(0.0,), std=(1.0,), low=(0.0,), high=(1e6,), spread=(0.0,))
    ref = FileRef(file="x", sha256="0")
    scores = Measured(
        accuracy=1, balanced_accuracy=1, macro_f1=1, ece=0, coverage=1, set_size=1, n=1
    )
    table = tuple(
        SubsetEntry(
            alive=alive, uses=alive, weights=(0.5,) * len(names), head_weight=0.0, threshold=0.0,
            expected=scores,
        )
        for alive in ([names] if len(names) == 1 else [names[:1], names[1:], names])
    )  # fmt: skip
    return Manifest(
        format=1,
        name="tiny",
        task="classification",
        classes=("a", "b"),
        modalities=tuple(
            ModalitySpec(
                name=name, channels=("x",), unit="g", rate_hz=50.0, window=WINDOW, hop=HOP,
                timeout_s=TIMEOUT_S, stats=stats,
            )
            for name in names
        ),
        width=3,
        branches=tuple(Branch(modality=name, onnx=ref, temperature=1.0) for name in names),
        head=Head(onnx=ref, temperature=1.0),
        tables={"pool": table, "mean": table},
        coverage=0.9,
        conflict=1.0,
        golden=ref,
        provenance={},
    )  # fmt: skip


BOTH = manifest("acc", "gyro")


@dataclass(frozen=True)
class Arrival:
    """A frame and when it reaches the runtime."""

    at_ns: int
    frame: Frame


def sensor(
    name: str, seconds: float, source: str = "rig", start: float = 0.0, seq: int | None = None
) -> list[Arrival]:
    """A sensor's frames from ``start`` on; the value of sample j is j."""
    frames = []
    for k in range(round(start * 10), round((start + seconds) * 10)):
        j = k * FRAME + np.arange(FRAME)
        first_ns = T0 + k * FRAME * PERIOD + PERIOD // 2
        arrives = first_ns + (FRAME - 1) * PERIOD + DELAY
        number = k if seq is None else seq + k - round(start * 10)
        samples = j[:, None].astype(np.float32)
        frames.append(Arrival(arrives, Frame(name, source, number, first_ns, samples)))
    return frames


def skewed(arrivals: list[Arrival], by_ns: int) -> list[Arrival]:
    """The same, from a sensor whose clock is wrong."""
    return [
        replace(a, frame=Frame(a.frame.modality, a.frame.source, a.frame.seq,
                               a.frame.t_ns + by_ns, a.frame.samples))
        for a in arrivals
    ]  # fmt: skip


def delayed(arrivals: list[Arrival], by_ns: int) -> list[Arrival]:
    return [replace(a, at_ns=a.at_ns + by_ns) for a in arrivals]


def with_samples(arrivals: list[Arrival], change: Callable[[np.ndarray], object]) -> list[Arrival]:
    for a in arrivals:
        change(a.frame.samples)
    return arrivals


@dataclass(frozen=True)
class Answered:
    """A tick when it was answered."""

    at_ns: int
    end_ns: int
    seq: int
    last_sample: dict[str, float]
    states: dict[str, str]
    reasons: dict[str, str]

    @property
    def used(self) -> str:
        return "+".join(self.last_sample)


def play(
    rigs: Rigs, *sensors: Iterable[Arrival], until: float, source: str = "rig"
) -> list[Answered]:
    """Turn the clock from event to event, as the server's loop would, and keep what it answers."""
    arrivals = sorted((a for s in sensors for a in s), key=lambda a: a.at_ns)
    answered: list[Answered] = []
    used: dict[str, dict[str, float]] = {}
    end_ns = T0 + round(until * 1000) * MS
    queue: Iterator[Arrival | None] = iter([*arrivals, None])
    following = next(queue)
    while True:
        events = [rigs.next_due_ns(), following.at_ns if following else None]
        now = min((t for t in events if t is not None), default=end_ns)
        if now >= end_ns:
            return answered
        if following is not None and following.at_ns <= now:
            rigs.place(following.frame, now)
            following = next(queue)
        for rig in rigs.waiting(now):
            while True:
                seen = used.setdefault(rig.source, {})
                behind, found = rig.may_be_behind(now), rig.windows(now, PATIENCE)
                assert behind or not found, "the server would not have looked"
                for i, window in found:
                    assert window.shape == rig.streams[i].spec.window_shape
                    np.testing.assert_array_equal(np.diff(window), 1)
                    seen[rig.streams[i].spec.name] = float(window[0, -1])
                    rig.tick.mask |= 1 << i
                if not rig.is_due(now):
                    break
                rig.close(now)
                if rig.source == source:
                    answered.append(
                        Answered(
                            now, rig.tick.end_ns, rig.seq, dict(sorted(seen.items())),
                            {s.spec.name: s.liveness.state for s in rig.streams},
                            {s.spec.name: s.liveness.reason for s in rig.streams},
                        )
                    )  # fmt: skip
                seen.clear()
                rig.next_tick(now)


def hops(answered: list[Answered]) -> list[int]:
    return [round((a.end_ns - T0) / HOP_NS) for a in answered]


def by_hop(answered: list[Answered]) -> dict[int, Answered]:
    return dict(zip(hops(answered), answered, strict=True))


def test_ticks_come_once_per_hop_on_one_grid_and_none_is_skipped() -> None:
    answered = play(Rigs(BOTH, 1), sensor("acc", 10), sensor("gyro", 10), until=10)
    assert hops(answered) == list(range(1, 21))
    assert [a.seq for a in answered] == list(range(20))
    assert all(a.end_ns % HOP_NS == 0 for a in answered)


def test_a_tick_is_answered_as_soon_as_all_alive_are_in() -> None:
    answered = play(Rigs(BOTH, 1), sensor("acc", 10), sensor("gyro", 10), until=10)
    for a in answered[2:]:
        assert a.used == "acc+gyro"
        assert a.at_ns == a.end_ns - PERIOD // 2 + DELAY


def test_windows_end_with_the_hop() -> None:
    answered = by_hop(play(Rigs(BOTH, 1), sensor("acc", 10), sensor("gyro", 10), until=10))
    for hop in range(3, 21):
        assert answered[hop].last_sample == dict.fromkeys(("acc", "gyro"), HOP * hop - 1)


@pytest.mark.parametrize("skew_s", [3600, -3600, 86_400 * 365])
def test_a_sensors_wrong_clock_changes_nothing(skew_s: int) -> None:
    right = play(Rigs(BOTH, 1), sensor("acc", 10), sensor("gyro", 10), until=10)
    wrong = skewed(sensor("gyro", 10), skew_s * 1000 * MS)
    assert play(Rigs(BOTH, 1), sensor("acc", 10), wrong, until=10) == right


def test_the_deadline_is_set_once_and_later_arrivals_do_not_push_it_back() -> None:
    three = manifest("acc", "gyro")
    rig = Rig("rig", three, Rigs(three, 1)._limits, T0)
    rig.open(T0 + 480 * MS, PATIENCE)
    due = rig.due_ns
    assert due == T0 + HOP_NS + PATIENCE
    for later in range(490, 600, 10):
        rig.open(T0 + later * MS, PATIENCE)
        rig.open(T0 + later * MS, 10 * PATIENCE)
        assert rig.due_ns == due
    assert rig.tick.opened_ns == T0 + 480 * MS


def test_a_late_sensor_is_left_out_at_the_deadline_and_not_waited_for() -> None:
    late_from = 5.0
    gyro = sensor("gyro", late_from) + delayed(sensor("gyro", 3, start=late_from), 400 * MS)
    answered = by_hop(play(Rigs(BOTH, 1), sensor("acc", 8), gyro, until=8))
    assert answered[10].used == "acc+gyro"
    for hop in (11, 12, 13):
        # A frame holds 100 ms, so that is when the slowest could have been expected.
        assert answered[hop].used == "acc"
        assert answered[hop].states["gyro"] == "alive"
        assert answered[hop].at_ns == answered[hop].end_ns + FRAME * PERIOD + PATIENCE


def test_a_sensor_a_little_late_is_waited_for() -> None:
    gyro = delayed(sensor("gyro", 6), 0) + delayed(sensor("gyro", 2, start=6), 120 * MS)
    answered = by_hop(play(Rigs(BOTH, 1), sensor("acc", 8), gyro, until=8))
    assert answered[14].used == "acc+gyro"
    assert answered[14].at_ns == answered[14].end_ns - PERIOD // 2 + DELAY + 120 * MS


def test_a_silent_sensor_turns_stale_within_its_timeout_and_one_hop() -> None:
    dies = 5.0
    answered = play(Rigs(BOTH, 1), sensor("acc", 10), sensor("gyro", dies), until=10)
    after = [a for a in answered if a.end_ns > T0 + dies * 1000 * MS]
    assert [a.used for a in after] == ["acc"] * len(after)
    stale = next(a for a in after if a.states["gyro"] == "stale")
    silent_for = (stale.at_ns - T0) / 1e9 - dies
    assert TIMEOUT_S < silent_for <= TIMEOUT_S + HOP_NS / 1e9 + 0.16
    assert stale.reasons["gyro"].startswith("no frames for 1.")
    assert all(a.states["gyro"] == "stale" for a in after[after.index(stale) :])


def test_a_stale_sensor_is_not_waited_for() -> None:
    answered = play(Rigs(BOTH, 1), sensor("acc", 10), sensor("gyro", 5), until=10)
    for a in answered[15:]:
        assert a.at_ns == a.end_ns - PERIOD // 2 + DELAY


def test_the_same_frame_over_and_over_does_not_keep_a_sensor_alive() -> None:
    gyro = sensor("gyro", 5)
    again = [delayed(gyro[-3:], n * 100 * MS) for n in range(1, 50)]
    answered = play(Rigs(BOTH, 1), sensor("acc", 10), gyro, *again, until=10)
    assert answered[-1].states == {"acc": "alive", "gyro": "stale"}


@pytest.mark.parametrize("back", [7.0, 7.2, 7.5])
@pytest.mark.parametrize("seq", [None, 0], ids=["goes on counting", "counts from nought"])
def test_a_sensor_that_returns_is_used_after_exactly_one_clean_window(
    back: float, seq: int | None
) -> None:
    gyro = sensor("gyro", 4) + sensor("gyro", 6, start=back, seq=seq)
    answered = by_hop(play(Rigs(BOTH, 1), sensor("acc", 13), gyro, until=13))
    # The first hop that ends a whole window after its first new sample.
    first = int(-(-(back + WINDOW / 50) // 0.5))
    assert answered[first - 1].used == "acc"
    assert answered[first - 1].states["gyro"] == "stale"
    assert "back with" in answered[first - 1].reasons["gyro"]
    for hop in range(first, 26):
        assert answered[hop].used == "acc+gyro"
        assert answered[hop].states["gyro"] == "alive"


def test_a_restarted_sensor_whose_clock_went_back_a_little_is_taken_for_a_new_one() -> None:
    back = skewed(sensor("gyro", 6, start=7, seq=0), -4000 * MS)
    rigs = Rigs(BOTH, 1)
    answered = by_hop(play(rigs, sensor("acc", 13), sensor("gyro", 4), back, until=12))
    assert [answered[hop].used for hop in (15, 16, 20)] == ["acc", "acc+gyro", "acc+gyro"]
    assert rigs.rigs["rig"].streams[1].counts["clock step"] == 1


def test_a_sensor_starts_with_its_first_whole_window() -> None:
    answered = by_hop(play(Rigs(BOTH, 1), sensor("acc", 5), sensor("gyro", 4, start=1), until=5))
    assert [answered[hop].used for hop in (1, 2, 3, 4)] == ["", "acc", "acc", "acc+gyro"]
    assert answered[1].reasons == {
        "acc": "starting: 50 % of a clean window",
        "gyro": "no frames yet",
    }
    assert answered[3].reasons["gyro"] == "starting: 40 % of a clean window"


def test_a_sensor_that_never_starts_is_absent_and_never_waited_for() -> None:
    answered = play(Rigs(BOTH, 1), sensor("acc", 5), until=5)
    assert {a.states["gyro"] for a in answered} == {"absent"}
    assert {a.used for a in answered[1:]} == {"acc"}
    assert all(a.at_ns < a.end_ns for a in answered[2:])


def test_with_nothing_alive_answers_keep_coming_one_hop_after_each_ticks_end() -> None:
    answered = play(Rigs(BOTH, 1), sensor("acc", 3), sensor("gyro", 3), until=10)
    assert hops(answered)[-1] >= 18
    assert hops(answered) == list(range(1, len(answered) + 1))
    for a in answered[6:]:
        assert a.used == ""
        assert a.at_ns == a.end_ns + HOP_NS
    assert answered[-1].states == {"acc": "stale", "gyro": "stale"}


@pytest.mark.parametrize("acc_delay", [0, 2 * MS], ids=["comes last", "comes first"])
def test_a_sensor_that_lies_is_left_out_at_once_and_until_a_window_is_clean(
    acc_delay: int,
) -> None:
    def spoil(samples: np.ndarray) -> None:
        samples[2] = np.nan

    gyro = (
        sensor("gyro", 5)
        + with_samples(sensor("gyro", 0.1, start=5.2), spoil)
        + sensor("gyro", 0.2, start=5)
        + sensor("gyro", 5, start=5.3)
    )
    answered = by_hop(play(Rigs(BOTH, 1), delayed(sensor("acc", 9), acc_delay), gyro, until=9))
    assert answered[10].used == "acc+gyro"
    assert answered[11].states["gyro"] == "faulty"
    assert answered[11].reasons["gyro"].endswith("% NaN")
    used = [answered[hop].used for hop in (11, 12, 13, 14)]
    assert used == ["acc", "acc", "acc+gyro", "acc+gyro"]
    assert all(a.states["acc"] == "alive" for a in list(answered.values())[2:])


@pytest.mark.parametrize("phase_ms", [0, 1, 8])
def test_a_sensor_whose_frames_are_always_the_last_to_come_still_starts_and_returns(
    phase_ms: int,
) -> None:
    gyro = delayed(sensor("gyro", 4) + sensor("gyro", 6, start=7), phase_ms * MS)
    answered = by_hop(play(Rigs(BOTH, 1), sensor("acc", 13), gyro, until=12))
    assert [answered[hop].used for hop in (2, 3, 8)] == ["acc+gyro"] * 3
    assert [answered[hop].used for hop in (15, 16, 20)] == ["acc", "acc+gyro", "acc+gyro"]


def test_samples_that_come_late_are_checked_too() -> None:
    def spoil(samples: np.ndarray) -> None:
        samples[:] = np.nan

    hole, at = sensor("gyro", 0.1, start=5.2), T0 + 5_550 * MS
    late = [replace(a, at_ns=at) for a in with_samples(hole, spoil)]
    gyro = sensor("gyro", 5.2) + sensor("gyro", 5, start=5.3) + late
    answered = by_hop(play(Rigs(BOTH, 1), sensor("acc", 9), gyro, until=9))
    assert answered[11].states["gyro"] == "faulty"
    assert answered[12].states["gyro"] == "faulty"
    assert answered[12].reasons["gyro"].endswith("% NaN")


def test_a_lost_frame_costs_one_window_and_is_counted() -> None:
    gyro = [a for a in sensor("gyro", 9) if a.frame.seq != 52]
    rigs = Rigs(BOTH, 1)
    answered = by_hop(play(rigs, sensor("acc", 9), gyro, until=9))
    used = [answered[hop].used for hop in (10, 11, 12, 13)]
    assert used == ["acc+gyro", "acc", "acc", "acc+gyro"]
    assert answered[11].reasons["gyro"] == "gap; 20 % of a clean window"
    counts = rigs.rigs["rig"].streams[1].counts
    assert counts == {"fresh": 88, "gap": 1, "lost": 1}


def test_frames_out_of_order_and_twice_cost_nothing_and_are_counted() -> None:
    gyro = sensor("gyro", 9)
    swapped = [
        replace(a, at_ns=a.at_ns + (130 * MS if a.frame.seq == 51 else 0)) for a in gyro
    ] + delayed(gyro[30:31], 500 * MS)
    rigs = Rigs(BOTH, 1)
    answered = play(rigs, sensor("acc", 9), swapped, until=9)
    assert {a.used for a in answered[2:]} == {"acc+gyro"}
    counts = rigs.rigs["rig"].streams[1].counts
    assert counts == {"fresh": 88, "gap": 1, "late": 1, "lost": 1, "duplicate": 1}


@pytest.mark.parametrize("step_s", [-3600, 3600])
def test_a_clock_that_steps_far_costs_one_window(step_s: int) -> None:
    gyro = sensor("gyro", 5) + skewed(sensor("gyro", 5, start=5), step_s * 1000 * MS)
    answered = by_hop(play(Rigs(BOTH, 1), sensor("acc", 10), gyro, until=10))
    if step_s < 0:
        assert answered[11].reasons["gyro"] == "clock step; 50 % of a clean window"
    assert [answered[hop].used for hop in (10, 11)] == ["acc+gyro", "acc"]
    assert all(answered[hop].used == "acc+gyro" for hop in range(12, 20))


@pytest.mark.parametrize(
    ("slept", "step"),
    [(0, 1), (1, 1), (CATCH_UP_TICKS, 1), (CATCH_UP_TICKS + 1, CATCH_UP_TICKS + 1), (10**6, 10**6)],
)
def test_after_a_long_sleep_ticks_skip_to_the_present_and_seq_shows_the_hole(
    slept: int, step: int
) -> None:
    rig = Rig("rig", BOTH, Rigs(BOTH, 1)._limits, T0)
    assert rig.tick.end_ns == T0 + HOP_NS
    rig.next_tick(T0 + HOP_NS + slept * HOP_NS)
    assert rig.seq == step
    assert rig.tick.end_ns == T0 + (1 + step) * HOP_NS


def test_after_a_short_sleep_every_tick_is_answered_from_its_own_window() -> None:
    def held(arrivals: list[Arrival]) -> list[Arrival]:
        wakes = T0 + 6_000 * MS
        return [
            replace(a, at_ns=max(a.at_ns, wakes)) if a.at_ns > T0 + 5_000 * MS else a
            for a in arrivals
        ]

    sensors = held(sensor("acc", 9)), held(sensor("gyro", 9))
    answered = play(Rigs(BOTH, 1), *sensors, until=9)
    assert hops(answered) == list(range(1, len(answered) + 1))
    assert [a.seq for a in answered] == list(range(len(answered)))
    for hop, a in by_hop(answered).items():
        assert all(last == HOP * hop - 1 for last in a.last_sample.values())


def test_sources_do_not_touch_one_another() -> None:
    alone = play(Rigs(BOTH, 2), sensor("acc", 8), sensor("gyro", 8), until=8)
    other = sensor("acc", 3, "other"), with_samples(
        sensor("gyro", 8, "other"), lambda s: s.fill(np.nan)
    )  # fmt: skip
    rigs = Rigs(BOTH, 2)
    assert play(rigs, sensor("acc", 8), sensor("gyro", 8), *other, until=8) == alone
    assert [s.liveness.state for s in rigs.rigs["other"].streams] == ["stale", "faulty"]


def test_one_source_too_many_is_refused_by_name_and_the_others_stay() -> None:
    rigs = Rigs(BOTH, 2)
    for source in ("one", "two"):
        rigs.place(sensor("acc", 0.1, source)[0].frame, T0)
    with pytest.raises(FrameError, match=r"source 'three' refused: 2 are served") as refused:
        rigs.place(sensor("acc", 0.1, "three")[0].frame, T0)
    assert refused.value.reason == "sources"
    assert "--max-sources" in str(refused.value)
    assert list(rigs.rigs) == ["one", "two"]
    assert rigs.place(sensor("gyro", 0.1, "two")[0].frame, T0).source == "two"


def test_without_sources_nothing_is_due() -> None:
    assert Rigs(BOTH, 2).next_due_ns() is None
