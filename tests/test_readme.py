"""Every code block of the README and of docs/PROTOCOL.md does what it says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from robult_edge import bundle, data, results
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.M | re.S)
ENVIRONMENT = os.environ | {
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "PYTHONPATH": str(ROOT),
}


def blocks(language: str, containing: str = "") -> list[str]:
    """The README's blocks in a language, those that contain a text."""
    return [code for kind, code in BLOCKS if kind == language and containing in code]


def run(command: list[str], where: Path, timeout_s: float = 300) -> str:
    """Output of a command that must succeed."""
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=where, env=ENVIRONMENT, timeout=timeout_s
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_block_is_of_a_kind_that_is_tested_here() -> None:
    assert {kind for kind, _ in BLOCKS} == {"bash", "python", "toml", "json", "c", "text"}


@pytest.mark.parametrize("code", blocks("bash", "make "))
def test_make_targets_exist(code: str) -> None:
    """make demo and make test themselves would run this test again: their recipes are shown."""
    run([*code.split(), "--dry-run"], ROOT)


def test_sixty_second_tour() -> None:
    (tour,) = blocks("bash", "runtime.serve")
    shown = run(["bash", "-c", f"set -m; {tour}"], ROOT)
    assert "alive" in shown
    assert "expected accuracy" in shown


def test_the_doctor_finds_that_the_shipped_bundle_can_be_served() -> None:
    (ask,) = blocks("bash", "runtime.doctor")
    assert run(ask.split(), ROOT).endswith("can be served here\n")


def test_commands_in_the_text_name_real_programs() -> None:
    for module in re.findall(r" -m ([\w.]+)", "\n".join(blocks("text"))):
        assert "usage" in run([sys.executable, "-m", module, "--help"], ROOT)


def test_engines_are_built_without_a_gpu(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="pip install 'robult-edge[rtx]'")
    (build,) = blocks("bash", "export.tensorrt")
    shutil.copytree(ROOT / "export" / "engines", tmp_path / "export" / "engines")
    run(["bash", "-c", build], tmp_path)
    manifest = bundle.load(tmp_path / "export").manifest
    assert [len(g.engines) for g in (*manifest.branches, manifest.head)] == [2, 2, 2]


@pytest.mark.parametrize("code", blocks("python", "zmq") + blocks("python", "SensorPublisher"))
def test_sensor_and_consumer_in_python(code: str, tmp_path: Path) -> None:
    run([sys.executable, "-c", code], tmp_path)


def test_result_is_one() -> None:
    (shown,) = blocks("json")
    result = results.decode([b"", shown.encode()])
    assert result.decision == "degraded"
    assert abs(sum(result.probabilities.values()) - 1) < 1e-9


def test_header_in_c_is_the_compiled_one() -> None:
    (shown,) = blocks("c")
    assert shown in (ROOT / "examples" / "robult_frame.h").read_text()


def test_your_own_data_becomes_a_bundle(tmp_path: Path) -> None:
    (make,) = blocks("python", "np.savez")
    (spec,) = blocks("toml", "# mine.toml")
    (commands,) = blocks("bash", "mine.toml")
    run([sys.executable, "-c", make], tmp_path)
    (tmp_path / "mine.toml").write_text(spec)
    run(["bash", "-ec", commands], tmp_path)
    made = bundle.load(tmp_path / "runs" / "mine-bundle").manifest
    assert made.classes == ("idle", "drill", "mill")
    assert made.names == ("force", "motor")
    accuracy = {entry.alive: entry.expected.accuracy for entry in made.tables["pool"]}
    assert accuracy["force", "motor"] > 0.5, "a third would be a guess"


@pytest.mark.parametrize(
    ("task", "truth", "columns"),
    [("multilabel", "np.eye(3, dtype=int)[label][:, :2]", 2), ("regression", "0.5 * label", 1)],
)
def test_other_questions_can_be_asked_of_your_own_data(
    tmp_path: Path, task: str, truth: str, columns: int
) -> None:
    (make,) = blocks("python", "np.savez")
    (spec,) = blocks("toml", "# mine.toml")
    (question,) = blocks("toml", f'task = "{task}"')
    classes = 'classes = ["idle", "drill", "mill"]\n'
    assert classes in spec
    assert "label=label," in make
    run([sys.executable, "-c", make.replace("label=label,", f"label={truth},")], tmp_path)
    (tmp_path / "mine.toml").write_text(spec.replace(classes, question))
    asked = data.load(str(tmp_path / "mine.toml"))
    assert asked.task == task
    assert asked.y.shape == (240, columns)
