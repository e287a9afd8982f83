"""The edge stays light: ``pip install .`` serves with neither torch nor onnx, and is small."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

from robult_edge.bundle import Bundle
from robult_edge.data.replay import Replay
from tests.conftest import ROOT
from tests.failures.live import PATIENT, playing, serving


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with ``pip install .`` and nothing else."""
    where = tmp_path_factory.mktemp("edge")
    venv.create(where, with_pip=True)
    pip = [str(where / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    done = subprocess.run([*pip, *constraints, str(ROOT)], capture_output=True, text=True)
    if done.returncode and "No matching distribution" in done.stderr:
        pytest.skip("no package index within reach")
    assert done.returncode == 0, done.stderr
    return where


def test_runtime_serves_without_torch_or_onnx(edge: Path, shipped: Bundle, replay: Replay) -> None:
    python = edge / "bin" / "python"
    look = "from importlib.util import find_spec as f; print([m for m in {!r} if f(m)])"
    heavy = ("torch", "onnx", "scipy", "matplotlib", "rich")
    found = subprocess.run([python, "-c", look.format(heavy)], capture_output=True, text=True)
    assert found.stdout.strip() == "[]", found.stderr
    with serving(shipped.path, *PATIENT, python=str(python)) as served:
        with playing(served, replay) as player:
            player.play(6)
        answer = served.wait_for(lambda r: bool(r.alive))
    assert answer.label in shipped.manifest.classes


def test_edge_install_is_small(edge: Path) -> None:
    (packages,) = edge.glob("lib/python*/site-packages")
    tools = ("pip", "setuptools", "pkg_resources", "_distutils_hack")
    brought = [p for p in packages.iterdir() if not p.name.startswith(tools)]
    files = [f for p in brought for f in ([p] if p.is_file() else p.rglob("*")) if f.is_file()]
    # Bytecode is Python's cache, not the install: pip install --no-compile leaves it out.
    size = sum(f.stat().st_size for f in files if f.suffix != ".pyc")
    assert size <= 150e6, f"{size / 1e6:.0f} MB"


@pytest.mark.parametrize("module", ["runtime.serve", "runtime.simulate", "runtime.doctor"])
def test_edge_imports_neither_training_nor_export(module: str) -> None:
    """Import alone, in a process of its own, and see what came with it."""
    check = (
        f"import sys, {module}; "
        "print([m for m in ('torch', 'onnx', 'scipy', 'train', 'export') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr
