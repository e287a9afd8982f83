"""What each alive subset is worth: the expected-accuracy table, on held-out data."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from robult_edge import conformal, metrics, subsets
from robult_edge.bundle import Measured, SubsetEntry
from robult_edge.errors import BundleError
from robult_edge.fusion import Rule
from robult_edge.late_fusion import Answers, Fit, SubsetFit
from robult_edge.task import Scale, Task

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
        y: truth, values standardised.

    Returns:
        The answers, and the latents h [n, M, d].
    """
    said = [graph(x) for graph, x in zip(branches, windows, strict=True)]
    h = np.stack([latent for _, latent in said], axis=1)
    masks = subsets.as_bools(subsets.all_subsets(len(branches)), len(branches))
    heads = [head(h, np.repeat(alive[None], len(h), 0))[0] for alive in masks]
    branch = np.stack([logits for logits, _ in said], axis=1)
    return Answers(branch, np.stack(heads, axis=1), y, present), h


def table(
    fit: Fit, rule: Rule, held_out: Answers, names: Sequence[str], scales: Sequence[Scale]
) -> tuple[SubsetEntry, ...]:
    """One entry per alive subset: how it answers, and what that scored on ``held_out``.

    Args:
        fit: of late fusion.
        rule: whose table.
        held_out: answers to windows that nothing was fitted on.
        names: of the modalities.
        scales: of regression.

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
                half_widths=tuple(
                    float(half * scale.std) if np.isfinite(half) else None
                    for half, scale in zip(row.half_widths, scales, strict=True)
                ),
                expected=MEASURED[fit.task](p, held_out.y[rows], row, scales),
            )
        )
    return tuple(entries)


def classes(p: np.ndarray, y: np.ndarray, row: SubsetFit, _: Sequence[Scale]) -> Measured:
    """Scores of probabilities [n, K] against true classes [n]."""
    said, k = p.argmax(1), p.shape[1]
    sets = conformal.prediction_sets(p, row.threshold)
    return Measured(
        accuracy=round(metrics.accuracy(said, y), 4),
        balanced_accuracy=round(metrics.balanced_accuracy(said, y, k), 4),
        macro_f1=round(metrics.macro_f1(said, y, k), 4),
        ece=round(metrics.ece(p, y), 4),
        coverage=round(metrics.coverage(sets, y), 4),
        set_size=round(float(sets.sum(1).mean()), 4),
        n=len(y),
    )


def labels(p: np.ndarray, y: np.ndarray, row: SubsetFit, _: Sequence[Scale]) -> Measured:
    """Scores of probabilities [n, K] against true labels [n, K]."""
    possible, certain = conformal.label_sets(p, row.threshold)
    micro, macro = metrics.label_f1(p >= 0.5, y)
    held = np.where(y == 1, possible, ~certain).all(1)
    return Measured(
        micro_f1=round(micro, 4),
        macro_f1=round(macro, 4),
        ece=round(metrics.label_ece(p, y), 4),
        coverage=round(float(held.mean()), 4),
        set_size=round(float(possible.sum(1).mean()), 4),
        n=len(y),
    )


def values(v: np.ndarray, y: np.ndarray, row: SubsetFit, scales: Sequence[Scale]) -> Measured:
    """Scores of standardised values [n, K] against the true ones [n, K], in the targets' units."""
    std = np.array([scale.std for scale in scales])
    return Measured(
        mae=_digits(std * metrics.mae(v, y)),
        rmse=_digits(std * metrics.rmse(v, y)),
        r2=_digits(metrics.r2(v, y)),
        coverage=round(float((np.abs(v - y) <= row.half_widths).mean()), 4),
        n=len(y),
    )


def _digits(numbers: np.ndarray) -> tuple[float, ...]:
    """Four significant digits, since units may be of any size."""
    return tuple(float(f"{x:.4g}") for x in numbers)


MEASURED: dict[Task, Callable[[np.ndarray, np.ndarray, SubsetFit, Sequence[Scale]], Measured]] = {
    "classification": classes,
    "multilabel": labels,
    "regression": values,
}
