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
from robult_edge.bundle import Manifest
from robult_edge.errors import RobultError


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
    """Print the expected-accuracy table, and how far ONNX Runtime is from torch."""
    on = manifest.provenance["expected_on"]
    table = Table(title=f"{manifest.name}: expected on {on}", title_justify="left")
    for column in ("alive", "accuracy", "mean rule", "balanced", "macro-F1", "ECE", "coverage",
                   "set size", "n", "max |Δ|"):  # fmt: skip
        table.add_column(column, justify="left" if column == "alive" else "right", overflow="fold")
    for pool, mean in zip(manifest.tables["pool"], manifest.tables["mean"], strict=True):
        alive, e = "+".join(pool.alive), pool.expected
        table.add_row(
            alive, f"{e.accuracy:.3f}", f"{mean.expected.accuracy:.3f}",
            f"{e.balanced_accuracy:.3f}", f"{e.macro_f1:.3f}", f"{e.ece:.3f}",
            f"{e.coverage:.3f}", f"{e.set_size:.2f}", str(e.n), f"{deltas[f'fused {alive}']:.1e}",
        )  # fmt: skip
    console.print(table)
    graphs = ", ".join(f"{n} {deltas[n]:.1e}" for n in (*manifest.names, "fusion head"))
    size = sum(f.stat().st_size for f in out.iterdir()) / 1e6
    console.print(f"max |Δ| to torch: {graphs}; bundle {out} ({size:.2f} MB)")


if __name__ == "__main__":
    sys.exit(main())
