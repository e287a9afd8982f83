"""Precision lives in the graph: FP16 by types, INT8 by Q/DQ pairs, where the answers allow it.

Heavy layers, and what lies between them, are computed in less; normalisation, reductions, softmax
and every other operator stay FP32, as do inputs and outputs. A heavy layer without which the graph
would leave its golden vectors stays FP32 too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from onnx import ModelProto

from export.tensorrt.graphs import on_cpu
from export.tensorrt.parity import difference
from robult_edge.errors import EngineError

HEAVY = frozenset({"Conv", "ConvTranspose", "Einsum", "GRU", "Gemm", "LSTM", "MatMul"})
"""Layers worth computing in less: matrix products."""
Convert = Callable[[ModelProto, frozenset[str]], ModelProto]
"""(graph, names of the layers to keep FP32) → graph of less precision."""


def faithful(
    model: ModelProto,
    convert: Convert,
    inputs: Sequence[np.ndarray],
    outputs: Sequence[np.ndarray],
    tolerance: float,
) -> tuple[bytes, frozenset[str]]:
    """Convert, and keep layers FP32, worst first, until the graph answers as it should.

    Args:
        model: the FP32 graph; its nodes are named.
        convert: `export.tensorrt.half.half`, or `export.tensorrt.int8.int8` less its windows.
        inputs, outputs: golden vectors.
        tolerance: see `robult_edge.nvidia.TOLERANCES`.

    Returns:
        The serialised graph, and the heavy layers that it keeps FP32.

    Raises:
        EngineError: not even with every layer FP32 does it answer as it should.
    """

    def attempt(kept: frozenset[str]) -> tuple[float, bytes]:
        converted = convert(model, kept).SerializeToString()
        return difference(on_cpu(converted)(*inputs), outputs).max_rel, converted

    kept: frozenset[str] = frozenset()
    delta, converted = attempt(kept)
    while not delta <= tolerance:
        others = [n.name for n in model.graph.node if n.op_type in HEAVY and n.name not in kept]
        if not others:
            raise EngineError(f"the ONNX graph itself is off its golden vectors by {delta:.2g}")
        tried = [(attempt(kept | {name}), name) for name in others]
        (delta, converted), name = min(tried, key=lambda one: one[0][0])
        kept |= {name}
    return converted, kept


def named(model: ModelProto) -> ModelProto:
    """The model with a name on every node, by which layers are kept FP32."""
    for i, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{i}"
    return model
