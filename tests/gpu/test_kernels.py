"""native/'s kernels on a GPU: they agree with NumPy, launched plainly and replayed as a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ctypes import sizeof
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robult_edge.fusion import Rule
from robult_edge.task import Task
from tests.native.cases import BLOCK, Argument, FusionCase, Place, WindowCase

Launch = Callable[[], None]


@pytest.fixture(scope="session")
def cuda() -> Iterator[Any]:
    """pycuda's driver, with the first GPU's primary context current."""
    try:
        import pycuda.driver as cuda
    except ImportError as error:
        pytest.skip(f"pycuda cannot be imported ({error}); pip install 'robult-edge[tensorrt]'")
    try:
        cuda.init()
        context = cuda.Device(0).retain_primary_context()
    except cuda.Error as error:
        pytest.skip(f"no CUDA device ({error})")
    context.push()
    yield cuda
    context.pop()


class Device:
    """A GPU as a `tests.native.cases.Machine`.

    Args:
        cuda: pycuda's driver.
        fatbin: the kernels.
        graph: makes a launch of what a function does on a stream; None launches plainly.
    """

    def __init__(
        self, cuda: Any, fatbin: Path, graph: Callable[[Any, Launch], Launch] | None
    ) -> None:
        self._cuda, self._graph = cuda, graph
        self._module = cuda.module_from_file(str(fatbin))
        self._stream = cuda.Stream()

    def run(
        self, name: str, grid: tuple[int, int], arguments: Callable[[Place], tuple[Argument, ...]]
    ) -> None:
        placed: list[tuple[np.ndarray, Any]] = []

        def place(array: np.ndarray) -> int:
            placed.append((array, self._cuda.mem_alloc(array.nbytes)))
            return int(placed[-1][1])

        packed = arguments(place)
        function = self._module.get_function(name).prepare([f"{sizeof(a)}s" for a in packed])

        def launch() -> None:
            function.prepared_async_call(grid, (BLOCK, 1, 1), self._stream, *map(bytes, packed))

        if self._graph:  # captured before the data are there: a replay must read them anew
            launch = self._graph(self._stream, launch)
        for array, memory in placed:
            self._cuda.memcpy_htod(memory, array)
        launch()
        self._stream.synchronize()
        for array, memory in placed:
            self._cuda.memcpy_dtoh(array, memory)


def captured(stream: Any, launch: Launch) -> Launch:
    """Capture ``launch`` as a CUDA graph, which pycuda cannot but cuda-bindings can."""
    from cuda.bindings import driver

    def done(result: tuple[Any, ...]) -> Any:
        error, *values = result
        assert error == driver.CUresult.CUDA_SUCCESS, error
        return values[0] if values else None

    handle = driver.CUstream(stream.handle)
    mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
    done(driver.cuStreamBeginCapture(handle, mode))
    launch()
    graph = done(driver.cuGraphInstantiate(done(driver.cuStreamEndCapture(handle)), 0))
    return lambda: done(driver.cuGraphLaunch(graph, handle))


@pytest.fixture(scope="session", params=["launched", "replayed"])
def gpu(request: pytest.FixtureRequest, cuda: Any, build: Path) -> Device:
    fatbin = build / "robult_native.fatbin"
    if not fatbin.exists():
        pytest.skip("no nvcc: no kernels are built here")
    if request.param == "launched":
        return Device(cuda, fatbin, None)
    pytest.importorskip("cuda.bindings.driver", reason="no cuda-bindings: no CUDA graphs")
    return Device(cuda, fatbin, captured)


@pytest.mark.parametrize("rule", ["pool", "mean"])
@pytest.mark.parametrize("scale", [3, 80])
@pytest.mark.parametrize("seed", range(5))
def test_fusion_agrees_with_numpy(gpu: Device, seed: int, scale: float, rule: Rule) -> None:
    FusionCase(seed, scale, rule).check(gpu)


@pytest.mark.parametrize("rule", ["pool", "mean"])
@pytest.mark.parametrize("task", ["multilabel", "regression"])
@pytest.mark.parametrize("seed", range(3))
def test_labels_and_values_are_fused_as_numpy_does(
    gpu: Device, seed: int, task: Task, rule: Rule
) -> None:
    FusionCase(seed, 3, rule, task=task).check(gpu)


@pytest.mark.parametrize("rule", ["pool", "mean"])
def test_what_is_dead_is_never_read(gpu: Device, rule: Rule) -> None:
    case = FusionCase(1, 3, rule)
    case.logits[~case.listened()] = np.nan
    case.check(gpu)


@pytest.mark.parametrize("rule", ["pool", "mean"])
def test_nothing_alive_is_no_answer(gpu: Device, rule: Rule) -> None:
    FusionCase(2, 3, rule).check_nothing_alive(gpu)


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_gather_agrees_with_numpy(gpu: Device, seed: int, normalised: bool) -> None:
    WindowCase(seed).check_gather(gpu, normalised)


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_statistics_agree_with_numpy(gpu: Device, seed: int, broken: bool) -> None:
    WindowCase(seed, broken).check_measure(gpu)
