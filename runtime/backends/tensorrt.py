"""TensorRT, or TensorRT for RTX: a CUDA graph per batch size, captured at load and replayed.

All that a replay touches lies still: pinned host arrays, device buffers, and an execution context
of its own, as TensorRT asks: a captured graph is void once its context sees another shape. So
batches are rounded up to 1, 2, 4, … rows, and nothing is allocated after load.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from math import prod
from types import ModuleType
from typing import Any

import numpy as np

from robult_edge import nvidia
from robult_edge.bundle import Branch, Bundle, Engine, Flavour, Head, Precision
from robult_edge.errors import EngineError, RobultError
from robult_edge.nvidia import Target
from robult_edge.trt_log import collector, freed_on_failure
from runtime.backends import cuda


def load(bundle: Bundle, entry: Branch | Head, precision: Precision) -> TensorRtBackend:
    """The bundle's engine of a graph that fits this machine.

    Raises:
        EngineError: none fits or is whole, and why; or TensorRT does not take it.
        MissingExtraError: what drives the GPU is not installed.
    """
    engines: list[Engine] = []
    against: list[str] = []
    for engine in entry.engines:
        if engine.precision == precision:
            flaw = bundle.flaw(engine)
            if flaw is None:
                engines.append(engine)
            else:
                against.append(flaw)
    for flavour in dict.fromkeys(engine.flavour for engine in engines):
        try:
            wanted = here(flavour)
        except RobultError as error:
            against.append(str(error))
            continue
        found = nvidia.find(engines, entry.onnx.sha256, precision, wanted)
        if found is not None:
            return TensorRtBackend(bundle.plan(found), found.flavour, found.batch)
        against += [
            f"{engine.plan.file}: {nvidia.misfit(engine, entry.onnx.sha256, wanted)}"
            for engine in engines
            if engine.flavour == flavour
        ]
    raise EngineError("; ".join(dict.fromkeys(against)))


def here(flavour: Flavour) -> Target:
    """What an engine must be for to run on this machine.

    Raises:
        EngineError: there is no GPU, or no such TensorRT.
        MissingExtraError: pycuda is not installed.
    """
    gpu = nvidia.gpu()
    cuda.driver()
    return nvidia.target(flavour, nvidia.library(flavour).__version__, gpu)


class TensorRtBackend:
    """A TensorRT engine.

    Any thread may call; see `runtime.backends.cuda`.

    Args:
        plan: the serialised engine, of this machine's GPU and TensorRT.
        flavour: which TensorRT.
        batch: least, typical and largest that the engine takes.
        replay: capture and replay CUDA graphs; else each run is enqueued anew.

    Attributes:
        sizes: batch sizes that have a graph; any other is rounded up, or cut.

    Raises:
        EngineError: no driver, no TensorRT, or what it or the GPU said.
        MissingExtraError: pycuda or cuda-bindings is not installed.
    """

    def __init__(
        self, plan: bytes, flavour: Flavour, batch: tuple[int, int, int], replay: bool = True
    ) -> None:
        nvidia.gpu()  # says what is wrong; without a driver TensorRT crashes
        trt = nvidia.library(flavour)
        self.name = "tensorrt" if flavour == "trt" else "tensorrt-rtx"
        self.sizes = sizes(batch[0], batch[2])
        self._trt = trt
        self._context = cuda.primary_context()
        self._held = ExitStack()
        self._objects: list[Any] = []
        self._buckets: dict[int, _Bucket] = {}
        try:
            with cuda.pushed(self._context):
                self._load(plan, replay)
        except BaseException as error:
            self.close()
            if isinstance(error, cuda.driver().Error):
                raise EngineError(f"the GPU does not take the engine: {error}") from None
            raise

    def run(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """Outputs of the engine for ``inputs``, each [B, ...]; any B."""
        n, most = len(inputs[0]), self.sizes[-1]
        with cuda.pushed(self._context):
            if n <= most:
                return self._run(inputs)
            parts = [
                [output.copy() for output in self._run([a[i : i + most] for a in inputs])]
                for i in range(0, n, most)
            ]
        return tuple(np.concatenate(outputs) for outputs in zip(*parts, strict=True))

    def placed(self, size: int, held: ExitStack) -> Placed:
        """The engine at a batch size once more, for work beside its own; ``held`` frees it.

        Raises:
            EngineError: it is closed, or does not take the batch.
        """
        if not self._objects:
            raise EngineError("the engine is closed")
        engine, _, log = self._objects
        return Placed(self._trt, log, engine, size, held)

    def close(self) -> None:
        """Free what is the GPU's; never raises, for the GPU may be the trouble.

        Host arrays go with the last that looks at them.
        """
        with suppress(Exception), cuda.pushed(self._context):
            self._held.close()

    @freed_on_failure
    def _load(self, plan: bytes, replay: bool) -> None:
        trt, log = self._trt, collector(self._trt)
        runtime = log.made("runtime", trt.Runtime(log))
        runtime.engine_host_code_allowed = True  # a version-compatible engine brings its runtime
        engine = log.made("engine of the plan", runtime.deserialize_cuda_engine(plan))
        self._objects += [engine, runtime, log]
        self._held.callback(self._objects.clear)
        self._held.callback(self._buckets.clear)
        stream = cuda.driver().Stream()
        for size in self.sizes:
            placed = Placed(trt, log, engine, size, self._held)
            self._buckets[size] = _bucket(placed, stream, replay, self._held)

    def _run(self, inputs: Any) -> tuple[np.ndarray, ...]:
        n = len(inputs[0])
        bucket = self._buckets[next(size for size in self.sizes if size >= n)]
        for pinned, given in zip(bucket.inputs, inputs, strict=True):
            np.copyto(pinned[:n], given)  # rows beyond n keep what was there: nobody reads theirs
        bucket.launch()
        return tuple(output[:n] for output in bucket.outputs)


def sizes(least: int, largest: int) -> tuple[int, ...]:
    """Batch sizes that have a graph: powers of two, and the largest."""
    powers = (1 << i for i in range(largest.bit_length()))
    return (*(size for size in powers if least <= size < largest), largest)


class Placed:
    """An engine at one batch size: a context and device memory that lie still.

    Attributes:
        inputs, outputs: the engine's tensors, in its order.
        memory: on the device, by tensor.

    Args:
        trt, log, engine: TensorRT, what it says, and the engine.
        size: of the batch.
        held: takes note of how it is freed.

    Raises:
        EngineError: the engine does not take the batch.
    """

    def __init__(self, trt: ModuleType, log: Any, engine: Any, size: int, held: ExitStack) -> None:
        self._log = log
        self._context = context = log.made("context", engine.create_execution_context())
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        self.inputs = [n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        self.outputs = [n for n in names if n not in self.inputs]
        for name in self.inputs:
            shape = (size, *tuple(engine.get_tensor_shape(name))[1:])
            if not context.set_input_shape(name, shape):
                raise EngineError(f"{name} {shape} is refused: {log.said()}")
        self._dtypes = {name: trt.nptype(engine.get_tensor_dtype(name)) for name in names}
        self.memory: dict[str, Any] = {}
        for name in names:
            nbytes = prod(self.shape(name)) * np.dtype(self._dtypes[name]).itemsize
            self.memory[name] = cuda.driver().mem_alloc(nbytes)
            held.callback(self.memory[name].free)
            context.set_tensor_address(name, int(self.memory[name]))

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor, the batch first."""
        return tuple(self._context.get_tensor_shape(name))

    def pinned(self, name: str) -> np.ndarray:
        """A page-locked host array for a tensor, of zeros."""
        array = cuda.driver().pagelocked_empty(self.shape(name), self._dtypes[name])
        array[...] = 0
        return array

    def execute(self, stream: Any) -> None:
        """Put the engine on a stream: from its inputs' memory to its outputs'."""
        if not self._context.execute_async_v3(stream.handle):
            raise EngineError(f"the engine does not run: {self._log.said()}")


@dataclass(frozen=True)
class _Bucket:
    """A batch size.

    Attributes:
        placed: kept alive for the graph.
        inputs, outputs: pinned host arrays.
        launch: inputs to outputs, waited for.
    """

    placed: Placed
    inputs: list[np.ndarray]
    outputs: list[np.ndarray]
    launch: Callable[[], None]


def _bucket(placed: Placed, stream: Any, replay: bool, held: ExitStack) -> _Bucket:
    """Make all that a batch size needs, and note in ``held`` how it is freed."""
    driver, memory = cuda.driver(), placed.memory
    inputs = {name: placed.pinned(name) for name in placed.inputs}
    outputs = {name: placed.pinned(name) for name in placed.outputs}

    def enqueue() -> None:
        for name, array in inputs.items():
            driver.memcpy_htod_async(memory[name], array, stream)
        placed.execute(stream)
        for name, array in outputs.items():
            driver.memcpy_dtoh_async(array, memory[name], stream)

    launch = cuda.waited(stream, cuda.warmed(stream, enqueue, held, replay))
    return _Bucket(placed, list(inputs.values()), list(outputs.values()), launch)
