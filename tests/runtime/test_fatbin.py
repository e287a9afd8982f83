"""runtime.fatbin: the kernels are found in a checkout, in an installed wheel, or where one says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from robult_edge.errors import EngineError
from runtime import checkup, fatbin
from tests.conftest import ROOT, run

FIND = "from runtime import fatbin; print(fatbin.find())"


def test_what_is_named_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = tmp_path / "mine.fatbin"
    named.write_bytes(b"kernels")
    monkeypatch.setenv(fatbin.VARIABLE, str(named))
    assert fatbin.find() == named


def test_where_there_are_none_the_doctor_says_where_it_looked_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = tmp_path / "none.fatbin"
    monkeypatch.setenv(fatbin.VARIABLE, str(nowhere))
    with pytest.raises(EngineError, match=r"none\.fatbin is not there; make native"):
        fatbin.find()
    (found,) = (f for f in checkup.accelerators() if f.name == "native fatbin")
    assert (found.state, found.said) == ("lacking", f"no kernels: {nowhere} is not there")
    assert found.mend.startswith("make native, where nvcc is, or name their file in ROBULT_FATBIN")
    nowhere.write_bytes(bytes(5000))
    (found,) = (f for f in checkup.accelerators() if f.name == "native fatbin")
    assert (found.state, found.said) == ("ok", f"{nowhere}, 5 kB")


def test_cmake_installs_them_where_they_are_looked_for(
    cmake: Path, build: Path, tmp_path: Path
) -> None:
    if not (build / "robult_native.fatbin").exists():
        pytest.skip("no nvcc: no kernels are built here")
    run(cmake, "--install", build, "--prefix", tmp_path)
    assert [p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file()] == [
        fatbin.PACKAGED.relative_to(ROOT)
    ]


def test_a_wheel_brings_them_along(tmp_path: Path) -> None:
    checkout, site = tmp_path / "checkout", tmp_path / "site"
    for folder in ("robult_edge", "runtime"):
        shutil.copytree(ROOT / folder, checkout / folder)
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, checkout)
    (checkout / fatbin.PACKAGED.relative_to(ROOT)).write_bytes(b"kernels")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site)]
    done = subprocess.run([*pip, str(checkout)], capture_output=True, text=True)
    if done.returncode and "No matching distribution" in done.stderr:
        pytest.skip("no package index within reach")
    assert done.returncode == 0, done.stderr
    elsewhere = {k: v for k, v in os.environ.items() if k != fatbin.VARIABLE}
    found = subprocess.run(
        [sys.executable, "-c", FIND], cwd=site, capture_output=True, text=True,
        env=elsewhere | {"PYTHONPATH": str(site)},
    )  # fmt: skip
    assert Path(found.stdout.strip()) == site / "runtime" / fatbin.PACKAGED.name, found.stderr
