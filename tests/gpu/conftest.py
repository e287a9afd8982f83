"""The shipped bundle with engines for the GPU that is here."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from robult_edge import bundle, nvidia
from robult_edge.bundle import Bundle, Flavour
from robult_edge.errors import EngineError


@pytest.fixture(scope="module", params=["trt", "rtx"])
def built(
    request: pytest.FixtureRequest, shipped: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    """The shipped bundle with engines for this GPU."""
    flavour: Flavour = request.param
    try:
        nvidia.gpu()
        nvidia.library(flavour)
    except EngineError as error:
        pytest.skip(str(error))
    for needed in ("pycuda.driver", "cuda.bindings"):
        pytest.importorskip(needed, reason=f"no {needed}: pip install 'robult-edge[tensorrt]'")
    where = tmp_path_factory.mktemp(flavour) / "engines"
    shutil.copytree(shipped.path, where)
    build = [sys.executable, "-m", "export.tensorrt", "--bundle", where, "--flavour", flavour]
    done = subprocess.run(build, capture_output=True, text=True)
    if "not for sm" in done.stderr:  # TensorRT for RTX, and a GPU that it does not know
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    return bundle.load(where)
