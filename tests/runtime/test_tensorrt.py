"""runtime.backends.tensorrt: engines answer as their graphs do, and where they cannot, others do.

Without a GPU: against `tests.runtime.standin`, and against the real bindings as far as names go.
What a GPU makes of it is in tests/gpu/test_backend.py.
"""

from __future__ import annotations

import ast
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import msgspec
import numpy as np
import pytest

from robult_edge import bundle, nvidia
from robult_edge.bundle import Bundle, Precision
from robult_edge.errors import EngineError, MissingExtraError
from robult_edge.golden import Graph, deviation, graphs
from robult_edge.nvidia import Target
from runtime.backends import cuda
from runtime.backends.tensorrt import TensorRtBackend, sizes
from runtime.engines import Engines
from tests.conftest import ROOT
from tests.export.tensorrt.test_build import OBJECTS
from tests.runtime import standin
from tests.runtime.standin import HERE, StandIn

LARGEST = 16
BRANCHES = {"acc", "gyro"}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    yield standin.install(monkeypatch)
    cuda.primary_context.cache_clear()


@pytest.fixture(scope="module")
def golden(shipped: Bundle) -> list[Graph]:
    return graphs(shipped)


def loaded(graph: Graph, replay: bool = True) -> TensorRtBackend:
    return TensorRtBackend(graph.file.read_bytes(), "trt", (1, 1, LARGEST), replay)


def give_engines(
    path: Path,
    target: Target = HERE,
    precision: Precision = "fp32",
    plan: Callable[[Graph], bytes] = lambda graph: graph.file.read_bytes(),
) -> Bundle:
    """Put an engine of every graph into the bundle at ``path``."""
    found = bundle.load(path)
    entries = []
    for graph in graphs(found):
        engine = bundle.Engine(
            plan=bundle.write_bytes(found.path / f"{graph.file.stem}.plan", plan(graph)),
            key=nvidia.key(graph.entry.onnx.sha256, precision, target),
            precision=precision,
            batch=(1, 1, LARGEST),
            **msgspec.structs.asdict(target),
        )
        entries.append(msgspec.structs.replace(graph.entry, engines=(engine,)))
    branches, head = tuple(entries[:-1]), entries[-1]
    manifest = msgspec.structs.replace(found.manifest, branches=branches, head=head)
    bundle.write_manifest(found.path, manifest)
    return bundle.load(path)


def with_engines(shipped: Bundle, where: Path, **options: Any) -> Bundle:
    """A copy of the shipped bundle, with engines."""
    return give_engines(shutil.copytree(shipped.path, where / "engines"), **options)


@pytest.mark.parametrize("replay", [True, False])
def test_engine_answers_as_its_graph_does(gpu: StandIn, golden: list[Graph], replay: bool) -> None:
    for graph in golden:
        backend = loaded(graph, replay)
        assert deviation(backend.run(*graph.inputs), graph.outputs) < 1e-5
        backend.close()
        del backend
        assert (gpu.freed, gpu.pinned) == (len(gpu.memory), 0)
    assert bool(gpu.calls["replay"]) == replay


@pytest.mark.parametrize("n", [1, 2, 3, 5, 16, 17, 40])
def test_every_batch_is_answered_row_by_row(gpu: StandIn, golden: list[Graph], n: int) -> None:
    """Whatever lies in the rows that round it up, and in the batches before."""
    graph, backend = golden[0], loaded(golden[0])
    rows = np.arange(n) % len(graph.inputs[0])
    for turned in (rows, rows[::-1]):
        got = backend.run(*(a[turned] for a in graph.inputs))
        assert [len(o) for o in got] == [n, n]
        assert deviation(got, [o[turned] for o in graph.outputs]) < 1e-5


@pytest.mark.parametrize(
    ("least", "largest", "expected"),
    [
        (1, 1, (1,)),
        (1, 16, (1, 2, 4, 8, 16)),
        (1, 6, (1, 2, 4, 6)),
        (4, 48, (4, 8, 16, 32, 48)),
        (3, 3, (3,)),
    ],
)
def test_batch_sizes_are_powers_of_two_and_the_largest(
    least: int, largest: int, expected: tuple[int, ...]
) -> None:
    assert sizes(least, largest) == expected


