"""FP16 in an ONNX graph: heavy layers, and what lies between them, by their types."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference

from export.tensorrt.precision import HEAVY

BETWEEN = frozenset(
    {"Add", "Concat", "Expand", "Flatten", "Gather", "Identity", "LeakyRelu", "MaxPool", "Relu",
     "Reshape", "Sigmoid", "Slice", "Split", "Squeeze", "Tanh", "Transpose", "Unsqueeze"}
)  # fmt: skip
"""Operators that follow a half-precision layer into half precision."""


def half(model: ModelProto, kept: frozenset[str]) -> ModelProto:
    """FP16 layers inside FP32 surroundings.

    A tensor keeps its name where it is FP32 and is called ``NAME/half`` where it is FP16, so that
    inputs, outputs and FP32 operators are left as they are; a Cast stands wherever one type meets
    the other.
    """
    graph = shape_inference.infer_shapes(model, strict_mode=True).graph
    floats, weights = _floats(graph), {tensor.name: tensor for tensor in graph.initializer}
    halved = _halved(graph.node, floats, weights, kept)
    full = [node for node in graph.node if node.name not in halved]
    in_full = {x for node in full for x in node.input} | {output.name for output in graph.output}
    ready = {out for node in graph.node if node.name in halved for out in node.output}
    constants = [t for name, t in weights.items() if name in in_full or name not in floats]
    nodes: list[NodeProto] = []

    def as_half(name: str) -> str:
        if name not in floats:
            return name
        halfway = f"{name}/half"
        if name not in ready:
            ready.add(name)
            if name in weights:
                values = numpy_helper.to_array(weights[name])
                constants.append(numpy_helper.from_array(_clipped(values), halfway))
            else:
                nodes.append(helper.make_node("Cast", [name], [halfway], to=TensorProto.FLOAT16))
        return halfway

    for node in graph.node:
        if node.name not in halved:
            nodes.append(node)
            continue
        changed = NodeProto()
        changed.CopyFrom(node)
        changed.input[:] = [as_half(name) for name in node.input]
        changed.output[:] = [as_half(name) for name in node.output]
        nodes.append(changed)
        nodes += (
            helper.make_node("Cast", [f"{out}/half"], [out], to=TensorProto.FLOAT)
            for out in node.output
            if out in in_full and out in floats
        )
    return _rebuilt(model, nodes, constants)


def _halved(
    nodes: Iterable[NodeProto], floats: set[str], weights: Iterable[str], kept: frozenset[str]
) -> set[str]:
    """Names of the nodes to compute in FP16: heavy ones, and what follows them alone."""
    halved, made = set[str](), set[str]()
    constants = set(weights) | {
        out for node in nodes if node.op_type == "Constant" for out in node.output
    }
    for node in nodes:
        varying = [x for x in node.input if x in floats and x not in constants]
        follows = node.op_type in BETWEEN and varying and all(x in made for x in varying)
        if node.name not in kept and (node.op_type in HEAVY or follows):
            halved.add(node.name)
            made |= set(node.output) & floats
    return halved


def _floats(graph: onnx.GraphProto) -> set[str]:
    """Names of the FP32 tensors."""
    values = (*graph.input, *graph.value_info, *graph.output)
    found = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    return found | {t.name for t in graph.initializer if t.data_type == TensorProto.FLOAT}


def _clipped(values: np.ndarray) -> np.ndarray:
    most = np.finfo(np.float16).max
    return np.clip(values, -most, most).astype(np.float16)


def _rebuilt(
    model: ModelProto, nodes: Sequence[NodeProto], constants: Sequence[TensorProto]
) -> ModelProto:
    graph = helper.make_graph(
        nodes, model.graph.name, list(model.graph.input), list(model.graph.output), constants
    )
    rebuilt = helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version
    )
    onnx.checker.check_model(rebuilt, full_check=True)
    return rebuilt
