"""What many tests stand on: the shipped bundle, real held-out recordings, and native/ built."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
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


def run(*command: str | Path) -> str:
    """What a program prints; it must succeed."""
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def cmake() -> Path:
    here = Path(sys.executable).parent  # where the cmake package puts its programs
    found = shutil.which("cmake") or shutil.which("cmake", path=str(here))
    if found is None:
        pytest.skip("no cmake; pip install cmake")
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("no C++ compiler")
    return Path(found)


@pytest.fixture(scope="session")
def build(cmake: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with native/ built in it."""
    folder = tmp_path_factory.mktemp("native")
    run(cmake, "-S", ROOT, "-B", folder)
    run(cmake, "--build", folder, "--parallel", "2")
    return folder
