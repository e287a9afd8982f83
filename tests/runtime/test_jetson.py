"""runtime.jetson: a Jetson is read from files and nvpmodel, and nothing else is taken for one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime import jetson
from runtime.jetson import Clock

RELEASE = "# R36 (release), REVISION: 4.0, GCID: 37537400, BOARD: generic, EABI: aarch64\n"


def write(root: Path, files: dict[str, object]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{content}\n")


def orin(root: Path) -> Path:
    """The files of a Jetson Orin whose GPU is held and whose CPU is not."""
    cpu, gpu = "sys/devices/system/cpu/cpufreq/policy0", "sys/class/devfreq/17000000.gpu"
    write(root, {jetson.RELEASE: RELEASE})
    for which, khz, hz in (("cur", 729600, 918000000), ("min", 729600, 918000000)):
        write(root, {f"{cpu}/scaling_{which}_freq": khz, f"{gpu}/{which}_freq": hz})
    write(root, {f"{cpu}/scaling_max_freq": 1984000, f"{gpu}/max_freq": 918000000})
    return root


def nvpmodel(folder: Path, monkeypatch: pytest.MonkeyPatch, says: str) -> None:
    """A program of that name which says that, before all others."""
    program = folder / "nvpmodel"
    program.write_text(f'#!/bin/sh\n[ "$1" = -q ] && printf "{says}"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_the_release_is_read(tmp_path: Path) -> None:
    assert jetson.release(orin(tmp_path)) == "R36.4.0"


def test_a_release_that_reads_otherwise_is_a_jetson_all_the_same(tmp_path: Path) -> None:
    write(tmp_path, {jetson.RELEASE: "# something new"})
    assert jetson.release(tmp_path) == "unknown"


def test_another_machine_is_no_jetson(tmp_path: Path) -> None:
    assert jetson.release(tmp_path) is None
    assert jetson.clocks(tmp_path) == []


def test_clocks_are_in_mhz(tmp_path: Path) -> None:
    assert jetson.clocks(orin(tmp_path)) == [
        Clock("policy0", 729.6, 729.6, 1984.0),
        Clock("17000000.gpu", 918.0, 918.0, 918.0),
    ]


def test_a_clock_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    write(orin(tmp_path), {"sys/class/devfreq/17000000.gpu/max_freq": "?"})
    assert [clock.name for clock in jetson.clocks(tmp_path)] == ["policy0"]


@pytest.mark.parametrize(
    ("says", "mode"),
    [
        ("NV Power Mode: MAXN_SUPER\\n2\\n", "MAXN_SUPER (2)"),
        ("NV Fan Mode:quiet\\nNV Power Mode: 15W\\n0\\n", "15W (0)"),
        ("permission denied\\n", None),
    ],
)
def test_the_power_mode_is_what_nvpmodel_says(
    says: str, mode: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvpmodel(tmp_path, monkeypatch, says)
    assert jetson.power_mode() == mode


def test_without_nvpmodel_there_is_no_power_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert jetson.power_mode() is None
