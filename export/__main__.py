"""``python -m export RUN --out DIR``: a trained run becomes the bundle ``DIR/engines/``."""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from export import measure
from export import onnx as graphs
from export.fit import Answers, Fit, fit
from robult_edge import bundle, data, subsets
from robult_edge.bundle import Branch, Head, Manifest
from robult_edge.data.dataset import Dataset
from robult_edge.errors import BundleError, RobultError
from robult_edge.nn.checkpoint import RunInfo, load_model
from robult_edge.nn.robult import Robult

GOLDEN_WINDOWS = 8


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
        export(args.run, args.out / "engines", args.coverage, console)
    except RobultError as error:
        print(f"export: {error}", file=sys.stderr)
        return 2
    return 0


def export(run: Path, out: Path, coverage: float, console: Console) -> Manifest:
    """Write the bundle of ``run`` to ``out``, the manifest last.

    Raises:
        BundleError: a graph does not answer as torch does.
        RobultError: the run or its data set cannot be read.
    """
    model, info = load_model(run)
    dataset = data.load(info.dataset)
    names = [m.name for m in info.modalities]
    rows = np.flatnonzero((dataset.test if dataset.test.any() else True) & (dataset.y >= 0))
    windows = [dataset.windows[name][rows] for name in names]
    out.mkdir(parents=True, exist_ok=True)
    with Progress(console=console) as progress:
        step = progress.add_task("export", total=len(names) + 3)
        files, deltas = [], {}
        for name, x in zip(names, windows, strict=True):
            files.append(_write_branch(model, name, x, out / f"{name}.onnx"))
            deltas[name] = graphs.parity(model.branch(name), graphs.Graph(files[-1]), [x[:64]])
            progress.advance(step)
        head_file = _write_head(model, len(names), info.width, out / "fusion.onnx")
        branches, head = [graphs.Graph(f) for f in files], graphs.Graph(head_file)
        held_out, h = measure.answer(
            branches, head, windows, dataset.present[rows], dataset.y[rows]
        )
        progress.advance(step)
        with np.load(run / "oof.npz", allow_pickle=False) as oof:
            out_of_fold = Answers(oof["branch"], oof["head"], oof["y"], oof["present"])
        fitted = fit(out_of_fold, coverage)
        progress.advance(step)
        deltas |= _fused_parity(model, names, windows, dataset.present[rows], h, fitted, held_out)
        scored = held_out if dataset.test.any() else out_of_fold
        golden = _golden(names, windows, held_out, h)
        manifest = Manifest(
            format=bundle.FORMAT,
            name=f"{dataset.name}-{_digest([*files, head_file])}",
            task="classification",
            classes=info.classes,
            modalities=info.modalities,
            width=info.width,
            branches=tuple(
                Branch(modality=name, onnx=bundle.reference(file), temperature=float(t))
                for name, file, t in zip(names, files, fitted.temperatures, strict=False)
            ),
            head=Head(onnx=bundle.reference(head_file), temperature=float(fitted.temperatures[-1])),
            tables={rule: measure.table(fitted, rule, scored, names) for rule in fitted.tables},
            coverage=coverage,
            conflict=fitted.conflict,
            golden=bundle.write_arrays(out / "golden.npz", golden),
            provenance=_provenance(info, dataset, len(out_of_fold.y)),
        )
        bundle.write_manifest(out, manifest)
        _remove_strangers(out, manifest)
        progress.advance(step)
    _report(console, out, manifest, deltas)
    return manifest


def _write_branch(model: Robult, name: str, x: np.ndarray, path: Path) -> Path:
    example = (torch.from_numpy(x[:4]),)
    graphs.write(model.branch(name).eval(), example, path, ["x"], ["logits", "h"])
    return path


def _write_head(model: Robult, m: int, width: int, path: Path) -> Path:
    example = (torch.zeros(4, m, width), torch.ones(4, m, dtype=torch.bool))
    graphs.write(model.head().eval(), example, path, ["h", "alive"], ["logits"])
    return path


