"""ONNX graphs run as arrays in, arrays out, and checked against torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from torch import nn

from robult_edge.errors import BundleError
from robult_edge.nn.graph import MAX_BATCH

PARITY_BATCHES = (1, 3, 64)
TOLERANCE = 1e-4
"""Largest |Δ| between ONNX Runtime and torch, relative to the output's magnitude (at least 1)."""


class Graph:
    """An ONNX graph on ONNX Runtime, as export runs it: whole arrays at once."""

    def __init__(self, path: Path) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._inputs = [i.name for i in self._session.get_inputs()]

    def __call__(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """Outputs for inputs [N, ...], computed in batches."""
        n = len(arrays[0])
        parts = [
            self._session.run(
                None,
                {k: a[i : i + MAX_BATCH] for k, a in zip(self._inputs, arrays, strict=True)},
            )
            for i in range(0, n, MAX_BATCH)
        ]
        return [np.concatenate(out) for out in zip(*parts, strict=True)]


class Torch:
    """A torch module, run as a `Graph` is."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module.eval()

    def __call__(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """Outputs for inputs [N, ...]."""
        with torch.inference_mode():
            out = self._module(*(torch.from_numpy(np.ascontiguousarray(a)) for a in arrays))
        return [each.numpy() for each in (out if isinstance(out, tuple) else (out,))]


def parity(module: nn.Module, graph: Graph, inputs: Sequence[np.ndarray]) -> float:
    """Largest |Δ| between torch and ONNX Runtime at batches of 1, 3 and 64.

    Args:
        inputs: real inputs [N, ...]; N rows are repeated where 64 are not there.

    Raises:
        BundleError: they differ by more than `TOLERANCE`.
    """
    worst, reference = 0.0, Torch(module)
    for batch in PARITY_BATCHES:
        given = [np.resize(a, (batch, *a.shape[1:])) for a in inputs]
        for got, want in zip(graph(*given), reference(*given), strict=True):
            delta = float(np.abs(got - want).max())
            if not delta <= TOLERANCE * max(1.0, float(np.abs(want).max())):
                raise BundleError(
                    f"ONNX Runtime and torch differ by {delta:.2g} at batch {batch}; "
                    "the graph was not exported as trained"
                )
            worst = max(worst, delta)
    return worst
