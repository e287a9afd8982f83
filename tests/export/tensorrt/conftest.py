"""Real engines, built ahead of time by TensorRT for RTX; no GPU is needed."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType

import pytest

from robult_edge.bundle import Bundle
from robult_edge.golden import Graph, graphs


@pytest.fixture(scope="session")
def rtx() -> ModuleType:
    return pytest.importorskip("tensorrt_rtx", reason="pip install 'robult-edge[rtx]'")


@pytest.fixture(scope="session")
def shipped_graphs(shipped: Bundle) -> list[Graph]:
    return graphs(shipped)


@pytest.fixture
def copied(shipped: Bundle, tmp_path: Path) -> Path:
    """The shipped bundle, to be changed."""
    return shutil.copytree(shipped.path, tmp_path / "engines")
