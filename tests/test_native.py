"""native/ without a GPU: builds, passes its own tests, and agrees with NumPy."""

from __future__ import annotations

import ctypes
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from robult_edge.fusion import Rule
from robult_edge.task import Task
from tests.conftest import run
from tests.native.cases import BLOCK, Argument, FusionCase, Place, WindowCase

FATBIN_MAGIC, PTX, ELF = 0xBA55ED50, 1, 2


class Local:
    """A `tests.native.cases.Machine` in this process's own memory."""

    def __init__(self, call: Callable[[str, tuple[int, int], tuple[Argument, ...]], None]) -> None:
        self._call = call

    def run(
        self, name: str, grid: tuple[int, int], arguments: Callable[[Place], tuple[Argument, ...]]
    ) -> None:
        kept = []

        def place(array: np.ndarray) -> int:
            kept.append(array)
            return array.ctypes.data

        self._call(name, grid, arguments(place))


def load(build: Path, name: str) -> ctypes.CDLL:
    suffix = {"darwin": "dylib"}.get(sys.platform, "so")
    return ctypes.CDLL(str(build / f"librobult_{name}.{suffix}"))


@pytest.fixture(scope="session")
def host(build: Path) -> Local:
    """The host library."""
    library = load(build, "native")

    def call(name: str, _grid: tuple[int, int], arguments: tuple[Argument, ...]) -> None:
        if getattr(library, name)(*arguments) != 0:
            raise ValueError(f"{name}: a size is out of range")

    return Local(call)


@pytest.fixture(scope="session")
def emulated(build: Path) -> Local:
    """The kernels, their lanes played by threads."""
    library = load(build, "emulated")

    def call(name: str, grid: tuple[int, int], arguments: tuple[Argument, ...]) -> None:
        getattr(library, name.replace("robult", "emulated"))(*grid, BLOCK, *arguments)

    return Local(call)


def test_passes_its_own_tests(cmake: Path, build: Path) -> None:
    ctest = cmake.with_name("ctest")
    assert "100% tests passed" in run(ctest, "--test-dir", build, "--output-on-failure")


@pytest.mark.parametrize("rule", ["pool", "mean"])
@pytest.mark.parametrize("scale", [3, 80])
@pytest.mark.parametrize("seed", range(20))
def test_fusion_agrees_with_numpy(host: Local, seed: int, scale: float, rule: Rule) -> None:
    FusionCase(seed, scale, rule).check(host)


@pytest.mark.parametrize("rule", ["pool", "mean"])
@pytest.mark.parametrize("task", ["multilabel", "regression"])
@pytest.mark.parametrize("seed", range(10))
def test_labels_and_values_are_fused_as_numpy_does(
    host: Local, seed: int, task: Task, rule: Rule
) -> None:
    FusionCase(seed, 3, rule, task=task).check(host)


@pytest.mark.parametrize("rule", ["pool", "mean"])
def test_logits_at_both_ends(host: Local, rule: Rule) -> None:
    case = FusionCase(0, 80, rule)
    case.logits[:] = np.sign(case.logits) * 80
    case.check(host)


@pytest.mark.parametrize("rule", ["pool", "mean"])
def test_what_is_dead_is_never_read(host: Local, rule: Rule) -> None:
    case = FusionCase(1, 3, rule)
    case.logits[~case.listened()] = np.nan
    case.check(host)


@pytest.mark.parametrize("rule", ["pool", "mean"])
def test_nothing_alive_is_no_answer(host: Local, rule: Rule) -> None:
    FusionCase(2, 3, rule).check_nothing_alive(host)


@pytest.mark.parametrize(("size", "value"), [("m", 0), ("m", 13), ("m", -1), ("k", 0)])
def test_fusion_refuses_sizes_out_of_range(host: Local, size: str, value: int) -> None:
    case = FusionCase(3, 3, "pool")
    setattr(case, size, value)
    with pytest.raises(ValueError, match="robult_fuse: a size is out of range"):
        case.run(host)
    assert (case.p == -1).all()
    assert (case.top == -2).all()


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_gather_agrees_with_numpy(host: Local, seed: int, normalised: bool) -> None:
    WindowCase(seed).check_gather(host, normalised)


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_statistics_agree_with_numpy(host: Local, seed: int, broken: bool) -> None:
    WindowCase(seed, broken).check_measure(host)


@pytest.mark.parametrize(("samples", "capacity"), [(0, 9), (-1, 9), (10, 9), (1, 0)])
def test_windows_refuse_sizes_out_of_range(host: Local, samples: int, capacity: int) -> None:
    case = WindowCase(3)
    case.samples, case.capacity = samples, capacity
    with pytest.raises(ValueError, match="robult_measure: a size is out of range"):
        case.measure(host)


@pytest.mark.parametrize("rule", ["pool", "mean"])
@pytest.mark.parametrize("task", ["multilabel", "regression"])
@pytest.mark.parametrize("seed", range(2))
def test_emulated_labels_and_values_are_fused_as_numpy_does(
    emulated: Local, seed: int, task: Task, rule: Rule
) -> None:
    FusionCase(seed, 3, rule, task=task, batch=5).check(emulated)


@pytest.mark.parametrize("rule", ["pool", "mean"])
@pytest.mark.parametrize("seed", range(3))
def test_emulated_kernels_agree_with_numpy(emulated: Local, seed: int, rule: Rule) -> None:
    FusionCase(seed, 80, rule, batch=5).check(emulated)
    case = WindowCase(seed, broken=True, batch=3)
    case.check_gather(emulated, normalised=rule == "pool")
    case.check_measure(emulated)


def fatbin_contents(data: bytes) -> dict[int, set[int]]:
    """Compute capabilities in a fatbin by kind, as `cuobjdump --list-elf --list-ptx` reads them.

    A 16-byte header (magic, version, header size, body size), then entries whose own header
    gives kind, header size, body size and, 28 bytes in, the architecture.
    """
    magic, _version, at, _size = struct.unpack_from("<IHHQ", data)
    assert magic == FATBIN_MAGIC
    found: dict[int, set[int]] = {}
    while at < len(data):
        kind, _version, header, body = struct.unpack_from("<HHIQ", data, at)
        found.setdefault(kind, set()).add(struct.unpack_from("<I", data, at + 28)[0])
        at += header + body
    return found


def test_fatbin_holds_what_nvcc_knows_and_ptx_for_the_rest(build: Path) -> None:
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if nvcc is None:
        pytest.skip("no nvcc: no kernels are built here")
    known = run(nvcc, "--list-gpu-code").split()
    data = (build / "robult_native.fatbin").read_bytes()
    assert fatbin_contents(data) == {
        ELF: {a for a in (87, 90, 100, 110, 120) if f"sm_{a}" in known},
        PTX: {75},
    }
