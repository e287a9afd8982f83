"""native/: builds, passes its own test, and agrees with robult_edge.fusion."""

from __future__ import annotations

import ctypes
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from robult_edge import fusion

ROOT = Path(__file__).parents[1]
FATBIN_MAGIC, FATBIN_ELF = 0xBA55ED50, 2


def run(*command: str | Path) -> str:
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
    folder = tmp_path_factory.mktemp("native")
    run(cmake, "-S", ROOT, "-B", folder)
    run(cmake, "--build", folder, "--parallel", "2")
    return folder


@pytest.fixture(scope="session")
def library(build: Path) -> ctypes.CDLL:
    suffix = {"darwin": "dylib"}.get(sys.platform, "so")
    loaded = ctypes.CDLL(str(build / f"librobult_native.{suffix}"))
    floats, words = (np.ctypeslib.ndpointer(t, flags="C") for t in (np.float32, np.uint32))
    size = [ctypes.c_int] * 3
    loaded.robult_pool.argtypes = [floats, floats, floats, words, *size, floats]
    loaded.robult_mean.argtypes = [floats, floats, words, *size, floats]
    return loaded


class Case:
    """A random batch, as float32, and the NumPy reference for it in float64."""

    def __init__(self, seed: int, scale: float, batch: int = 50) -> None:
        rng = np.random.default_rng(seed)
        self.members = int(rng.integers(1, 9)) + 1  # M branches and the fusion head
        self.classes = int(rng.integers(2, 21))
        self.shape = (batch, self.members, self.classes)
        self.logits = rng.uniform(-scale, scale, self.shape).astype(np.float32)
        self.temperature = rng.uniform(0.3, 4, self.members).astype(np.float32)
        self.weights = rng.exponential(1, self.shape[:2]).astype(np.float32)
        self.alive = rng.integers(1, 1 << self.members, batch, dtype=np.uint32)
        self.mask = (self.alive[:, None] >> np.arange(self.members) & 1).astype(bool)
        self.p = np.full((batch, self.classes), -1, np.float32)

    @property
    def tempered(self) -> np.ndarray:
        return self.logits.astype(np.float64) / self.temperature[:, None]

    def pool(self) -> np.ndarray:
        w = np.where(self.mask, self.weights, 0).astype(np.float64)
        return np.stack([fusion.pool(y, v) for y, v in zip(self.tempered, w, strict=True)])

    def mean(self) -> np.ndarray:
        w = self.mask / self.mask.sum(1, keepdims=True)
        return np.stack([fusion.mean(y, v) for y, v in zip(self.tempered, w, strict=True)])

    def run_pool(self, library: ctypes.CDLL) -> np.ndarray:
        args = (self.logits, self.temperature, self.weights, self.alive, *self.shape, self.p)
        assert library.robult_pool(*args) == 0
        return self.p

    def run_mean(self, library: ctypes.CDLL) -> np.ndarray:
        args = (self.logits, self.temperature, self.alive, *self.shape, self.p)
        assert library.robult_mean(*args) == 0
        return self.p


def test_passes_its_own_test(cmake: Path, build: Path) -> None:
    ctest = cmake.with_name("ctest")
    assert "100% tests passed" in run(ctest, "--test-dir", build, "--output-on-failure")


@pytest.mark.parametrize("scale", [3, 80])
@pytest.mark.parametrize("seed", range(40))
def test_agrees_with_numpy(library: ctypes.CDLL, seed: int, scale: float) -> None:
    case = Case(seed, scale)
    np.testing.assert_allclose(case.run_pool(library), case.pool(), rtol=0, atol=1e-6)
    np.testing.assert_allclose(case.run_mean(library), case.mean(), rtol=0, atol=1e-6)


def test_logits_at_both_ends(library: ctypes.CDLL) -> None:
    case = Case(0, 80)
    case.logits[:] = np.sign(case.logits) * 80
    np.testing.assert_allclose(case.run_pool(library), case.pool(), rtol=0, atol=1e-6)
    np.testing.assert_allclose(case.run_mean(library), case.mean(), rtol=0, atol=1e-6)


def test_dead_members_are_never_read(library: ctypes.CDLL) -> None:
    case = Case(1, 3)
    pool, mean = case.pool(), case.mean()
    case.logits[~case.mask] = np.nan
    case.weights[~case.mask] = np.nan
    np.testing.assert_allclose(case.run_pool(library), pool, rtol=0, atol=1e-6)
    np.testing.assert_allclose(case.run_mean(library), mean, rtol=0, atol=1e-6)


def test_nothing_alive_is_nan(library: ctypes.CDLL) -> None:
    case = Case(2, 3)
    case.alive[::2] = 0
    for p in (case.run_pool(library).copy(), case.run_mean(library)):
        assert np.isnan(p[::2]).all()
        np.testing.assert_allclose(p[1::2].sum(1), 1, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "status"),
    [((0, 3, 4), 0), ((-1, 3, 4), -1), ((1, 0, 4), -1), ((1, 33, 4), -1), ((1, 3, 0), -1)],
)
def test_sizes_out_of_range_write_nothing(
    library: ctypes.CDLL, shape: tuple[int, int, int], status: int
) -> None:
    case = Case(3, 3)
    case.shape = shape
    pooled = (case.logits, case.temperature, case.weights, case.alive, *shape, case.p)
    assert library.robult_pool(*pooled) == status
    averaged = (case.logits, case.temperature, case.alive, *shape, case.p)
    assert library.robult_mean(*averaged) == status
    assert (case.p == -1).all()


def fatbin_architectures(data: bytes) -> set[int]:
    """Compute capabilities of the machine code in a fatbin, as `cuobjdump --list-elf` reads them.

    A 16-byte header (magic, version, header size, body size), then entries whose own header
    gives kind, header size, body size and, 28 bytes in, the architecture.
    """
    magic, _version, at, _size = struct.unpack_from("<IHHQ", data)
    assert magic == FATBIN_MAGIC
    found = set()
    while at < len(data):
        kind, _version, header, body = struct.unpack_from("<HHIQ", data, at)
        if kind == FATBIN_ELF:
            found.add(struct.unpack_from("<I", data, at + 28)[0])
        at += header + body
    return found


def test_fatbin_holds_what_nvcc_knows(build: Path) -> None:
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if nvcc is None:
        pytest.skip("no nvcc: no kernels are built here")
    known = run(nvcc, "--list-gpu-code").split()
    data = (build / "robult_native.fatbin").read_bytes()
    assert fatbin_architectures(data) == {a for a in (87, 90, 110, 120) if f"sm_{a}" in known}