def _fused_parity(
    model: Robult,
    names: Sequence[str],
    windows: Sequence[np.ndarray],
    present: np.ndarray,
    h: np.ndarray,
    fitted: Fit,
    held_out: Answers,
) -> dict[str, float]:
    """Largest |Δ| between torch's and ONNX Runtime's fused probabilities, per subset."""
    some = slice(0, 256)
    deltas = {}
    with torch.inference_mode():
        said = [
            model.branch(n).eval()(torch.from_numpy(x[some]))
            for n, x in zip(names, windows, strict=True)
        ]
        branch = np.stack([logits.numpy() for logits, _ in said], axis=1)
        latent = torch.stack([z for _, z in said], dim=1)
        masks = subsets.as_bools(subsets.all_subsets(len(names)), len(names))
        head = [
            model.head().eval()(latent, torch.from_numpy(np.repeat(a[None], len(latent), 0)))
            for a in masks
        ]
    by_torch = Answers(
        branch, np.stack([z.numpy() for z in head], axis=1), held_out.y[some], present[some]
    )
    by_onnx = Answers(held_out.branch[some], held_out.head[some], held_out.y[some], present[some])
    for mask in subsets.all_subsets(len(names)):
        pair = [fitted.probabilities("pool", mask, a) for a in (by_torch, by_onnx)]
        delta = float(np.abs(pair[0] - pair[1]).max())
        name = f"fused {subsets.name(mask, names)}"
        if not delta <= graphs.TOLERANCE:
            raise BundleError(f"{name}: ONNX Runtime and torch differ by {delta:.2g}")
        deltas[name] = delta
    return deltas


def _golden(
    names: Sequence[str], windows: Sequence[np.ndarray], held_out: Answers, h: np.ndarray
) -> dict[str, np.ndarray]:
    some = np.linspace(0, len(held_out.y) - 1, GOLDEN_WINDOWS).astype(int)
    golden = {"head": held_out.head[some].swapaxes(0, 1)}
    for i, name in enumerate(names):
        golden[f"x.{name}"] = windows[i][some]
        golden[f"logits.{name}"] = held_out.branch[some, i]
        golden[f"h.{name}"] = h[some, i]
    return golden


def _digest(files: Sequence[Path]) -> str:
    return sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:8]


def _provenance(info: RunInfo, dataset: Dataset, labels: int) -> dict[str, Any]:
    versions = {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "onnx": onnx.__version__,
        "onnxruntime": ort.__version__,
        "numpy": np.__version__,
    }
    return {
        "dataset": info.dataset,
        "labels": info.labels,
        "labelled_windows": labels,
        "seed": info.seed,
        "held_out_groups": list(dataset.test_groups),
        "expected_on": "held-out groups" if dataset.test.any() else "out of fold",
        "versions": versions,
        "commit": _commit(),
    }


def _commit() -> str | None:
    """The commit of the code that exports; None outside a checkout."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def _remove_strangers(out: Path, manifest: Manifest) -> None:
    """Remove graphs and arrays of an earlier bundle that the manifest no longer names."""
    named = {ref.file for ref in bundle.files(manifest)}
    for file in (*out.glob("*.onnx"), *out.glob("*.npz"), *out.glob("*.plan")):
        if file.name not in named:
            file.unlink()


def _report(console: Console, out: Path, manifest: Manifest, deltas: dict[str, float]) -> None:
    on = manifest.provenance["expected_on"]
    table = Table(title=f"{manifest.name}: expected on {on}", title_justify="left")
    for column in ("alive", "accuracy", "mean rule", "balanced", "macro-F1", "ECE", "coverage",
                   "set size", "n", "max |Δ|"):  # fmt: skip
        table.add_column(column, justify="left" if column == "alive" else "right")
    for pool, mean in zip(manifest.tables["pool"], manifest.tables["mean"], strict=True):
        alive, e = "+".join(pool.alive), pool.expected
        table.add_row(
            alive, f"{e.accuracy:.3f}", f"{mean.expected.accuracy:.3f}",
            f"{e.balanced_accuracy:.3f}", f"{e.macro_f1:.3f}", f"{e.ece:.3f}",
            f"{e.coverage:.3f}", f"{e.set_size:.2f}", str(e.n), f"{deltas[f'fused {alive}']:.1e}",
        )  # fmt: skip
    console.print(table)
    branches = ", ".join(f"{name} {deltas[name]:.1e}" for name in manifest.names)
    size = sum(f.stat().st_size for f in out.iterdir()) / 1e6
    console.print(f"max |Δ| to torch: {branches}; bundle {out} ({size:.2f} MB)")


if __name__ == "__main__":
    sys.exit(main())
