"""A running server takes another bundle without losing a tick, and refuses a bad one."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from robult_edge import bundle
from robult_edge.bundle import Bundle
from robult_edge.data.replay import Replay
from tests.failures.live import PATIENT, TOKEN, Served, playing, serving
from tests.failures.test_sensors_die import holes


@pytest.fixture
def copy(shipped: Bundle, tmp_path: Path) -> Bundle:
    """The shipped bundle, in a place where it may change."""
    shutil.copytree(shipped.path, tmp_path / "engines")
    return bundle.load(tmp_path)


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    (tmp_path / "token").write_text(TOKEN)
    return [*PATIENT, "--http-token-file", str(tmp_path / "token")]


def rename(copy: Bundle, name: str) -> None:
    bundle.write_manifest(copy.path, msgspec.structs.replace(copy.manifest, name=name))


def last_reload(served: Served, after: object = None, timeout_s: float = 20.0) -> dict[str, Any]:
    """The newest reload, once it is another than ``after``."""
    give_up = time.monotonic() + timeout_s
    while time.monotonic() < give_up:
        last = served.status()["reload"]
        if last != after:
            return last
        time.sleep(0.05)
    raise AssertionError("no reload")


def test_reloads_under_load_cost_no_result(
    copy: Bundle, replay: Replay, options: list[str]
) -> None:
    codes = []
    with serving(copy.path, *options) as served, playing(served, replay) as player:

        def reload_again_and_again() -> None:
            for n in range(10):
                rename(copy, f"reload-{n}")
                codes.append(served.ask("/reload", "POST")[0])

        player.play(6)
        reloading = threading.Thread(target=reload_again_and_again)
        reloading.start()
        while reloading.is_alive():
            player.play(1)
        player.play(1)
        answer = served.wait_for(lambda r: r.bundle == "reload-9")
    assert codes == [200] * 10
    assert holes(served.answers) == []
    first_whole = next(i for i, a in enumerate(served.answers) if a.alive == ["acc", "gyro"])
    assert all(a.alive == ["acc", "gyro"] for a in served.answers[first_whole : answer.seq - 1])


def test_reloads_in_mode_latest_cost_no_result_and_repeat_none(
    copy: Bundle, replay: Replay, options: list[str], tmp_path: Path
) -> None:
    (tmp_path / "latest.toml").write_text('mode = "latest"')
    latest = ["--policy", str(tmp_path / "latest.toml")]
    with serving(copy.path, *options, *latest) as served, playing(served, replay) as player:
        player.play(6)
        for n in range(5):
            rename(copy, f"reload-{n}")
            assert served.ask("/reload", "POST")[0] == 200
            player.play(1)
        served.wait_for(lambda r: r.bundle == "reload-4" and r.alive == ["acc", "gyro"])
        player.play(1)
        served.read(0.5)
    assert holes(served.answers) == []
    answered = [a for a in served.answers if a.alive]
    newest = [max(p.t_ns for p in a.modalities.values() if p.t_ns) for a in answered]
    assert newest == sorted(newest)
    rests_on = [tuple(p.t_ns for p in a.modalities.values()) for a in answered]
    assert len(set(rests_on)) == len(rests_on), "no two results rest on the same windows"


def test_sighup_reloads(copy: Bundle, replay: Replay, options: list[str]) -> None:
    with serving(copy.path, *options) as served, playing(served, replay) as player:
        player.play(5)
        rename(copy, "next")
        served.process.send_signal(signal.SIGHUP)
        last = last_reload(served)
        player.play(2)
        served.wait_for(lambda r: r.bundle == "next")
    assert (last["ok"], last["asked_by"], last["bundle"]) == (True, "SIGHUP", "next")
    assert holes(served.answers) == []


def test_half_copied_bundle_is_refused_and_status_says_why(
    copy: Bundle, replay: Replay, options: list[str]
) -> None:
    """What a copy looks like that is still under way: a new graph, half of it there."""
    with serving(copy.path, *options) as served, playing(served, replay) as player:
        player.play(5)
        whole = (copy.path / "gyro.onnx").read_bytes()
        (copy.path / "gyro.onnx").write_bytes(whole[: len(whole) // 2])
        code, refused = served.ask("/reload", "POST")
        assert code == 422
        assert not refused["ok"]
        assert "gyro.onnx: sha256 is" in refused["error"]
        assert served.status()["reload"] == refused
        assert served.ask("/readyz")[0] == 200
        player.play(2)
        (copy.path / "gyro.onnx").write_bytes(whole)
        assert served.ask("/reload", "POST")[0] == 200
        assert served.status()["reload"]["error"] is None
    assert holes(served.answers) == []
    assert {a.bundle for a in served.answers} == {copy.manifest.name}
