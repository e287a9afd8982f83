"""A stand-in for TensorRT, pycuda and cuda-bindings: the calls the backends use, on the CPU.

Engines are ONNX graphs, which it runs on ONNX Runtime; the fusion kernel is native/'s own, its
lanes played by threads. "Device memory" lies apart from arrays, work is done in the order of its
stream or recorded while that captures, and what a real driver refuses raises: a call on a thread
without the context, an allocation while a graph is captured, a stream that another's capture drew
in and that is not waited for.
"""

from __future__ import annotations

import ctypes
import sys
from collections import Counter
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from threading import local
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from export.tensorrt.graphs import on_cpu
from robult_edge import nvidia
from robult_edge.nvidia import Gpu
from runtime.backends import cuda, kernels

HERE = nvidia.target("trt", "10.3.0", Gpu("8.7", "Orin"))


class CudaError(Exception):
    """pycuda's."""


class CUresult(Enum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_ILLEGAL_ADDRESS = 700
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901


class Memory:
    """A device buffer."""

    def __init__(self, gpu: StandIn, size: int) -> None:
        self._gpu, self.bytes = gpu, bytearray(b"\xff" * size)  # NaN, unless written
        self.address = gpu.next_address
        gpu.next_address += 4096 * (size // 4096 + 2)
        gpu.memory[self.address] = self

    def __int__(self) -> int:
        return self.address

    def free(self) -> None:
        self._gpu.called("free")
        self.bytes = bytearray()
        self._gpu.freed += 1


class Pinned(bytearray):
    """What a page-locked array rests on; a driver frees it only where the context is current."""

    gpu: StandIn

    def __del__(self) -> None:
        self.gpu.pinned -= self.gpu.is_current


class Stream:
    """Does its work at once, or has it recorded.

    Attributes:
        recorded: what the capture it has part in has recorded; None while it has none.
        put_count: how much was put on it.
        waited_for: how much of that the stream that captures waits for.
    """

    def __init__(self, gpu: StandIn) -> None:
        self.recorded: list[Callable[[], None]] | None = None
        self.put_count = self.waited_for = 0
        self.handle = 7 + len(gpu.streams)
        self._gpu = gpu
        gpu.streams.append(self)

    def put(self, work: Callable[[], None]) -> None:
        self.put_count += 1
        if self.recorded is None:
            work()
        else:
            self.recorded.append(work)

    def synchronize(self) -> None:
        assert self.recorded is None, "not while a graph is captured"

    def wait_for_event(self, event: Event) -> None:
        self._gpu.called("wait for event")
        assert event.of is not None, "never recorded"
        event.of.waited_for = max(event.of.waited_for, event.put_count)
        if self.recorded is None and event.of.recorded is not None:
            self.recorded, self.waited_for = event.of.recorded, self.put_count


class Event:
    def __init__(self, gpu: StandIn) -> None:
        self.of: Stream | None = None
        self.put_count = 0
        self._gpu = gpu

    def record(self, stream: Stream) -> None:
        self._gpu.called("record")
        self.of, self.put_count = stream, stream.put_count

    def synchronize(self) -> None:
        assert self.of is not None, "never recorded"
        assert self.of.recorded is None, "not while a graph is captured"
        self._gpu.called("wait")


class Copy2D:
    """pycuda's Memcpy2D, between device buffers."""

    def __init__(self, gpu: StandIn) -> None:
        self._gpu = gpu
        self.width_in_bytes = self.height = self.src_pitch = self.dst_pitch = 0
        self.dst_x_in_bytes = 0

    def set_src_device(self, there: Memory) -> None:
        self._src = there

    def set_dst_device(self, there: Memory) -> None:
        self._dst = there

    def __call__(self, stream: Stream) -> None:
        self._gpu.called("copy 2d")
        width, height, x = self.width_in_bytes, self.height, self.dst_x_in_bytes
        src_pitch, dst_pitch = self.src_pitch, self.dst_pitch
        assert x + width <= dst_pitch
        assert width <= src_pitch

        def copy() -> None:
            for row in range(height):
                there = slice(row * dst_pitch + x, row * dst_pitch + x + width)
                self._dst.bytes[there] = self._src.bytes[row * src_pitch : row * src_pitch + width]

        stream.put(copy)


class StandIn:
    """One GPU with its libraries.

    Attributes:
        calls: how often each function was called.
        memory: device buffers, by address.
        freed: how many of them are freed.
        pinned: page-locked arrays that are not.
        limit_bytes: of a device buffer; a larger one is out of memory.
        off: added to all that engines answer.
        kernels: a build of native/, for its emulated kernels; None: modules cannot be loaded.
        refuses_graphs: captures fail.
        lost: replays fail.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.memory: dict[int, Memory] = {}
        self.streams: list[Stream] = []
        self.freed, self.pinned, self.limit_bytes, self.off = 0, 0, 1 << 30, 0.0
        self.refuses_graphs = self.lost = False
        self.kernels: Path | None = None
        self.next_address = 4096
        self._current = local()

    @property
    def is_current(self) -> bool:
        """Whether this thread has the context."""
        return getattr(self._current, "depth", 0) > 0

    def stream(self, handle: int) -> Stream:
        """By its handle."""
        return next(stream for stream in self.streams if stream.handle == handle)

    def called(self, what: str) -> None:
        assert self.is_current, f"{what} on a thread without the context"
        self.calls[what] += 1

    def _move(self, by: int) -> None:
        self._current.depth = getattr(self._current, "depth", 0) + by

    def _allocates(self, what: str, size: int) -> None:
        self.called(what)
        assert all(s.recorded is None for s in self.streams), "an allocation while capturing"
        if size > self.limit_bytes:
            raise CudaError(f"{what} failed: out of memory")

    def mem_alloc(self, size: int) -> Memory:
        self._allocates("cuMemAlloc", size)
        return Memory(self, size)

    def pagelocked_empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self._allocates("cuMemHostAlloc", size)
        pinned = Pinned(b"\xff" * size)
        pinned.gpu = self
        self.pinned += 1
        return np.ndarray(shape, dtype, buffer=pinned)

    def memcpy_htod_async(self, there: Memory, array: np.ndarray, stream: Stream) -> None:
        assert isinstance(array.base, Pinned), "not page-locked"

        def copy() -> None:
            there.bytes[:] = array.tobytes()

        self.called("htod")
        stream.put(copy)

    def memcpy_dtoh_async(self, array: np.ndarray, there: Memory, stream: Stream) -> None:
        assert isinstance(array.base, Pinned), "not page-locked"

        def copy() -> None:
            array[...] = np.frombuffer(there.bytes, array.dtype).reshape(array.shape)

        self.called("dtoh")
        stream.put(copy)

    def _event(self, flags: int) -> Event:
        assert flags == 2
        return Event(self)

    def memcpy_htod(self, there: Memory, array: np.ndarray) -> None:
        self.called("htod now")
        assert array.nbytes == len(there.bytes)
        there.bytes[:] = array.tobytes()

    def memcpy_dtoh(self, array: np.ndarray, there: Memory) -> None:
        self.called("dtoh now")
        array[...] = np.frombuffer(there.bytes, array.dtype).reshape(array.shape)

    def memcpy_dtod_async(self, to: Memory, there: Memory, size: int, stream: Stream) -> None:
        def copy() -> None:
            to.bytes[:size] = there.bytes[:size]

        self.called("dtod")
        stream.put(copy)

    def memset_d32_async(self, there: Memory, value: int, count: int, stream: Stream) -> None:
        def fill() -> None:
            there.bytes[: 4 * count] = value.to_bytes(4, "little") * count

        self.called("memset")
        stream.put(fill)

    def module_from_file(self, _file: str) -> SimpleNamespace:
        self.called("module")
        if self.kernels is None:
            raise CudaError("cuModuleLoad failed: device kernel image is invalid")
        (library,) = self.kernels.glob("librobult_emulated.*")
        return SimpleNamespace(get_function=lambda name: Kernel(self, str(library), name))

    def host_address(self, address: int) -> int:
        """Where the bytes of a device address really lie."""
        start = max(each for each in self.memory if each <= address)
        content = self.memory[start].bytes
        assert address - start < len(content)
        return ctypes.addressof(ctypes.c_char.from_buffer(content)) + address - start

    def pycuda(self) -> SimpleNamespace:
        """pycuda.driver."""
        context = SimpleNamespace(push=lambda: self._move(1), pop=lambda: self._move(-1))
        return SimpleNamespace(
            Error=CudaError,
            init=lambda: None,
            Device=lambda _: SimpleNamespace(retain_primary_context=lambda: context),
            Stream=lambda: Stream(self),
            Event=self._event,
            event_flags=SimpleNamespace(DISABLE_TIMING=2),
            mem_alloc=self.mem_alloc,
            pagelocked_empty=self.pagelocked_empty,
            memcpy_htod_async=self.memcpy_htod_async,
            memcpy_dtoh_async=self.memcpy_dtoh_async,
            memcpy_htod=self.memcpy_htod,
            memcpy_dtoh=self.memcpy_dtoh,
            memcpy_dtod_async=self.memcpy_dtod_async,
            memset_d32_async=self.memset_d32_async,
            Memcpy2D=lambda: Copy2D(self),
            module_from_file=self.module_from_file,
        )

    def cuda_bindings(self) -> SimpleNamespace:
        """cuda.bindings.driver."""
        done = CUresult.CUDA_SUCCESS

        def begin(stream: Stream, _mode: str) -> tuple[CUresult]:
            self.called("begin")
            stream.recorded = []
            return (done,)

        def end(stream: Stream) -> tuple[CUresult, Any]:
            self.called("end")
            recorded = stream.recorded
            for each in self.streams:
                if each.recorded is recorded:
                    each.recorded = None
                    assert each is stream or each.waited_for == each.put_count, "not joined"
            if self.refuses_graphs:
                return CUresult.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, None
            return done, recorded

        def launch(graph: list[Callable[[], None]], _stream: Stream) -> tuple[CUresult]:
            self.called("replay")
            if self.lost:
                return (CUresult.CUDA_ERROR_ILLEGAL_ADDRESS,)
            for work in graph:
                work()
            return (done,)

        def destroy(graph: list[Callable[[], None]]) -> tuple[CUresult]:
            self.called("destroy")
            graph.clear()
            return (done,)

        return SimpleNamespace(
            CUresult=CUresult,
            CUstreamCaptureMode=SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL="thread"),
            CUstream=self.stream,
            cuStreamBeginCapture=begin,
            cuStreamEndCapture=end,
            cuGraphInstantiate=lambda graph, flags: (done, graph),
            cuGraphLaunch=launch,
            cuGraphDestroy=destroy,
            cuGraphExecDestroy=destroy,
        )

    def tensorrt(self) -> SimpleNamespace:
        """TensorRT."""
        return SimpleNamespace(
            __version__=HERE.tensorrt,
            ILogger=type("ILogger", (), {"INTERNAL_ERROR": 0, "ERROR": 1}),
            Runtime=lambda log: Runtime(self, log),
            TensorIOMode=SimpleNamespace(INPUT="in"),
            nptype=lambda dtype: dtype,
        )


class Kernel:
    """An entry of native/kernels.cu."""

    def __init__(self, gpu: StandIn, library: str, name: str) -> None:
        self._gpu = gpu
        self._entry = getattr(ctypes.CDLL(library), name.replace("robult", "emulated"))

    def prepare(self, formats: list[str]) -> None:
        self._formats = formats

    def prepared_async_call(
        self, grid: tuple[int, int], block: tuple[int, int, int], stream: Stream, *packed: bytes
    ) -> None:
        self._gpu.called("kernel")
        assert [f"{len(argument)}s" for argument in packed] == self._formats
        what, where = kernels.Fusion.from_buffer_copy(packed[0]), packed[1]

        def run() -> None:
            there = kernels.Answers.from_buffer_copy(where)
            self._entry(*grid, block[0], self._translated(what), self._translated(there))

        stream.put(run)

    def _translated(self, struct: Any) -> Any:
        """The same, its pointers to where the bytes really lie."""
        real = type(struct).from_buffer_copy(bytes(struct))
        for name, kind in struct._fields_:
            value = getattr(struct, name)
            if kind is ctypes.c_void_p:
                setattr(real, name, value and self._gpu.host_address(value))
            elif not isinstance(value, int):
                places = [value_ and self._gpu.host_address(value_) for value_ in value]
                setattr(real, name, kind(*places))
        return real


class Runtime:
    def __init__(self, gpu: StandIn, log: Any) -> None:
        gpu.called("runtime")
        self._gpu, self._log = gpu, log

    def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
        if plan == b"of another version":
            self._log.log(1, "The engine plan file is not compatible\nwith this version")
            return None
        return Engine(self._gpu, plan)


class Engine:
    """An engine whose plan is an ONNX graph."""

    def __init__(self, gpu: StandIn, plan: bytes) -> None:
        self.gpu, self.graph, self.run = gpu, onnx.load_from_string(plan).graph, on_cpu(plan)
        # TensorRT promises no order of inputs before outputs.
        self._values = {v.name: v for v in (*self.graph.output, *self.graph.input)}
        self.num_io_tensors = len(self._values)

    def get_tensor_name(self, i: int) -> str:
        return list(self._values)[i]

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name in {v.name for v in self.graph.input} else "out"

    def get_tensor_dtype(self, name: str) -> np.dtype:
        return onnx.helper.tensor_dtype_to_np_dtype(self._values[name].type.tensor_type.elem_type)

    def get_tensor_shape(self, name: str) -> list[int]:
        return [d.dim_value or -1 for d in self._values[name].type.tensor_type.shape.dim]

    def create_execution_context(self) -> Context:
        return Context(self)


class Context:
    """Set once: TensorRT forbids another shape once its graph is captured."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name not in self._shapes
        self._shapes[name] = shape
        return shape[0] <= 64

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        (batch,) = {shape[0] for shape in self._shapes.values()}
        return (batch, *self._engine.get_tensor_shape(name)[1:])

    def execute_async_v3(self, stream: int) -> bool:
        gpu = self._engine.gpu
        gpu.called("execute")

        def execute() -> None:
            inputs = [
                np.frombuffer(
                    gpu.memory[self._addresses[v.name]].bytes, self._engine.get_tensor_dtype(v.name)
                ).reshape(self._shapes[v.name])
                for v in self._engine.graph.input
            ]
            for value, answer in zip(
                self._engine.graph.output, self._engine.run(*inputs), strict=True
            ):
                gpu.memory[self._addresses[value.name]].bytes[:] = (
                    (answer + gpu.off).astype(answer.dtype).tobytes()
                )

        gpu.stream(stream).put(execute)
        return True


def install(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Have TensorRT, pycuda and cuda-bindings imported from a stand-in, on an Orin."""
    gpu = StandIn()
    driver, bindings = gpu.pycuda(), gpu.cuda_bindings()
    modules = {
        "pycuda": SimpleNamespace(driver=driver),
        "pycuda.driver": driver,
        "cuda": ModuleType("cuda"),
        "cuda.bindings": SimpleNamespace(driver=bindings),
        "cuda.bindings.driver": bindings,
        "tensorrt": gpu.tensorrt(),
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)  # type: ignore[arg-type]
    monkeypatch.setattr(nvidia, "gpu", lambda: Gpu("8.7", "Orin"))
    cuda.primary_context.cache_clear()
    return gpu
