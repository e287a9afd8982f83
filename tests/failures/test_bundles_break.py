"""A bundle that cannot be trusted: one sentence, exit code 2."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from robult_edge.bundle import Bundle


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
