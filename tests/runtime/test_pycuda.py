"""The runtime's use of the real pycuda, as far as the driver; `.ci/pycuda` builds one to run it on.

There the driver is a library in which every call says that it is a stub.
"""

from __future__ import annotations

import ast
import ctypes
from pathlib import Path

import pytest

from robult_edge import nvidia
from robult_edge.errors import EngineError
from runtime.backends import cuda, kernels
from runtime.backends.tensorrt import TensorRtBackend
from tests.conftest import ROOT

driver = pytest.importorskip("pycuda.driver", reason="no pycuda: .ci/pycuda builds one")
BACKENDS = ROOT / "runtime" / "backends"
SAYS = "stub library"


@pytest.fixture(autouse=True)
def _stub() -> None:
    try:
        nvidia.gpu()
    except EngineError as error:
        if SAYS not in str(error):
            pytest.skip(f"no stub of a driver: {error}")
    else:
        pytest.skip("there is a GPU: tests/gpu goes on from here")


def used(file: Path) -> set[str]:
    """What a file takes of pycuda's driver, by whichever name it calls that."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Attribute):
            of, _, name = ast.unparse(node).rpartition(".")
            if of in ("driver", "cuda.driver()", "driver()"):
                found.add(name)
    return found


def test_every_name_used_is_pycudas() -> None:
    names = set().union(*map(used, (BACKENDS / f for f in ("tensorrt.py", "device_fusion.py"))))
    names |= used(BACKENDS / "kernels.py")
    assert len(names) > 9
    assert {name for name in names if not hasattr(driver, name)} == set()
    for of, name in (
        (driver.Stream, "wait_for_event"),
        (driver.Stream, "synchronize"),
        (driver.Event, "record"),
        (driver.Function, "prepare"),
        (driver.Function, "prepared_async_call"),
        (driver.Memcpy2D, "set_src_device"),
        (driver.Memcpy2D, "set_dst_device"),
        (driver.Memcpy2D, "dst_x_in_bytes"),
        (driver.Device, "retain_primary_context"),
    ):
        assert hasattr(of, name), name


def test_kernels_arguments_are_packed_as_they_lie() -> None:
    """pycuda joins them in one buffer: each must begin where C would have it."""
    from pycuda._pvt_struct import pack

    what, where = kernels.Fusion(batch=3), kernels.Answers(top=4)
    together = type("Both", (ctypes.Structure,), {
        "_fields_": (("what", kernels.Fusion), ("where", kernels.Answers)),
    })(what, where)  # fmt: skip
    formats = "".join(f"{ctypes.sizeof(a)}s" for a in (what, where))
    assert pack(formats, bytes(what), bytes(where)) == bytes(together)


def test_the_fatbin_is_loaded_as_far_as_the_driver(build: Path) -> None:
    fatbin = build / "robult_native.fatbin"
    if not fatbin.exists():
        pytest.skip("no nvcc: no kernels are built here")
    with pytest.raises(driver.Error, match=SAYS):
        kernels.fuse(fatbin)


def test_the_context_is_asked_of_the_driver() -> None:
    cuda.primary_context.cache_clear()
    with pytest.raises(driver.Error, match=f"cuInit failed: {SAYS}"):
        cuda.primary_context()


def test_a_driver_that_is_of_no_use_is_one_sentence() -> None:
    with pytest.raises(EngineError, match=r"of no use here \(cuInit: 34, stub library\)"):
        TensorRtBackend(b"", "rtx", (1, 1, 1))
