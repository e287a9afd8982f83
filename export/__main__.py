"""``python -m export RUN --out DIR``: a trained run becomes the bundle ``DIR/engines/``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from export.build import build
from robult_edge.bundle import Manifest, Measured
from robult_edge.errors import RobultError
from robult_edge.task import Task


def main(argv: Sequence[str] | None = None) -> int:
    """Export; 2 when the run or the data set is unusable."""
    parser = argparse.ArgumentParser(prog="python -m export", description=__doc__)
    parser.add_argument("run", type=Path, help="what python -m train --out wrote")
    parser.add_argument("--out", type=Path, required=True, help="the bundle's parent folder")
    parser.add_argument(
        "--coverage", type=float, default=0.9, help="what prediction sets promise (default: 0.9)"
    )
    args = parser.parse_args(argv)
    console = Console(width=None if sys.stdout.isatty() else 110)
    try:
        with Progress(console=console) as progress:
            manifest, deltas = build(args.run, args.out / "engines", args.coverage, progress)
    except RobultError as error:
        print(f"export: {error}", file=sys.stderr)
        return 2
    report(console, args.out / "engines", manifest, deltas)
    return 0


def report(console: Console, out: Path, manifest: Manifest, deltas: dict[str, float]) -> None:
    """Print what each subset scored, and how far ONNX Runtime is from torch."""
    on = manifest.provenance["expected_on"]
    table = Table(title=f"{manifest.name}: expected on {on}", title_justify="left")
    rows = [
        (
            "+".join(pool.alive),
            scores(manifest, pool.expected, mean.expected)
            | {"coverage": f"{pool.expected.coverage:.3f}", "n": str(pool.expected.n)},
        )
        for pool, mean in zip(manifest.tables["pool"], manifest.tables["mean"], strict=True)
    ]
    for column in ("alive", *rows[0][1], "max |Δ|"):
        table.add_column(column, justify="left" if column == "alive" else "right", overflow="fold")
    for alive, shown in rows:
        table.add_row(alive, *shown.values(), f"{deltas[f'fused {alive}']:.1e}")
    console.print(table)
    graphs = ", ".join(f"{n} {deltas[n]:.1e}" for n in (*manifest.names, "fusion head"))
    if in_phase := manifest.provenance["in_phase"]:
        console.print(
            f"{', '.join(in_phase)}: what a window shows is told from the usual course of a cycle; "
            "serve windows that begin where the training windows do"
        )
    size = sum(f.stat().st_size for f in out.iterdir()) / 1e6
    console.print(f"max |Δ| to torch: {graphs}; bundle {out} ({size:.2f} MB)")


def scores(manifest: Manifest, pool: Measured, mean: Measured) -> dict[str, str]:
    """The task's scores of one subset by their column's title; one of them by the rule ``mean``."""
    if manifest.task == "regression":
        shown = {}
        for k, (name, scale) in enumerate(zip(manifest.classes, manifest.scales, strict=True)):
            of = f"{name} " if len(manifest.classes) > 1 else ""
            shown[f"{of}MAE, {scale.unit}"] = f"{pool.mae[k]:g}"
            shown[f"{of}mean rule"] = f"{mean.mae[k]:g}"
            shown[f"{of}RMSE"] = f"{pool.rmse[k]:g}"
            shown[f"{of}R²"] = f"{pool.r2[k]:.3f}"
        return shown
    first, *others = TITLES[manifest.task]
    shown = {TITLES[manifest.task][first]: f"{getattr(pool, first):.3f}"}
    shown["mean rule"] = f"{getattr(mean, first):.3f}"
    return shown | {TITLES[manifest.task][s]: f"{getattr(pool, s):.3f}" for s in others}


TITLES: dict[Task, dict[str, str]] = {
    "classification": {"accuracy": "accuracy", "balanced_accuracy": "balanced",
                       "macro_f1": "macro-F1", "ece": "ECE", "set_size": "set size"},
    "multilabel": {"macro_f1": "macro-F1", "micro_f1": "micro-F1", "ece": "ECE",
                   "set_size": "set size"},
}  # fmt: skip
"""Scores of `Measured` and how their columns are called, the first one first."""


if __name__ == "__main__":
    sys.exit(main())
