"""robult_edge.nvidia: an engine is found where it fits and nowhere else, with or without a GPU."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from robult_edge import nvidia
from robult_edge.bundle import Engine, FileRef, Flavour, Precision
from robult_edge.errors import EngineError
from robult_edge.nvidia import AMPERE_PLUS, Gpu, Target
from tests.conftest import ROOT

ONNX = "a" * 64
ORIN = Target(
    flavour="trt", tensorrt="10.3.0", platform="linux-aarch64", compute_capability="8.7",
    device="Orin",
)  # fmt: skip
RTX = nvidia.target("rtx", "1.7.1.116", Gpu("8.6", "RTX 3060"))


def engine(target: Target, precision: Precision = "fp16", onnx: str = ONNX) -> Engine:
    return Engine(
        plan=FileRef(file="acc.plan", sha256="b" * 64),
        key=nvidia.key(onnx, precision, target),
        precision=precision,
        batch=(1, 1, 8),
        **msgspec.structs.asdict(target),
    )


def but(target: Target, **changes: str) -> Target:
    return msgspec.structs.replace(target, **changes)


@pytest.mark.parametrize(
    ("built", "wanted", "fits"),
    [
        (ORIN, ORIN, True),
        (RTX, RTX, True),
        (ORIN, but(ORIN, tensorrt="10.7.0"), False),
        (ORIN, but(ORIN, device="Orin Nano"), False),
        (ORIN, but(ORIN, platform="linux-x86_64"), False),
        (ORIN, but(ORIN, compute_capability="8.6"), False),
        (ORIN, but(ORIN, flavour="rtx"), False),
        (RTX, nvidia.target("rtx", "1.7.1.116", Gpu("8.6", "RTX A2000")), True),
        (RTX, nvidia.target("rtx", "1.7.1.116", Gpu("8.9", "RTX 4060")), False),
        (but(ORIN, device=""), but(ORIN, device="Orin Nano"), True),
        (but(ORIN, device="", compute_capability=AMPERE_PLUS), ORIN, True),
        (
            but(ORIN, device="", compute_capability=AMPERE_PLUS),
            but(ORIN, compute_capability="11.0", device="Thor"),
            True,
        ),
        (
            but(ORIN, device="", compute_capability=AMPERE_PLUS),
            but(ORIN, compute_capability="7.5", device="T4"),
            False,
        ),
        (but(ORIN, tensorrt="10.x"), but(ORIN, tensorrt="10.7.0"), True),
        (but(ORIN, tensorrt="10.x"), but(ORIN, tensorrt="11.0.0"), False),
    ],
)
def test_an_engine_is_found_where_it_fits(built: Target, wanted: Target, fits: bool) -> None:
    found = nvidia.find([engine(built)], ONNX, "fp16", wanted)
    assert found == (engine(built) if fits else None)


def test_an_engine_of_another_graph_or_precision_is_not_found() -> None:
    engines = [engine(ORIN), engine(ORIN, "int8"), engine(ORIN, onnx="c" * 64)]
    assert nvidia.find(engines, ONNX, "fp32", ORIN) is None
    assert nvidia.find(engines, "d" * 64, "fp16", ORIN) is None
    assert nvidia.find(engines, ONNX, "int8", ORIN) == engines[1]


def test_the_most_specific_engine_is_preferred() -> None:
    everywhere = engine(but(ORIN, tensorrt="10.x", device="", compute_capability=AMPERE_PLUS))
    assert nvidia.find([everywhere, engine(ORIN)], ONNX, "fp16", ORIN) == engine(ORIN)


@pytest.mark.parametrize(
    ("built", "onnx", "why"),
    [
        (ORIN, ONNX, None),
        (but(ORIN, device="", compute_capability=AMPERE_PLUS, tensorrt="10.x"), ONNX, None),
        (but(ORIN, tensorrt="10.7.0"), ONNX, "tensorrt 10.7.0, here 10.3.0"),
        (
            but(ORIN, compute_capability="8.6", device="A2"), ONNX,
            "compute capability 8.6, here 8.7; device A2, here Orin",
        ),
        (ORIN, "c" * 64, "built from another graph"),
    ],
)  # fmt: skip
def test_why_an_engine_does_not_fit_is_said(built: Target, onnx: str, why: str | None) -> None:
    assert nvidia.misfit(engine(built), onnx, ORIN) == why


def test_an_engines_file_says_what_it_is_and_changes_with_its_content() -> None:
    one, other = (nvidia.plan_name("acc", "fp16", ORIN, plan) for plan in (b"1", b"2"))
    assert one.startswith("acc-fp16-sm87-")
    assert one.endswith(".plan")
    assert one != other


@pytest.mark.parametrize(
    ("flavour", "module", "mend"),
    [("trt", "tensorrt", "JetPack brings it"), ("rtx", "tensorrt_rtx", r"robult-edge\[rtx\]")],
)
def test_a_tensorrt_that_is_not_there_is_one_sentence_with_its_mend(
    flavour: Flavour, module: str, mend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(EngineError, match=f"^{module} cannot be imported .*{mend}"):
        nvidia.library(flavour)


def test_nothing_heavy_comes_with_it() -> None:
    check = (
        "import sys, robult_edge.nvidia; "
        "print([m for m in ('tensorrt', 'tensorrt_rtx', 'onnx', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr


DRIVER = """
#include <string.h>
int cuInit(unsigned flags) { return INIT; }
int cuDeviceGet(int *device, int ordinal) { *device = 7; return 0; }
int cuDeviceGetName(char *name, int n, int device) { strncpy(name, "Orin", n); return device - 7; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? 8 : attribute == 76 ? 7 : -1;
    return device - 7;
}
int cuGetErrorString(int code, const char **text) { *text = "no CUDA-capable device"; return 0; }
"""


def driver(folder: Path, init: int) -> str:
    """A CUDA driver of five functions."""
    cc = shutil.which("cc")
    if cc is None:
        pytest.skip("no C compiler")
    (folder / "driver.c").write_text(DRIVER)
    built = folder / "libcuda.so.1"
    flags = ["-shared", "-fPIC", f"-DINIT={init}"]
    subprocess.run([cc, *flags, "-o", built, folder / "driver.c"], check=True)
    return str(built)


def test_the_gpu_is_what_the_driver_says(tmp_path: Path) -> None:
    assert nvidia.gpu(driver(tmp_path, init=0)) == Gpu("8.7", "Orin")


def test_a_driver_without_a_gpu_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"\(cuInit: 100, no CUDA-capable device\)"):
        nvidia.gpu(driver(tmp_path, init=100))


def test_no_driver_is_an_error_and_no_crash() -> None:
    with pytest.raises(EngineError, match="no CUDA driver here"):
        nvidia.gpu("libcuda-that-is-not-there.so")
