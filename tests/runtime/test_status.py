"""runtime.status: started, alive, ready, and why not."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
import pytest

from robult_edge import native
from robult_edge.bundle import Bundle
from runtime import status
from tests.runtime.live import MS, Stage, staged


@pytest.fixture
def stage(shipped: Bundle, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    with staged(shipped, monkeypatch, "cpu") as stage:
        yield stage


def throws() -> None:
    raise RuntimeError("device lost")


def nothing(stage: Stage) -> None:
    """The loop has not turned yet."""


def turn(stage: Stage) -> None:
    stage.play(6)


def lose_gyro(stage: Stage) -> None:
    turn(stage)
    stage.ills.of["cpu", "gyro"] = throws
    stage.play(1)


def lose_all(stage: Stage) -> None:
    turn(stage)
    stage.ills.of |= {("cpu", "acc"): throws, ("cpu", "gyro"): throws}
    stage.play(1)


def stand_still(stage: Stage) -> None:
    turn(stage)
    stage.clock.now += 3 * stage.server.manifest.hop_ns + MS


def stand_still_from_the_start(stage: Stage) -> None:
    stage.clock.now += 3 * stage.server.manifest.hop_ns + MS


def pause(stage: Stage) -> None:
    turn(stage)
    stage.clock.now += 3 * stage.server.manifest.hop_ns


def drain(stage: Stage) -> None:
    turn(stage)
    stage.server.stopping = True


@pytest.mark.parametrize(
    ("happens", "startup", "standstill", "unready"),
    [
        (nothing, "the loop has not turned yet", None, "the loop has not turned yet"),
        (turn, None, None, None),
        (lose_gyro, None, None, None),
        (lose_all, None, None, "no branch has an engine that works"),
        (stand_still, None, "the loop has not turned for 1.9 s", "the loop has not turned for"),
        (stand_still_from_the_start, "the loop has", "the loop has not turned for", "the loop"),
        (pause, None, None, None),
        (drain, None, None, "draining"),
    ],
)
def test_each_probe_says_what_is_wrong(
    stage: Stage,
    happens: Callable[[Stage], None],
    startup: str | None,
    standstill: str | None,
    unready: str | None,
) -> None:
    happens(stage)
    for got, want in (
        (status.startup(stage.server), startup),
        (status.standstill(stage.server), standstill),
        (status.unready(stage.server), unready),
    ):
        assert got is None if want is None else (got or "").startswith(want)


def test_degraded_is_ready_and_says_so(stage: Stage, shipped: Bundle) -> None:
    lose_gyro(stage)
    name = shipped.manifest.name
    assert status.ready(stage.server) == f"serving {name}; gyro engine failed: device lost"


def test_status_is_json_and_shows_the_newest_answer(stage: Stage) -> None:
    turn(stage)
    shown = msgspec.json.decode(msgspec.json.encode(status.status(stage.server)))
    assert shown["engines"] == {"acc": "cpu", "gyro": "cpu", "fusion head": "cpu"}
    assert shown["fusion"] == "pool"
    assert shown["answers"]["rig"]["seq"] == stage.latest.seq
    assert shown["answers"]["rig"]["label"] == stage.latest.label
    assert shown["sources"]["rig"]["acc"]["state"] == "alive"
    assert shown["reload"] is None


def test_status_says_why_the_hot_path_is_not_compiled(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "missing", "not built (no compiler)")
    assert status.status(stage.server)["native"] == "not built (no compiler)"
    monkeypatch.setattr(native, "missing", "")
    assert status.status(stage.server)["native"] == "built"


def test_status_of_few_of_many_rigs(stage: Stage) -> None:
    turn(stage)
    assert status.status(stage.server, sources=0)["sources"] == {}
    assert status.status(stage.server, sources=0)["rigs"] == 1
