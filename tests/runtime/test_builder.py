"""runtime.builder: missing engines are built beside a server that answers, and swapped in."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from export import sign
from robult_edge import bundle, nvidia, signature
from robult_edge.bundle import Bundle
from robult_edge.errors import EngineError
from runtime import builder, enginecache, status
from runtime.config import Config
from tests.conftest import ROOT
from tests.runtime import standin
from tests.runtime.live import Stage, staged
from tests.runtime.standin import HERE, StandIn
from tests.runtime.test_tensorrt import give_engines

WARM_UP = 6
BUILD = """
import os, sys
from pathlib import Path
from tests.runtime.test_tensorrt import give_engines
assert os.nice(0) == 19, os.nice(0)
assert sys.argv[1:] == ["--bundle", sys.argv[2], "--flavour", "trt"]
print("acc: building …", flush=True)
give_engines(Path(sys.argv[2]))
"""
"""Stands in for export.tensorrt: engines of the stand-in, which are the graphs themselves."""


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    return standin.install(monkeypatch)


@pytest.fixture
def copy(shipped: Bundle, tmp_path: Path) -> Bundle:
    """The shipped bundle, in a place where it may change."""
    shutil.copytree(shipped.path, tmp_path / "engines")
    return bundle.load(tmp_path)


@pytest.fixture
def stage(gpu: StandIn, copy: Bundle, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """At work on ONNX Runtime."""
    with staged(copy, monkeypatch, "cpu") as stage:
        assert stage.play(WARM_UP)[-1].alive == ["acc", "gyro"]
        yield stage


def built_by(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(builder, "COMMAND", (sys.executable, "-c", script))


def finish(stage: Stage) -> str:
    """Turn the loop until the builder is done; what it says."""
    work = stage.server.builder._thread
    while work.is_alive():
        stage.server.turn(0.001)
    return status.status(stage.server)["builder"]


def labels(stage: Stage) -> set[str]:
    return {graph.label for graph in stage.server.serving.engines.graphs}


def test_server_answers_at_once_and_its_engines_come_later(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    built_by(BUILD, monkeypatch)
    seq = stage.latest.seq
    stage.server.builder.start()
    assert labels(stage) == {"cpu"}
    with caplog.at_level("INFO", "robult.builder"):
        assert finish(stage) == "built for acc, gyro, fusion head"
    assert "building: acc: building …" in caplog.messages
    assert labels(stage) == {"tensorrt-fp32"}
    answers = stage.play(3)
    assert [a.seq for a in answers] == [seq + 1, seq + 2, seq + 3]
    assert all(a.alive == ["acc", "gyro"] for a in answers)


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("import sys; sys.exit('acc: TensorRT said no')", "failed: acc: TensorRT said no"),
        ("import sys; sys.exit(3)", "failed: the build ended with 3"),
        ("import os; os.kill(os.getpid(), 9)", "failed: the build ended with -9"),
        ("", "failed: no engine fits this machine"),
    ],
)
def test_server_goes_on_when_nothing_can_be_built(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, script: str, says: str
) -> None:
    built_by(script, monkeypatch)
    stage.server.builder.start()
    assert finish(stage) == says
    assert labels(stage) == {"cpu"}
    assert stage.play(1)[0].alive == ["acc", "gyro"]


def test_engines_that_answer_wrongly_are_built_and_not_served(
    stage: Stage, gpu: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    built_by(BUILD, monkeypatch)
    gpu.off = 0.5
    stage.server.builder.start()
    finish(stage)
    acc = stage.server.serving.engines.branches[0]
    assert acc.choice.startswith("cpu (tensorrt-fp32: off its golden vectors by 0.")


def test_nothing_is_built_that_is_there(
    gpu: StandIn, copy: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    built_by("raise SystemExit('never run')", monkeypatch)
    with staged(give_engines(copy.path), monkeypatch, "cpu") as stage:
        stage.server.builder.start()
        assert finish(stage).startswith("nothing to build")


@pytest.fixture
def key(copy: Bundle, tmp_path: Path) -> str:
    """The public key that the bundle is signed for."""
    public = signature.new_key(tmp_path / "maker")
    assert sign.main(["--bundle", str(copy.path), "--key", str(tmp_path / "maker")]) == 0
    return str(public)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("demanded", [True, False])
def test_a_signed_bundle_is_left_as_it_was_signed(
    gpu: StandIn, copy: Bundle, key: str, monkeypatch: pytest.MonkeyPatch, demanded: bool
) -> None:
    before = contents(copy.path)
    built_by(BUILD, monkeypatch)
    with staged(copy, monkeypatch, "cpu", bundle_key=key if demanded else None) as stage:
        stage.server.builder.start()
        assert finish(stage) == (
            "off: engines would change the signed manifest; serve with --engine-cache DIR, or "
            "build with python -m export.tensorrt and sign again"
        )
    assert contents(copy.path) == before


def test_a_signed_bundles_engines_are_built_in_the_cache_and_served_from_there(
    gpu: StandIn, copy: Bundle, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, cache = contents(copy.path), tmp_path / "cache"
    built_by(BUILD, monkeypatch)
    options = {"bundle_key": key, "engine_cache": str(cache)}
    with staged(copy, monkeypatch, "cpu", **options) as stage:
        stage.play(WARM_UP)
        stage.server.builder.start()
        assert finish(stage) == "built for acc, gyro, fusion head"
        assert labels(stage) == {"tensorrt-fp32"}
        assert stage.play(1)[0].alive == ["acc", "gyro"]
    assert contents(copy.path) == before
    again = enginecache.load(Config(str(copy.path), **options))
    assert builder.lacking(again, HERE) == [], "a restart finds them"


def test_a_bundle_that_cannot_be_written_is_left_alone(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    built_by(BUILD, monkeypatch)
    monkeypatch.setattr("os.access", lambda *_: False)
    stage.server.builder.start()
    assert finish(stage) == (
        f"off: {stage.server.config.engines} cannot be written; serve with --engine-cache DIR, or "
        "build with python -m export.tensorrt"
    )


@pytest.mark.parametrize("missing", ["tensorrt", "pycuda.driver"])
def test_nothing_is_built_that_could_not_run(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    built_by(BUILD, monkeypatch)
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    stage.server.builder.start()
    assert finish(stage).startswith(f"off: {missing.partition('.')[0]} ")


def test_without_a_gpu_no_thread_is_started(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise EngineError("no CUDA driver here")

    monkeypatch.setattr(nvidia, "gpu", absent)
    stage.server.builder.start()
    assert stage.server.builder._thread.ident is None
    assert status.status(stage.server)["builder"] == "off: no CUDA driver here"


def test_stopping_ends_the_build(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    built_by("print('slow', flush=True); import time; time.sleep(60)", monkeypatch)
    work = stage.server.builder
    work.start()
    while work.said != "building: slow":
        stage.server.turn(0.001)
    work.stop()
    assert not work._thread.is_alive()
    assert work.said == "stopped"


def test_an_engine_that_is_damaged_is_built_again(
    stage: Stage, copy: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    built_by(BUILD, monkeypatch)
    give_engines(copy.path)
    (copy.path / "gyro.plan").write_bytes(b"half a cop")
    (copy.path / "acc.plan").unlink()
    stage.server.builder.start()
    assert finish(stage) == "built for acc, gyro"
    assert labels(stage) == {"tensorrt-fp32"}


def test_an_engine_of_any_precision_will_do_and_one_for_another_gpu_will_not(
    copy: Bundle,
) -> None:
    assert builder.lacking(copy, HERE) == ["acc", "gyro", "fusion head"]
    thor = nvidia.target("trt", "10.3.0", nvidia.Gpu("11.0", "Thor"))
    given = give_engines(copy.path, target=thor)
    assert builder.lacking(given, HERE) == ["acc", "gyro", "fusion head"]
    assert builder.lacking(given, thor) == []
