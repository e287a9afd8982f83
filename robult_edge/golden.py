"""A bundle's golden vectors by graph: what each must answer, and how far an answer is off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robult_edge import subsets
from robult_edge.bundle import Branch, Bundle, Head


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


def deviation(got: Sequence[np.ndarray], want: Sequence[np.ndarray]) -> float:
    """Largest |Δ| relative to the magnitude wanted; infinite for NaN or a wrong shape."""
    worst = 0.0
    for g, w in zip(got, want, strict=True):
        if g.shape != w.shape or not np.isfinite(g).all():
            return float("inf")
        worst = max(worst, float(np.abs(g - w).max() / max(1.0, np.abs(w).max())))
    return worst
