"""How far a bundle's engines are from its golden vectors, per graph and per fused decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from export.tensorrt.graphs import Run
from robult_edge import fusion, subsets
from robult_edge.bundle import Bundle, Manifest
from robult_edge.golden import Graph


@dataclass(frozen=True)
class Difference:
    """|Δ| between what was said and what should have been.

    Attributes:
        max_abs: the largest.
        max_rel: the largest, relative to the largest magnitude wanted (at least 1).
        median, p99: quantiles.
    """

    max_abs: float
    max_rel: float
    median: float
    p99: float


@dataclass(frozen=True)
class Parity:
    """A bundle's engines against its golden vectors.

    Attributes:
        graphs: per graph, over all its outputs, given the golden inputs.
        fused: per alive subset, of the fused probabilities, engine feeding engine.
        agreement: per alive subset, share of the golden windows with the same label.
    """

    graphs: dict[str, Difference]
    fused: dict[str, Difference]
    agreement: dict[str, float]

    def __str__(self) -> str:
        """A table for a terminal."""
        lines = [f"{'max |Δ|':>24}{'relative':>10}{'median':>10}{'p99':>10}{'same label':>12}"]
        for title, rows in (("", self.graphs), ("fused ", self.fused)):
            for name, d in rows.items():
                values = (d.max_abs, d.max_rel, d.median, d.p99)
                same = f"{self.agreement[name]:12.0%}" if title else ""
                lines.append(f"{title + name:14}" + "".join(f"{v:10.1e}" for v in values) + same)
        return "\n".join(lines)


def parity(bundle: Bundle, graphs: Sequence[Graph], runs: Sequence[Run]) -> Parity:
    """Compare.

    Args:
        bundle: whose decision table is used.
        graphs: every branch, and the head last.
        runs: what runs each of them.
    """
    manifest, names = bundle.manifest, bundle.manifest.names
    said = [run(*graph.inputs) for graph, run in zip(graphs, runs, strict=True)]
    h = np.stack([h for _, h in said[:-1]], axis=1)
    _, alive = graphs[-1].inputs
    (head,) = runs[-1](np.tile(h, (len(alive) // len(h), 1, 1)), alive)
    got = probabilities(manifest, [logits for logits, _ in said[:-1]], head)
    want = probabilities(manifest, [g.outputs[0] for g in graphs[:-1]], graphs[-1].outputs[0])
    fused, agreement = {}, {}
    for mask, g, w in zip(subsets.all_subsets(len(names)), got, want, strict=True):
        name = subsets.name(mask, names)
        fused[name] = difference([g], [w])
        agreement[name] = float((g.argmax(1) == w.argmax(1)).mean())
    by_graph = {g.name: difference(s, g.outputs) for g, s in zip(graphs, said, strict=True)}
    return Parity(by_graph, fused, agreement)


def probabilities(
    manifest: Manifest, branches: Sequence[np.ndarray], head: np.ndarray
) -> np.ndarray:
    """Fused probabilities [2^M − 1, n, K] by the rule ``pool``, for every alive subset.

    Args:
        manifest: temperatures and weights.
        branches: logits [n, K] of each branch.
        head: logits [(2^M − 1) n, K] of the head over every subset, by ascending mask.
    """
    names, n = manifest.names, len(branches[0])
    tempered = [y / b.temperature for y, b in zip(branches, manifest.branches, strict=True)]
    by_subset = head.reshape(-1, n, head.shape[-1]) / manifest.head.temperature
    fused = []
    for entry in manifest.tables["pool"]:
        uses = subsets.mask_of(names.index(name) for name in entry.uses)
        y = np.stack([*tempered, by_subset[uses - 1]], axis=1)
        fused.append(fusion.pool(y, np.array([*entry.weights, entry.head_weight])))
    return np.stack(fused)


def difference(got: Sequence[np.ndarray], want: Sequence[np.ndarray]) -> Difference:
    """Over all the outputs of a graph together; infinite where something is not finite."""
    deltas = [np.nan_to_num(np.abs(g - w), nan=np.inf) for g, w in zip(got, want, strict=True)]
    scales = [max(1.0, np.abs(w).max()) for w in want]
    every = np.concatenate([d.ravel() for d in deltas])
    return Difference(
        max_abs=float(every.max()),
        max_rel=max(float(d.max() / scale) for d, scale in zip(deltas, scales, strict=True)),
        median=float(np.median(every)),
        p99=float(np.quantile(every, 0.99, method="higher")),
    )
