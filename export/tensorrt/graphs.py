"""Graphs as functions on arrays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Run = Callable[..., list[np.ndarray]]
"""Arrays [N, ...] in, arrays [N, ...] out, in the order of the graph's inputs and outputs."""


def on_cpu(model: bytes) -> Run:
    """An ONNX graph on ONNX Runtime."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    return lambda *arrays: session.run(None, dict(zip(names, arrays, strict=True)))


def in_batches(run: Run, most: int) -> Run:
    """The same function, given at most ``most`` rows at a time."""

    def batched(*arrays: np.ndarray) -> list[np.ndarray]:
        starts = range(0, len(arrays[0]), most)
        parts = [[out.copy() for out in run(*(a[i : i + most] for a in arrays))] for i in starts]
        return [np.concatenate(out) for out in zip(*parts, strict=True)]

    return batched
