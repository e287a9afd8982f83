"""What many tests stand on: the shipped bundle, and real held-out recordings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from robult_edge import bundle, data
from robult_edge.bundle import Bundle
from robult_edge.data.replay import Replay, replays

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shipped() -> Bundle:
    """The bundle under export/engines/."""
    return bundle.load(ROOT / "export")


@pytest.fixture(scope="session")
def replay() -> Replay:
    """One held-out subject's recordings of `watch`."""
    return replays(data.load("watch"))[0]


@pytest.fixture(scope="session")
def benchmark_data() -> Path:
    """Folder of the benchmark data sets, which are not part of the project."""
    here = Path(os.environ.get("ROBULT_DATA", ROOT.parent / "shared" / "data"))
    if not (here / "hydraulic.npz").exists():
        pytest.skip(f"no hydraulic.npz in {here}; name its folder in $ROBULT_DATA")
    return here
