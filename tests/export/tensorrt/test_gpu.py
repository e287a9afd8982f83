"""export.tensorrt.gpu against a stand-in for TensorRT and pycuda that computes on the CPU.

The stand-in has only the calls that TensorRT 10 and 11 document, takes ONNX for engines, and keeps
"device memory" apart from arrays, so that a copy forgotten or an address mixed up shows.
"""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from export.tensorrt import gpu
from export.tensorrt.graphs import in_batches, on_cpu
from export.tensorrt.parity import difference
from robult_edge import nvidia
from robult_edge.errors import EngineError, MissingExtraError
from robult_edge.golden import Graph
from robult_edge.nvidia import Gpu

MEMORY: dict[int, bytearray] = {}
LARGEST = 16
"""Largest batch of the stand-in's engines."""


def allocate(size: int) -> int:
    address = 4096 * (len(MEMORY) + 1)
    MEMORY[address] = bytearray(size)
    return address


def to_device(address: int, array: np.ndarray) -> None:
    MEMORY[address][:] = array.tobytes()


def to_host(array: np.ndarray, address: int) -> None:
    array[...] = np.frombuffer(MEMORY[address], array.dtype).reshape(array.shape)


class Context:
    def __init__(self, engine: StandIn) -> None:
        self._engine, self._shapes, self._addresses = engine, {}, {}  # type: ignore[var-annotated]

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shapes[name] = shape
        return shape[0] <= LARGEST

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        (batch,) = {shape[0] for shape in self._shapes.values()}
        return (batch, *self._engine.shape(name)[1:])

    def execute_async_v3(self, stream: int) -> bool:
        inputs = [
            np.frombuffer(MEMORY[self._addresses[v.name]], self._engine.get_tensor_dtype(v.name))
            .reshape(self._shapes[v.name])
            for v in self._engine.graph.input
        ]  # fmt: skip
        answers = self._engine.run(*inputs)
        for value, answer in zip(self._engine.graph.output, answers, strict=True):
            to_device(self._addresses[value.name], answer)
        return True


class StandIn:
    """An engine whose plan is an ONNX graph."""

    def __init__(self, plan: bytes) -> None:
        self.graph, self.run = onnx.load_from_string(plan).graph, on_cpu(plan)
        # TensorRT promises no order of inputs before outputs.
        self._values = {v.name: v for v in (*self.graph.output, *self.graph.input)}
        self.num_io_tensors = len(self._values)

    def __len__(self) -> int:
        return 0

    def get_tensor_name(self, i: int) -> str:
        return list(self._values)[i]

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name in {v.name for v in self.graph.input} else "out"

    def get_tensor_dtype(self, name: str) -> np.dtype:
        return onnx.helper.tensor_dtype_to_np_dtype(self._values[name].type.tensor_type.elem_type)

    def shape(self, name: str) -> list[int]:
        return [d.dim_value for d in self._values[name].type.tensor_type.shape.dim]

    def create_execution_context(self) -> Context:
        return Context(self)


class Runtime:
    def __init__(self, log: Any) -> None:
        self._log = log

    def deserialize_cuda_engine(self, plan: bytes) -> StandIn | None:
        if plan == b"of another version":
            self._log.log(1, "The engine plan file is not compatible\nwith this version")
            return None
        return StandIn(plan)


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> Any:
    cuda = SimpleNamespace(
        mem_alloc=allocate,
        memcpy_htod=to_device,
        memcpy_dtoh=to_host,
        Stream=lambda: SimpleNamespace(handle=0, synchronize=lambda: None),
    )
    pycuda = SimpleNamespace(driver=cuda, autoprimaryctx=None)
    for name, module in (("", pycuda), (".driver", cuda), (".autoprimaryctx", None)):
        monkeypatch.setitem(sys.modules, f"pycuda{name}", module or ModuleType("module"))
    monkeypatch.setattr(nvidia, "gpu", lambda: Gpu("8.7", "Orin"))
    monkeypatch.setattr(sys.modules[__name__], "MEMORY", {})
    return SimpleNamespace(
        ILogger=type("ILogger", (), {"INTERNAL_ERROR": 0, "ERROR": 1}),
        Runtime=Runtime,
        TensorIOMode=SimpleNamespace(INPUT="in"),
        nptype=lambda dtype: dtype,
    )


def test_an_engine_answers_as_its_graph_does(trt: Any, shipped_graphs: list[Graph]) -> None:
    for graph in shipped_graphs:
        run = in_batches(gpu.runner(trt, "8.7")(graph.file.read_bytes()), LARGEST)
        assert difference(run(*graph.inputs), graph.outputs).max_rel < 1e-5


def test_a_batch_beyond_the_profile_is_refused(trt: Any, shipped_graphs: list[Graph]) -> None:
    run = gpu.runner(trt, "8.7")(shipped_graphs[0].file.read_bytes())
    with pytest.raises(EngineError, match=r"^x \(17, 3, 128\) is refused"):
        run(np.zeros((17, 3, 128), np.float32))


def test_an_engine_that_does_not_load_is_one_sentence(trt: Any) -> None:
    with pytest.raises(EngineError, match="not compatible with this version"):
        gpu.runner(trt, "8.7")(b"of another version")


def test_engines_for_another_gpu_are_not_run(trt: Any) -> None:
    with pytest.raises(EngineError, match="the GPU here is no sm86 but a Orin"):
        gpu.runner(trt, "8.6")


def test_without_pycuda_the_extra_is_named(trt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda.autoprimaryctx", None)
    with pytest.raises(MissingExtraError, match=r"robult-edge\[tensorrt\]"):
        gpu.runner(trt, "8.7")
