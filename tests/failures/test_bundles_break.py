"""A bundle that cannot be trusted: one sentence, exit code 2; an engine: it is left out, alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from export import sign
from robult_edge import signature
from robult_edge.bundle import Bundle
from robult_edge.data.replay import Replay
from tests.failures.live import PATIENT, playing, serving
from tests.runtime.test_tensorrt import with_engines


def no_graph(engines: Path) -> None:
    (engines / "acc.onnx").unlink()


def bit_flipped(engines: Path) -> None:
    content = bytearray((engines / "gyro.onnx").read_bytes())
    content[1000] ^= 1
    (engines / "gyro.onnx").write_bytes(content)


def from_the_future(engines: Path) -> None:
    manifest = json.loads((engines / "manifest.json").read_text())
    (engines / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))


def half_copied(engines: Path) -> None:
    (engines / "manifest.json").unlink()


def not_json(engines: Path) -> None:
    (engines / "manifest.json").write_bytes(b"\xff\xfe{")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (no_graph, "acc.onnx: missing; copy the whole bundle again"),
        (bit_flipped, "gyro.onnx: sha256 is"),
        (from_the_future, "format is 99, this version reads 1"),
        (half_copied, "no manifest.json there"),
        (not_json, "manifest.json: not JSON"),
    ],
)
def test_damaged_bundle_is_refused_in_one_sentence(
    shipped: Bundle, tmp_path: Path, damage: Callable[[Path], None], sentence: str
) -> None:
    shutil.copytree(shipped.path, tmp_path / "engines")
    damage(tmp_path / "engines")
    done = subprocess.run(
        [sys.executable, "-m", "runtime.serve", "--engines", str(tmp_path)],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 2
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""


def no_plan(engines: Path) -> None:
    (engines / "gyro.plan").unlink()


def exchanged(engines: Path) -> None:
    (engines / "gyro.plan").write_bytes((engines / "acc.plan").read_bytes())


@pytest.mark.parametrize(
    ("damage", "says"), [(no_plan, "gyro.plan: missing"), (exchanged, "gyro.plan: sha256 is")]
)
@pytest.mark.parametrize("signed", [False, True])
def test_a_damaged_engine_is_left_out_and_every_sensor_answers(
    shipped: Bundle,
    replay: Replay,
    tmp_path: Path,
    damage: Callable[[Path], None],
    says: str,
    signed: bool,
) -> None:
    path = with_engines(shipped, tmp_path).path
    options = list(PATIENT)
    if signed:
        public = signature.new_key(tmp_path / "maker")
        assert sign.main(["--bundle", str(path), "--key", str(tmp_path / "maker")]) == 0
        options += ["--bundle-key", str(public)]
    damage(path)
    with serving(path, *options) as served:
        with playing(served, replay) as player:
            player.play(6)
        answer = served.wait_for(lambda r: len(r.alive) == 2)
        engines = served.status()["engines"]
        assert served.stop() == 0
    assert answer.label in shipped.manifest.classes
    assert engines["gyro"].startswith("onnxruntime-cpu (tensorrt-fp32: ")
    assert says in engines["gyro"]
    assert ".plan" not in engines["acc"]
