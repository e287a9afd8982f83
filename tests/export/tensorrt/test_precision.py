"""FP16 and INT8 live in the graph, and the answers stay what they were."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper

from export.tensorrt import int8, precision
from export.tensorrt.build import Settings, build
from export.tensorrt.graphs import on_cpu
from export.tensorrt.half import half
from export.tensorrt.parity import difference, probabilities
from robult_edge import data, nvidia, subsets
from robult_edge.bundle import Bundle, Precision
from robult_edge.data import Dataset
from robult_edge.data.watch import MODALITIES
from robult_edge.errors import EngineError
from robult_edge.golden import Graph
from robult_edge.nn import encoders
from robult_edge.nn.graph import write

Converted = dict[Precision, list[ModelProto]]


@pytest.fixture(scope="module")
def watch() -> Dataset:
    return data.load("watch")


@pytest.fixture(scope="module")
def converted(shipped: Bundle, shipped_graphs: list[Graph]) -> Converted:
    """Every shipped graph in every precision."""
    every: Converted = {"fp32": [], "fp16": [], "int8": []}
    windows = int8.calibration(shipped, shipped_graphs, None)
    for graph, calibration in zip(shipped_graphs, windows, strict=True):
        model = precision.named(onnx.load(graph.file))
        every["fp32"].append(model)
        for kind, convert in (("fp16", half), ("int8", partial(int8.int8, windows=calibration))):
            tolerance = nvidia.TOLERANCES[kind]
            raw, _ = precision.faithful(model, convert, graph.inputs, graph.outputs, tolerance)
            every[kind].append(onnx.load_from_string(raw))
    return every


def fused(bundle: Bundle, dataset: Dataset, models: list[ModelProto]) -> np.ndarray:
    """Probabilities [2^M − 1, n, K] on the held-out windows, every graph on ONNX Runtime."""
    *branches, head = (on_cpu(model.SerializeToString()) for model in models)
    names, rows = bundle.manifest.names, dataset.test & (dataset.y >= 0)
    said = [run(dataset.windows[n][rows]) for run, n in zip(branches, names, strict=True)]
    h = np.stack([h for _, h in said], axis=1)
    alive = subsets.as_bools(subsets.all_subsets(len(names)), len(names))
    (over,) = head(np.tile(h, (len(alive), 1, 1)), np.repeat(alive, len(h), axis=0))
    return probabilities(bundle.manifest, [logits for logits, _ in said], over)


def test_fp32_graphs_score_what_the_manifest_says(
    shipped: Bundle, watch: Dataset, converted: Converted
) -> None:
    y = watch.y[watch.test & (watch.y >= 0)]
    for entry, p in zip(
        shipped.manifest.tables["pool"], fused(shipped, watch, converted["fp32"]), strict=True
    ):
        assert (p.argmax(1) == y).mean() == pytest.approx(entry.expected.accuracy, abs=1e-3)


@pytest.mark.parametrize(("kind", "share", "most"), [("fp16", 0.999, 0.002), ("int8", 0.98, 0.3)])
def test_held_out_windows_get_the_same_label_over_every_subset(
    shipped: Bundle,
    watch: Dataset,
    converted: Converted,
    kind: Precision,
    share: float,
    most: float,
) -> None:
    want = fused(shipped, watch, converted["fp32"])
    got = fused(shipped, watch, converted[kind])
    assert ((got.argmax(2) == want.argmax(2)).mean(axis=1) >= share).all()
    assert np.abs(got - want).max() <= most


@pytest.mark.parametrize("kind", ["fp16", "int8"])
def test_golden_vectors_and_interface_are_kept(
    shipped_graphs: list[Graph], converted: Converted, kind: Precision
) -> None:
    for graph, plain, model in zip(shipped_graphs, converted["fp32"], converted[kind], strict=True):
        delta = difference(on_cpu(model.SerializeToString())(*graph.inputs), graph.outputs).max_rel
        assert 0 < delta <= nvidia.TOLERANCES[kind], graph.name
        assert list(model.graph.input) == list(plain.graph.input)
        assert list(model.graph.output) == list(plain.graph.output)


def test_each_precision_is_in_the_graph(converted: Converted) -> None:
    for model in converted["fp16"]:
        stored = {t.data_type for t in model.graph.initializer if t.dims and len(t.dims) > 1}
        assert TensorProto.FLOAT16 in stored
    for model in converted["int8"]:
        assert {"QuantizeLinear", "DequantizeLinear"} <= {n.op_type for n in model.graph.node}
        zeros = [t for t in model.graph.initializer if t.name.endswith("zero_point")]
        assert not any(numpy_helper.to_array(t).any() for t in zeros), "TensorRT wants symmetry"


@pytest.mark.parametrize("kind", ["fp16", "int8"])
def test_every_precision_builds(rtx: ModuleType, converted: Converted, kind: Precision) -> None:
    for model in converted[kind]:
        build(rtx, model.SerializeToString(), Settings(compute_capability="8.6"))


def test_fp16_builds_for_turing_where_fp32_does_not(rtx: ModuleType, converted: Converted) -> None:
    for model in converted["fp16"]:
        build(rtx, model.SerializeToString(), Settings(compute_capability="7.5"))


def pressure(weight: float) -> ModelProto:
    """x [B, 4] in Pa → (x − 101325) / 50 → two products and a Relu → [B, 4]."""
    constants = {
        "mean": np.full(4, 101_325, np.float32),
        "std": np.full(4, 50, np.float32),
        "large": np.eye(4, dtype=np.float32) * weight,
        "small": np.eye(4, dtype=np.float32) / weight,
    }
    nodes = [
        helper.make_node("Sub", ["x", "mean"], ["level"]),
        helper.make_node("Div", ["level", "std"], ["normal"]),
        helper.make_node("MatMul", ["normal", "large"], ["up"]),
        helper.make_node("Relu", ["up"], ["positive"]),
        helper.make_node("MatMul", ["positive", "small"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 4]) for n in "xy")
    graph = helper.make_graph(
        nodes, "pressure", [x], [y], [numpy_helper.from_array(v, k) for k, v in constants.items()]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return precision.named(model)


PASCALS = 101_325 + np.random.default_rng(0).normal(0, 50, (32, 4)).astype(np.float32)


def test_raw_units_beyond_the_range_of_fp16_are_normalised_before_they_are_halved() -> None:
    model = pressure(weight=2.0)
    want = on_cpu(model.SerializeToString())(PASCALS)
    raw, kept = precision.faithful(model, half, [PASCALS], want, 1e-2)
    assert not kept
    assert difference(on_cpu(raw)(PASCALS), want).max_rel < 2e-3
    halves = onnx.load_from_string(raw).graph.node
    assert sum(node.op_type == "Cast" for node in halves) == 2  # one in, one out, none between


def test_a_layer_that_overflows_fp16_stays_fp32_and_is_named() -> None:
    model = pressure(weight=1e6)
    want = on_cpu(model.SerializeToString())(PASCALS)
    raw, kept = precision.faithful(model, half, [PASCALS], want, 1e-2)
    assert "MatMul_2" in kept
    assert difference(on_cpu(raw)(PASCALS), want).max_rel < 1e-2


def test_a_graph_that_never_met_its_golden_vectors_is_refused() -> None:
    want = [np.zeros((32, 4), np.float32)]
    with pytest.raises(EngineError, match="the ONNX graph itself is off its golden vectors by"):
        precision.faithful(pressure(2.0), half, [PASCALS], want, 1e-2)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("nowhere.toml", r"training windows of 'nowhere.toml', which cannot be read \(.*--dataset"),
        ("synthetic", "'synthetic' has not the bundle's modalities .*--dataset, or .* fp16"),
    ],
)
def test_int8_without_training_windows_is_refused(
    shipped: Bundle, shipped_graphs: list[Graph], source: str, says: str
) -> None:
    with pytest.raises(EngineError, match=says):
        int8.calibration(shipped, shipped_graphs, source)


def test_calibration_never_sees_a_held_out_window(
    shipped: Bundle, shipped_graphs: list[Graph], watch: Dataset
) -> None:
    held_out = {window.tobytes() for window in watch.windows["acc"][watch.test]}
    acc, *_ = int8.calibration(shipped, shipped_graphs, None)
    assert len(acc[0]) == int8.WINDOWS
    assert not any(window.tobytes() in held_out for window in acc[0])


def test_attention_converts_and_builds_as_well(rtx: ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(0)
    spec = MODALITIES[0]
    x = torch.randn(16, *spec.window_shape)
    write(encoders.build("transformer", spec, 16).eval(), (x,), tmp_path / "f.onnx", ["x"], ["h"])
    model, windows = precision.named(onnx.load(tmp_path / "f.onnx")), [x.numpy()]
    want = on_cpu(model.SerializeToString())(*windows)
    for kind, convert in (("fp16", half), ("int8", partial(int8.int8, windows=windows))):
        raw, kept = precision.faithful(model, convert, windows, want, nvidia.TOLERANCES[kind])
        assert not kept
        build(rtx, raw, Settings(compute_capability="8.6"))
