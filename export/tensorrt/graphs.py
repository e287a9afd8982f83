"""A bundle's graphs as functions on arrays, and what each must answer to the golden vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robult_edge import subsets
from robult_edge.bundle import Branch, Bundle, Head

Run = Callable[..., list[np.ndarray]]
"""Arrays [N, ...] in, arrays [N, ...] out, in the order of the graph's inputs and outputs."""


@dataclass(frozen=True)
class Graph:
    """One of a bundle's graphs, with its golden vectors.

    Attributes:
        name: the modality, or ``fusion head``.
        entry: its place in the manifest.
        file: the ONNX file.
        inputs, outputs: [n, ...] each; for the head, the golden windows over every alive subset.
    """

    name: str
    entry: Branch | Head
    file: Path
    inputs: tuple[np.ndarray, ...]
    outputs: tuple[np.ndarray, ...]


def graphs(bundle: Bundle) -> list[Graph]:
    """Every branch, and the fusion head last."""
    golden, names = bundle.golden(), bundle.manifest.names
    every = subsets.as_bools(subsets.all_subsets(len(names)), len(names))
    h = np.stack([golden[f"h.{name}"] for name in names], axis=1)
    found = [
        Graph(
            name,
            branch,
            bundle.file(branch.onnx),
            (golden[f"x.{name}"],),
            (golden[f"logits.{name}"], golden[f"h.{name}"]),
        )
        for name, branch in zip(names, bundle.manifest.branches, strict=True)
    ]
    head = bundle.manifest.head
    over_subsets = (np.tile(h, (len(every), 1, 1)), np.repeat(every, len(h), axis=0))
    logits = golden["head"].reshape(-1, golden["head"].shape[-1])
    return [*found, Graph("fusion head", head, bundle.file(head.onnx), over_subsets, (logits,))]


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
