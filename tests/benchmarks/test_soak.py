"""benchmarks.soak: what it counts as missed, and what it makes of what it saw."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import fire, soak
from benchmarks.fire import Seen


def seen_after(*seqs: int) -> Seen:
    seen = Seen()
    for seq in seqs:
        result: Any = SimpleNamespace(
            source="rig", seq=seq, decision="ok", latency_us=SimpleNamespace(total=seq)
        )
        seen.take(result)
    return seen


@pytest.mark.parametrize(
    ("seqs", "missed"),
    [
        ((0, 1, 2), 0),
        ((0, 1, 3), 1),
        ((0, 5, 9), 7),
        ((2, 3), 2),
        ((0, 1, 0, 1), 0),
        ((0, 1, 0, 2), 1),
    ],
    ids=["none", "one", "many", "the first", "forgotten and back", "and then a hole"],
)
def test_every_hole_in_seq_is_missed_results(seqs: tuple[int, ...], missed: int) -> None:
    assert seen_after(*seqs).missed == missed


def test_memory_that_grows_steadily_has_its_slope_once_it_soaked_for_long_enough() -> None:
    seen = seen_after(*range(300))
    seen.rss = [(s, 80 + 12 * s / 3600) for s in range(0, 601)]
    assert soak.summary(seen, "")["rss_slope_mb_per_h"] == pytest.approx(12)
    seen.rss = seen.rss[:200]
    assert "rss_slope_mb_per_h" not in soak.summary(seen, "")


def test_latency_that_doubles_drifts_by_two() -> None:
    seen = Seen(latency_us=[100] * 100 + [150] * 100 + [200] * 100, rss=[(0, 1), (9, 1)])
    assert soak.summary(seen, "")["p99_drift"] == 2


def test_tracebacks_in_the_log_are_counted() -> None:
    trace = "Traceback (most recent call last):\n  ...\nKeyError: 1\n"
    seen = Seen(latency_us=[1] * 3, rss=[(0, 1), (9, 1)])
    assert soak.summary(seen, f"started\n{trace}warning\n{trace}")["tracebacks"] == 2


def test_a_seed_has_the_same_faults_in_store_one_after_the_other() -> None:
    faults = fire.schedule(Random(7), "acc", 600)
    assert faults == fire.schedule(Random(7), "acc", 600) != fire.schedule(Random(8), "acc", 600)
    times = [t for f in faults for t in (f.start_s, f.stop_s)]
    assert len(faults) > 10
    assert times == sorted(t for t in times if t is not None)
