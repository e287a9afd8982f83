"""runtime.stream: lies over time, clocks that are set, and the patience with a repeat offender."""

from __future__ import annotations

import numpy as np
import pytest

from robult_edge import faults
from robult_edge.data.inject import Injector, parse
from robult_edge.data.stats import channel_stats
from robult_edge.modality import ModalitySpec
from runtime.stream import PROBATION_WINDOWS, Stream

HOP, WINDOW, N = 24, 96, 8
PERIOD_NS = 20_000_000
START_NS = 1_700_000_000_000_000_000


def moving(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    phase = np.cumsum(rng.uniform(0.05, 0.3, (n, 2)), 0)
    return (np.sin(phase) + rng.normal(0, 0.02, (n, 2))).astype(np.float32)


SPEC = ModalitySpec(
    name="acc", channels=("x", "y"), unit="g", rate_hz=50.0, window=WINDOW, hop=HOP, timeout_s=1.0,
    stats=channel_stats(lambda: [moving(600, seed) for seed in range(100)], HOP),
)  # fmt: skip


def states(fault: str, hops: int = 40) -> list[tuple[str, str]]:
    """State and reason at each hop of a sensor with that fault (seconds; a hop is 0.48 s).

    As a rig does, a hop's window is asked for until it is in, one hop long at most.
    """
    stream, injector = Stream(SPEC, faults.limits(SPEC)), Injector(parse(fault, ["acc"]), SPEC)
    samples, told = moving(hops * HOP, seed=1000), []
    for first in range(0, len(samples), N):
        t_ns = START_NS + first * PERIOD_NS + PERIOD_NS // 2
        now_ns = START_NS + (first + N) * PERIOD_NS
        for frame in injector.sent("rig", samples[first : first + N], t_ns, first / 50):
            stream.place(frame, now_ns)
        tick_ns = START_NS + (len(told) + 1) * HOP * PERIOD_NS
        if now_ns < tick_ns:
            continue
        stream.liveness.silence(now_ns)
        end = stream.due_index(tick_ns)
        if end is not None:
            stream.clean_window(end)
        if end is not None or now_ns >= tick_ns + (HOP - N) * PERIOD_NS:
            told.append((stream.liveness.state, stream.liveness.reason))
    return told


LIE_HOP = 10
AT = f"@{LIE_HOP * HOP / 50}-"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("stuck", "flat"),
        ("nan", "% NaN"),
        ("noise(1)", "noise"),
        ("bias(4)", "shifted by"),
        ("scale(57.3)", "× its training range"),
        ("scale(0.05)", "as lively as ever"),
        ("spikes(10)", ""),
        ("saturate(30)", ""),
        ("frozen", "payload frozen"),
        ("drift(0.8)", "samples arrive at"),
        ("clockstep(-3)", "clock step"),
        ("clockstep(3)", "clock step"),
        ("gap(0.9)", ""),
        ("dead", ""),
    ],
)
def test_a_lie_is_found_within_two_hops_and_named(fault: str, reason: str) -> None:
    told = states(f"acc:{fault}{AT}", hops=LIE_HOP + 3)
    assert told[LIE_HOP - 1][0] == "alive"
    found = [why for state, why in told[LIE_HOP : LIE_HOP + 3] if state != "alive"]
    assert found
    assert any(reason in why for why in found)


@pytest.mark.parametrize("fault", ["duplicate", "reorder", "skew(1.01)", "drift(0.97)"])
def test_what_is_made_good_on_the_way_in_is_no_lie(fault: str) -> None:
    assert {state for state, _ in states(f"acc:{fault}{AT}")[4:]} == {"alive"}


@pytest.mark.parametrize("step_s", [-30.0, -3.0, -1.0, 1.0, 3.0, 30.0])
def test_a_sender_whose_clock_is_set_is_back_after_one_clean_window(step_s: float) -> None:
    told = states(f"acc:clockstep({step_s}){AT}")
    away = [k for k, (state, _) in enumerate(told) if k >= LIE_HOP and state != "alive"]
    assert away == list(range(LIE_HOP, LIE_HOP + WINDOW // HOP - 1))
    assert told[LIE_HOP][1].startswith("clock step")


def lie_at(*hops: int) -> list[int]:
    """The hops after which a sensor that lies in these is not alive."""
    spans = ",".join(f"acc:stuck@{h * HOP / 50}-{(h + 1) * HOP / 50}" for h in hops)
    told = states(spans, hops=hops[-1] + 40)
    return [k for k, (state, _) in enumerate(told) if k >= 4 and state != "alive"]


def test_a_first_lie_costs_one_clean_window() -> None:
    assert lie_at(10) == [10, 11, 12, 13]


def test_one_that_lies_again_soon_waits_longer_each_time() -> None:
    assert lie_at(10, 16, 30) == [*range(10, 14), *range(16, 24), *range(30, 42)]


def test_one_that_was_honest_for_long_is_a_first_offender_again() -> None:
    later = 14 + PROBATION_WINDOWS * WINDOW // HOP + 1
    assert lie_at(10, later) == [*range(10, 14), *range(later, later + 4)]