def test_a_run_replays_its_graph_and_does_nothing_else(gpu: StandIn, golden: list[Graph]) -> None:
    backend = loaded(golden[0])
    one = golden[0].inputs[0][:1]
    gpu.calls.clear()
    for _ in range(5):
        backend.run(one)
    assert gpu.calls == {"replay": 5, "record": 5, "wait": 5}


def test_any_thread_may_run_and_close_an_engine(gpu: StandIn, golden: list[Graph]) -> None:
    backend, said = loaded(golden[0]), []

    def elsewhere() -> None:
        said.extend(backend.run(*golden[0].inputs))
        backend.close()

    thread = Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert deviation(said, golden[0].outputs) < 1e-5
    assert gpu.freed == len(gpu.memory)


def test_best_backend_is_the_bundles_engine(gpu: StandIn, shipped: Bundle, tmp_path: Path) -> None:
    engines = Engines(with_engines(shipped, tmp_path, precision="fp16"))
    assert {g.name: g.choice for g in engines.graphs} == dict.fromkeys(
        (*BRANCHES, "fusion head"), "tensorrt-fp16"
    )
    engines.close()


def without_driver(gpu: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise EngineError("no CUDA driver here (libcuda.so.1 cannot be loaded)")

    monkeypatch.setattr(nvidia, "gpu", absent)


def without(module: str) -> Callable[[StandIn, pytest.MonkeyPatch], None]:
    return lambda gpu, monkeypatch: monkeypatch.setitem(sys.modules, module, None)


def setting(name: str, value: Any) -> Callable[[StandIn, pytest.MonkeyPatch], None]:
    return lambda gpu, monkeypatch: setattr(gpu, name, value)


@pytest.mark.parametrize(
    ("befalls", "bundle_of", "reason"),
    [
        (without_driver, {}, "no CUDA driver here (libcuda.so.1 cannot be loaded)"),
        (without("tensorrt"), {}, "tensorrt cannot be imported (import of tensorrt halted; None"),
        (without("pycuda.driver"), {}, "pycuda is not installed; mend: pip install 'robult-edge"),
        (without("cuda.bindings"), {}, "cuda-bindings is not installed; mend: pip install 'robult"),
        (
            setting("limit_bytes", 100),
            {},
            "the GPU does not take the engine: cuMemAlloc failed: out of memory",
        ),
        (
            setting("refuses_graphs", True),
            {},
            "the CUDA graph fails: CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
        ),
        (
            setting("lost", True),
            {},
            "the CUDA graph fails: CUDA_ERROR_ILLEGAL_ADDRESS",
        ),
        (setting("off", 0.5), {}, "off its golden vectors by 0."),
        (
            setting("off", 0.0),
            {"target": msgspec.structs.replace(HERE, device="Thor", compute_capability="11.0")},
            ".plan: compute capability 11.0, here 8.7; device Thor, here Orin",
        ),
        (
            setting("off", 0.0),
            {"target": msgspec.structs.replace(HERE, tensorrt="10.7.0")},
            ".plan: tensorrt 10.7.0, here 10.3.0",
        ),
        (
            setting("off", 0.0),
            {"plan": lambda graph: b"of another version"},
            "no engine of the plan can be made: The engine plan file is not compatible with this",
        ),
    ],
)
def test_onnx_runtime_takes_over_and_one_sentence_says_why(
    gpu: StandIn,
    monkeypatch: pytest.MonkeyPatch,
    shipped: Bundle,
    tmp_path: Path,
    befalls: Callable[[StandIn, pytest.MonkeyPatch], None],
    bundle_of: dict[str, Any],
    reason: str,
) -> None:
    made = with_engines(shipped, tmp_path, **bundle_of)
    befalls(gpu, monkeypatch)
    engines = Engines(made)
    for graph in engines.graphs:
        assert graph.label == "onnxruntime-cpu"
        against = graph.choice.removeprefix("onnxruntime-cpu (tensorrt-fp32: ")
        assert reason in against
        assert "\n" not in against
    assert gpu.freed == len(gpu.memory), "what was half made is freed"
    assert not gpu.pinned
    engines.close()


def test_one_graph_may_fall_back_alone(gpu: StandIn, shipped: Bundle, tmp_path: Path) -> None:
    def plan(graph: Graph) -> bytes:
        return b"of another version" if graph.name == "gyro" else graph.file.read_bytes()

    engines = Engines(with_engines(shipped, tmp_path, plan=plan))
    assert [g.label for g in engines.graphs] == [
        "tensorrt-fp32",
        "onnxruntime-cpu",
        "tensorrt-fp32",
    ]
    engines.close()


@pytest.mark.parametrize(
    ("harm", "says"),
    [(Path.unlink, "missing"), (lambda f: f.write_bytes(b"another"), "sha256 is")],
)
def test_a_damaged_engine_is_set_aside_alone_and_never_read(
    gpu: StandIn,
    shipped: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    harm: Callable[[Path], None],
    says: str,
) -> None:
    made = with_engines(shipped, tmp_path)
    harm(made.path / "gyro.plan")
    given: list[bytes] = []
    deserialise = standin.Runtime.deserialize_cuda_engine

    def watched(self: standin.Runtime, plan: bytes) -> standin.Engine | None:
        given.append(plan)
        return deserialise(self, plan)

    monkeypatch.setattr(standin.Runtime, "deserialize_cuda_engine", watched)
    engines = Engines(bundle.load(made.path))
    acc, gyro, head = engines.graphs
    assert (acc.choice, head.choice) == ("tensorrt-fp32", "tensorrt-fp32")
    assert gyro.choice.startswith(f"onnxruntime-cpu (tensorrt-fp32: {made.path}/gyro.plan: {says}")
    assert b"another" not in given
    engines.close()


def test_an_engine_may_be_as_far_off_as_its_precision_allows(
    gpu: StandIn, shipped: Bundle, tmp_path: Path
) -> None:
    gpu.off = 5e-3
    engines = Engines(with_engines(shipped, tmp_path, precision="fp16"))
    assert {g.label for g in engines.graphs} == {"tensorrt-fp16"}
    engines.close()


def test_an_engine_that_fails_at_work_is_out_and_onnx_runtime_takes_its_place(
    gpu: StandIn, shipped: Bundle, tmp_path: Path
) -> None:
    engines = Engines(with_engines(shipped, tmp_path))
    acc = engines.branches[0]
    gpu.lost = True
    assert acc.backend is not None
    with pytest.raises(EngineError, match="CUDA_ERROR_ILLEGAL_ADDRESS") as failed:
        acc.backend.run(np.zeros((1, 3, 128), np.float32))
    acc.fail(str(failed.value), 0)
    acc.choose()
    assert acc.choice.startswith("onnxruntime-cpu (tensorrt-fp32: the CUDA graph fails")
    engines.close()


def used(file: str, root: str, *functions: str) -> set[tuple[str, str]]:
    """(what it is of, name) of all under ``root`` and of TensorRT's objects in ``functions``."""
    tree = ast.parse((ROOT / "runtime" / "backends" / file).read_text())
    found = set()
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef) or function.name not in functions:
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.Attribute):
                of, _, name = ast.unparse(node).removeprefix("self._").rpartition(".")
                first, *path = of.split(".")
                if first == root:
                    found.add((".".join(path), name))
                elif root == "trt" and first in OBJECTS and not path:
                    found.add((OBJECTS[first], name))
    return found


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("tensorrt_rtx", used("tensorrt.py", "trt", "_load", "__init__", "shape", "execute")),
        ("cuda.bindings.driver", used("cuda.py", "driver", "captured")),
    ],
)
def test_every_name_used_is_in_the_real_bindings(module: str, names: set[tuple[str, str]]) -> None:
    real = pytest.importorskip(module, reason=f"{module} is not installed")
    assert len(names) > 7
    for owner, name in names:
        where: Any = real
        for part in filter(None, owner.split(".")):
            where = getattr(where, part)
        assert hasattr(where, name), f"{owner}.{name}"


def test_real_tensorrt_gets_as_far_as_the_driver() -> None:
    pytest.importorskip("tensorrt_rtx", reason="pip install 'robult-edge[rtx]'")
    assert nvidia.library("rtx").__version__
    try:
        nvidia.gpu()
    except EngineError as absent:
        said = str(absent)
    else:
        pytest.skip("there is a GPU: tests/gpu/test_backend.py goes on from here")
    with pytest.raises(EngineError) as refused:
        TensorRtBackend(b"", "rtx", (1, 1, 1))
    assert str(refused.value) == said


def test_without_pycuda_the_extra_is_named(
    gpu: StandIn, golden: list[Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(MissingExtraError, match=r"robult-edge\[tensorrt\]"):
        loaded(golden[0])
