"""runtime.liveness: leaving alive is immediate, coming back takes a whole clean window."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from robult_edge.modality import ModalitySpec
from robult_edge.results import State
from runtime.liveness import Liveness

SPEC = ModalitySpec(
    name="gyro", channels=("x",), unit="rad/s", rate_hz=50.0, window=50, hop=25, timeout_s=1.2
)
NOW_NS = 1_700_000_000_000_000_000
MS = 1_000_000

Event = Callable[[Liveness], None]


def fresh(at_ms: int = 0) -> Event:
    return lambda live: live.fresh(NOW_NS + at_ms * MS)


def look(at_ms: int) -> Event:
    return lambda live: live.silence(NOW_NS + at_ms * MS)


def broken(filled: float, gap: str | None = None) -> Event:
    return lambda live: live.broken_window(filled, gap)


def clean(live: Liveness) -> None:
    live.clean_window()


def lie(live: Liveness) -> None:
    live.lie("channel x flat")


@pytest.mark.parametrize(
    ("events", "state", "reason"),
    [
        ([], "absent", "no frames yet"),
        ([look(10**9)], "absent", "no frames yet"),
        ([fresh(), broken(0.5)], "absent", "starting: 50 % of a clean window"),
        ([fresh(), broken(0.999)], "absent", "starting: 99 % of a clean window"),
        ([fresh(), clean], "alive", "frames on time and plausible"),
        ([fresh(), clean, look(1200)], "alive", "frames on time and plausible"),
        ([fresh(), clean, look(1201)], "stale", "no frames for 1.2 s"),
        ([fresh(), clean, look(65_000)], "stale", "no frames for 65.0 s"),
        ([fresh(), look(1201)], "stale", "no frames for 1.2 s"),
        ([fresh(), clean, lie], "faulty", "channel x flat"),
        ([fresh(), lie], "faulty", "channel x flat"),
        ([fresh(), clean, lie, look(1201)], "stale", "no frames for 1.2 s"),
        ([fresh(), clean, broken(0.1)], "faulty", "gap; 10 % of a clean window"),
        ([fresh(), clean, broken(0.1, "gap")], "faulty", "gap; 10 % of a clean window"),
        (
            [fresh(), clean, broken(0, "clock step")],
            "faulty",
            "clock step; 0 % of a clean window",
        ),
        (
            [fresh(), clean, look(2000), fresh(2100), broken(0.5)],
            "stale",
            "no frames for 2.0 s; back with 50 % of a clean window",
        ),
        (
            [fresh(), clean, lie, broken(0.25), broken(0.75)],
            "faulty",
            "channel x flat; back with 75 % of a clean window",
        ),
        (
            [fresh(), clean, broken(0.2, "gap"), broken(0.6, "gap")],
            "faulty",
            "gap; back with 60 % of a clean window",
        ),
        (
            [fresh(), clean, look(2000), fresh(2100), look(2200), clean],
            "alive",
            "frames on time and plausible",
        ),
    ],
)
def test_a_sensors_state_follows_from_what_happened(
    events: list[Event], state: State, reason: str
) -> None:
    live = Liveness(SPEC)
    for event in events:
        event(live)
    assert (live.state, live.reason) == (state, reason)
    assert live.alive == (state == "alive")


@pytest.mark.parametrize("away", [look(2000), lie, broken(0.3, "gap")])
def test_frames_alone_do_not_bring_a_sensor_back(away: Event) -> None:
    live = Liveness(SPEC)
    for event in (fresh(), clean, away):
        event(live)
    left = live.state
    for t in range(2000, 4000, 100):
        live.fresh(NOW_NS + t * MS)
        live.silence(NOW_NS + t * MS)
        assert live.state == left
    live.clean_window()
    assert live.alive


def test_looking_at_a_sensor_does_not_refresh_it() -> None:
    live = Liveness(SPEC)
    live.fresh(NOW_NS)
    live.clean_window()
    for t in range(0, 1200, 10):
        live.silence(NOW_NS + t * MS)
        assert live.alive
    live.silence(NOW_NS + 1201 * MS)
    assert live.state == "stale"
