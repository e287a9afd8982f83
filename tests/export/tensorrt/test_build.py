"""export.tensorrt.build: a graph becomes an engine, or one sentence says why not."""

from __future__ import annotations

import ast
import gc
import struct
import warnings
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from onnx import TensorProto, helper

from export.tensorrt.build import LEVELS, Settings, build
from robult_edge.errors import EngineError
from robult_edge.golden import Graph
from robult_edge.trt_log import collector
from tests.conftest import ROOT

SM = {"7.5": 1, "8.0": 2, "8.6": 4, "8.9": 8, "12.0": 16, "12.1": 32}
"""Compute capability → its bit in an engine's header, as observed."""
SM86 = Settings(compute_capability="8.6")


def graph_of(operator: str, domain: str = "", size: int | str = 4) -> bytes:
    """A graph of one operator, x [B, size] → y [B, size]."""
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", size]) for n in "xy")
    node = helper.make_node(operator, ["x"], ["y"], domain=domain, name="odd")
    model = helper.make_model(
        helper.make_graph([node], "one", [x], [y]),
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("my.ops", 1)],
        ir_version=10,
    )
    return model.SerializeToString()


def header(plan: bytes) -> tuple[bytes, int, bytes, int]:
    """Magic, size, version and targets, as observed."""
    return struct.unpack_from("<4s12xI4x4s4xI", plan)


def test_every_shipped_graph_builds_and_twice_to_the_same_header(
    rtx: ModuleType, shipped_graphs: list[Graph]
) -> None:
    """Not to the same bytes: TensorRT numbers what it generates by where it lies in memory."""
    for graph in shipped_graphs:
        once, twice = (build(rtx, graph.file.read_bytes(), SM86) for _ in range(2))
        assert header(once) == header(twice), graph.name


@pytest.mark.parametrize("compute_capability", SM)
def test_an_engine_says_what_it_is_for(rtx: ModuleType, compute_capability: str) -> None:
    plan = build(rtx, graph_of("Relu"), Settings(compute_capability=compute_capability))
    version = bytes(int(n) for n in rtx.__version__.split("."))
    assert header(plan) == (b"vtrt", len(plan), version, SM[compute_capability])


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (b"not a graph", "cannot be parsed: .*MODEL_DESERIALIZE_FAILED .*Failed to parse"),
        (graph_of("Relu")[:-40], "cannot be parsed: .*Failed to parse"),
        (graph_of("Frobnicate", "my.ops"), "cannot be parsed: Frobnicate odd .*Plugin not found"),
        (graph_of("Det"), "cannot be parsed: Det odd UNSUPPORTED_NODE"),
        (b"", "no engine can be made: .*at least one output"),
        (graph_of("Relu", size="any"), r"x is \(-1, -1\), and there is no profile for more than a"),
    ],
)
def test_a_graph_that_is_no_good_is_one_sentence(rtx: ModuleType, model: bytes, says: str) -> None:
    with pytest.raises(EngineError, match=says) as refused:
        build(rtx, model, SM86)
    assert "\n" not in str(refused.value)


def test_a_failure_left_to_the_garbage_collector_does_not_hang_the_next_build(
    rtx: ModuleType, shipped_graphs: list[Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The collector comes by whenever it likes; here, in the midst of the next build."""

    def collecting(trt: ModuleType) -> Any:
        log = collector(trt)
        type(log).log = lambda *_: gc.collect()
        return log

    monkeypatch.setattr("export.tensorrt.build.collector", collecting)
    gc.freeze()  # what was there before need not be looked at each time
    for _ in range(2):
        with pytest.raises(EngineError) as refused:
            build(rtx, shipped_graphs[0].file.read_bytes(), Settings(compute_capability="7.5"))
        cycle: list[object] = [refused]
        cycle.append(cycle)
        del cycle, refused
    gc.unfreeze()


def test_fp32_matrix_products_are_refused_for_turing_by_name(
    rtx: ModuleType, shipped_graphs: list[Graph]
) -> None:
    with pytest.raises(EngineError, match=r"no engine .*node_linear.* FP32 GEMM is not supported"):
        build(rtx, shipped_graphs[0].file.read_bytes(), Settings(compute_capability="7.5"))


@pytest.mark.parametrize("batch", [(0, 1, 8), (1, 9, 8), (2, 1, 8)])
def test_a_batch_range_that_does_not_rise_is_refused(batch: tuple[int, int, int]) -> None:
    with pytest.raises(EngineError, match="must rise from 1"):
        Settings(batch=batch)


def test_a_timing_cache_is_written_and_a_strange_one_set_aside(
    rtx: ModuleType, tmp_path: Path
) -> None:
    cache = tmp_path / "timings"
    settings = Settings(compute_capability="8.6", timing_cache=cache)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # RTX keeps the calls, without effect
        build(rtx, graph_of("Relu"), settings)
        written = cache.read_bytes()
        assert written
        cache.write_bytes(b"of another GPU")
        build(rtx, graph_of("Relu"), settings)
    assert cache.read_bytes() == written


OBJECTS = {
    "builder": "Builder",
    "config": "IBuilderConfig",
    "context": "IExecutionContext",
    "engine": "ICudaEngine",
    "error": "ParserError",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "profile": "IOptimizationProfile",
    "runtime": "Runtime",
    "tensor": "ITensor",
}
"""What the code calls TensorRT's objects → their class."""


RTX_ALONE = {
    ("", "ComputeCapability"),
    ("IBuilderConfig", "num_compute_capabilities"),
    ("IBuilderConfig", "set_compute_capability"),
}


def used_names() -> set[tuple[str, str]]:
    """(class or "", attribute) of TensorRT's that build.py and gpu.py name."""
    found = set()
    for file in ("build.py", "gpu.py"):
        tree = ast.parse((ROOT / "export" / "tensorrt" / file).read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                path = ast.unparse(node).split(".")
                if path[0] == "trt":
                    found.add((".".join(path[1:-1]), path[-1]))
                elif path[0] in OBJECTS and len(path) == 2:
                    found.add((OBJECTS[path[0]], path[1]))
    return found


def test_every_name_used_is_in_the_rtx_bindings(rtx: ModuleType) -> None:
    used = used_names()
    assert ("IExecutionContext", "execute_async_v3") in used
    for owner, name in used:
        where = getattr(rtx, owner) if owner else rtx
        assert hasattr(where, name), f"{owner}.{name}"
    assert set(LEVELS.values()) < set(rtx.HardwareCompatibilityLevel.__members__)


def test_every_name_used_is_in_the_bindings_of_tensorrt_11() -> None:
    spec = find_spec("tensorrt_bindings")
    if spec is None or spec.origin is None:
        pytest.skip("tensorrt-cu13-bindings is not installed")
    folder = Path(spec.origin).parent
    known = (folder / "tensorrt.so").read_bytes() + (folder / "__init__.py").read_bytes()
    for owner, name in used_names() - RTX_ALONE:
        assert name.encode() in known, f"{owner}.{name}"
