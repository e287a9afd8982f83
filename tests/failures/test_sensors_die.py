"""Sensors that die, never start, and return."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

from robult_edge.bundle import Bundle
from robult_edge.data.replay import Replay
from robult_edge.frames import Frame
from robult_edge.results import Result
from tests.failures.live import PATIENT, SPEED, Message, playing, serving


def holes(answers: list[Result]) -> list[tuple[int, int]]:
    """Where ``seq`` does not rise by one."""
    return [(a.seq, b.seq) for a, b in pairwise(answers) if b.seq != a.seq + 1]


def test_sensor_processes_killed_and_returned_cost_no_result(shipped: Bundle) -> None:
    """Real processes, kill −9: gyro, then acc, then both; every tick is answered throughout."""
    faults = "gyro:dead@6-14,acc:dead@22-30,gyro:dead@26-30"
    with serving(shipped.path, *PATIENT) as served:
        simulate = subprocess.Popen(
            [sys.executable, "-m", "runtime.simulate", "--frames", served.frames,
             "--speed", str(SPEED), "--seconds", "40", "--fault", faults],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        assert simulate.wait(timeout=60) == 0
        served.read(1.0)
        by_source: dict[str, list[Result]] = {}
        for answer in served.answers:
            by_source.setdefault(answer.source, []).append(answer)
        assert len(by_source) == 3, "one rig per held-out subject"
        for answers in by_source.values():
            assert holes(answers) == []
            # A window in doubt is left out of an answer, but its sensor is alive.
            seen = [
                tuple(name for name, part in a.modalities.items() if part.state == "alive")
                for a in answers
            ]
            seen = seen[seen.index(("acc", "gyro")) :]  # processes do not start at one moment
            order = [subset for i, subset in enumerate(seen) if i == 0 or seen[i - 1] != subset]
            assert order[:5] == [("acc", "gyro"), ("acc",), ("acc", "gyro"), ("gyro",), ()]
            dead = [a for a in answers if a.seq > 8 and not a.alive]
            assert dead
            assert all(a.label is None and a.decision == "none" for a in dead)
            assert ("acc", "gyro") in seen[seen.index(("gyro",)) :], "both came back"


def test_sensor_process_that_begins_to_lie_is_left_out_and_taken_back(shipped: Bundle) -> None:
    with serving(shipped.path, *PATIENT) as served:
        simulate = subprocess.Popen(
            [sys.executable, "-m", "runtime.simulate", "--frames", served.frames,
             "--speed", str(SPEED), "--seconds", "32", "--fault", "acc:noise(3)@12-18"],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        assert simulate.wait(timeout=60) == 0
        served.read(1.0)
    told = [a for a in served.answers if a.source == served.answers[0].source]
    seen = [a.modalities["acc"].state == "alive" for a in told]
    first, last = seen.index(True), len(seen) - 1 - seen[::-1].index(True)
    away = [a for a, alive in zip(told, seen, strict=True) if not alive][first:]
    assert seen[first:last].count(False) >= 9, "for as long as it lied"
    assert any("its usual" in a.modalities["acc"].reason for a in away)
    assert {a.modalities["gyro"].state for a in told[first:last]} == {"alive"}


def test_killed_sensor_is_stale_within_its_timeout_and_a_hop(
    shipped: Bundle, replay: Replay
) -> None:
    def gyro_dies(modality: str, frame: Frame) -> list[Frame | Message]:
        return [] if modality == "gyro" else [frame]

    with serving(shipped.path, *PATIENT) as served, playing(served, replay) as player:
        player.play(6)
        player.play(6, gyro_dies)
        timeout_ms = replay.modalities["gyro"].timeout_s * 1e3
        hop_ms = shipped.manifest.hop_ns / 1e6
        stale = [a.modalities["gyro"] for a in served.answers if a.seq > 5 and a.alive == ["acc"]]
        silent_ms = [g.age_ms for g in stale if g.state == "alive" and g.age_ms is not None]
        assert stale[-1].state == "stale"
        assert stale[-1].reason.startswith("no frames for")
        assert max(silent_ms, default=0) <= timeout_ms + hop_ms
        assert holes(served.answers) == []


def test_sensor_that_never_starts_is_absent_and_the_others_answer(
    shipped: Bundle, replay: Replay
) -> None:
    def only_acc(modality: str, frame: Frame) -> list[Frame | Message]:
        return [frame] if modality == "acc" else []

    with serving(shipped.path, *PATIENT) as served, playing(served, replay) as player:
        player.play(7, only_acc)
        served.read(0.5)
        answer = next(a for a in served.answers if a.alive == ["acc"])
    entry = shipped.manifest.entry("pool", 0b01)
    assert answer.modalities["gyro"].state == "absent"
    assert answer.modalities["gyro"].reason == "no frames yet"
    assert answer.decision == "degraded"
    assert answer.expected is not None
    assert answer.expected.accuracy == entry.expected.accuracy


def test_returning_sensor_is_used_after_exactly_one_clean_window(
    shipped: Bundle, replay: Replay
) -> None:
    def gyro_dies(modality: str, frame: Frame) -> list[Frame | Message]:
        return [] if modality == "gyro" else [frame]

    gyro = replay.modalities["gyro"]
    with serving(shipped.path, *PATIENT) as served, playing(served, replay) as player:
        player.play(6)
        player.play(4, gyro_dies)
        back_at = 10 * gyro.hop
        player.play(7)
        used = [
            player.end_of(a, "gyro")
            for a in served.answers
            if "gyro" in a.alive and player.end_of(a, "gyro") >= back_at
        ]
        waiting = [a.modalities["gyro"].reason for a in served.answers]
    first_window_starts = used[0] - gyro.window + 1
    assert back_at <= first_window_starts < back_at + gyro.hop
    assert any("of a clean window" in reason for reason in waiting)


def test_all_dead_results_keep_coming_without_a_label(shipped: Bundle, replay: Replay) -> None:
    with serving(shipped.path, *PATIENT) as served, playing(served, replay) as player:
        player.play(6)
        first = served.wait_for(lambda r: not r.alive and r.seq > 5)
        later = served.wait_for(lambda r: r.seq >= first.seq + 5)
    assert later.label is None
    assert later.probabilities == {}
    assert later.prediction_set == []
    assert later.expected is None
    assert later.decision == "none"
    assert "acc stale: no frames for" in later.reason
    assert holes(served.answers) == []
