"""What each alive subset is worth: the expected-accuracy table, on held-out data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from robult_edge import conformal, metrics, subsets
from robult_edge.bundle import Measured, SubsetEntry
from robult_edge.errors import BundleError
from robult_edge.fusion import Rule
from robult_edge.late_fusion import Answers, Fit

Run = Callable[..., list[np.ndarray]]
"""Arrays [N, ...] in, arrays [N, ...] out: see `export.onnx.Graph` and `export.onnx.Torch`."""


def answer(
    branches: Sequence[Run],
    head: Run,
    windows: Sequence[np.ndarray],
    present: np.ndarray,
    y: np.ndarray,
) -> tuple[Answers, np.ndarray]:
    """Run every graph over ``n`` windows, the head over every subset.

    Args:
        branches, head: what runs them: the exported graphs, or torch.
        windows: per modality [n, *window_shape], raw units.
        present: [n, M] bool.
        y: true classes [n].

    Returns:
        The answers, and the latents h [n, M, d].
    """
    said = [graph(x) for graph, x in zip(branches, windows, strict=True)]
    h = np.stack([latent for _, latent in said], axis=1)
    masks = subsets.as_bools(subsets.all_subsets(len(branches)), len(branches))
    heads = [head(h, np.repeat(alive[None], len(h), 0))[0] for alive in masks]
    branch = np.stack([logits for logits, _ in said], axis=1)
    return Answers(branch, np.stack(heads, axis=1), y, present), h


def table(fit: Fit, rule: Rule, held_out: Answers, names: Sequence[str]) -> tuple[SubsetEntry, ...]:
    """One entry per alive subset: how it answers, and what that scored on ``held_out``.

    Raises:
        BundleError: a subset was never present together.
    """
    entries = []
    for mask, row in zip(subsets.all_subsets(len(names)), fit.tables[rule], strict=True):
        rows = held_out.with_all(mask)
        alive = tuple(names[i] for i in subsets.members(mask))
        if not rows.any():
            raise BundleError(
                f"no held-out window has {'+'.join(alive)} present, so nothing can be promised of "
                "it; hold out groups that saw all sensors"
            )
        p = fit.probabilities(rule, mask, held_out)[rows]
        entries.append(
            SubsetEntry(
                alive=alive,
                uses=tuple(names[i] for i in subsets.members(row.uses)),
                weights=tuple(row.weights[:-1].tolist()),
                head_weight=float(row.weights[-1]),
                threshold=row.threshold,
                expected=measured(p, held_out.y[rows], row.threshold),
            )
        )
    return tuple(entries)


def measured(p: np.ndarray, y: np.ndarray, threshold: float) -> Measured:
    """Scores of probabilities [n, K] against truth [n]."""
    said, classes = p.argmax(1), p.shape[1]
    sets = conformal.prediction_sets(p, threshold)
    scores: Mapping[str, float] = {
        "accuracy": metrics.accuracy(said, y),
        "balanced_accuracy": metrics.balanced_accuracy(said, y, classes),
        "macro_f1": metrics.macro_f1(said, y, classes),
        "ece": metrics.ece(p, y),
        "coverage": metrics.coverage(sets, y),
        "set_size": float(sets.sum(1).mean()),
    }
    return Measured(n=len(y), **{name: round(value, 4) for name, value in scores.items()})
