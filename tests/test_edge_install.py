"""The edge stays light: ``pip install .`` serves with neither torch nor onnx, and is small."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from robult_edge.bundle import Bundle
from tests.conftest import ROOT

SERVE = """
import sys
from importlib.util import find_spec

heavy = [name for name in ("torch", "onnx", "scipy", "matplotlib", "rich") if find_spec(name)]
assert not heavy, heavy
from robult_edge import bundle
from robult_edge.frames import Frame
from runtime.config import Config
from runtime.server import Server

engines, any_port = sys.argv[1], "tcp://127.0.0.1:*"


class Clock:
    speed = 1.0
    now = 10**18

    def now_ns(self):
        return self.now


clock = Clock()
server = Server(Config(engines, frames=any_port, results=any_port), bundle.load(engines), clock)
choices = server.engines.choices
assert all(choice.startswith("onnxruntime-cpu") for choice in choices.values()), choices
golden = bundle.load(engines).golden()
for seq, hops in enumerate((4, 1)):
    clock.now += hops * server.manifest.hop_ns
    for m in server.manifest.modalities:
        samples = golden[f"x.{m.name}"][seq].T[: hops * m.hop]
        begun = clock.now - len(samples) * m.period_ns
        server.rigs.place(Frame(m.name, "rig", seq, begun, samples), clock.now)
server.turn()
assert server.published == 1
server.close()
print("served")
"""


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


def test_runtime_serves_without_torch_or_onnx(edge: Path, shipped: Bundle, tmp_path: Path) -> None:
    done = subprocess.run(
        [edge / "bin" / "python", "-c", SERVE, str(shipped.path)],
        capture_output=True, text=True, cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTHON")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "served"


def test_edge_install_is_small(edge: Path) -> None:
    (packages,) = edge.glob("lib/python*/site-packages")
    tools = ("pip", "setuptools", "pkg_resources", "_distutils_hack")
    brought = [p for p in packages.iterdir() if not p.name.startswith(tools)]
    files = [f for p in brought for f in ([p] if p.is_file() else p.rglob("*")) if f.is_file()]
    # Bytecode is Python's cache, not the install: pip install --no-compile leaves it out.
    size = sum(f.stat().st_size for f in files if f.suffix != ".pyc")
    assert size <= 150e6, f"{size / 1e6:.0f} MB"


@pytest.mark.parametrize("module", ["runtime.serve", "runtime.simulate"])
def test_edge_imports_neither_training_nor_export(module: str) -> None:
    """Import alone, in a process of its own, and see what came with it."""
    check = (
        f"import sys, {module}; "
        "print([m for m in ('torch', 'onnx', 'scipy', 'train', 'export') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr
