"""Building a bundle from a run: graphs, proof, fit, measurement, and last the manifest."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from rich.progress import Progress

from export import measure, usual
from export.onnx import TOLERANCE, Graph, Torch, parity
from robult_edge import bundle, data, subsets
from robult_edge.bundle import Branch, Head, Manifest
from robult_edge.data import Dataset
from robult_edge.errors import BundleError, RobultError
from robult_edge.late_fusion import Answers, Fit, fit
from robult_edge.nn.checkpoint import RunInfo, load_model
from robult_edge.nn.graph import write
from robult_edge.nn.robult import Robult
from robult_edge.task import labelled, standardised

GOLDEN_WINDOWS = 8
PROOF_WINDOWS = 256


def build(
    run: Path, out: Path, coverage: float, progress: Progress
) -> tuple[Manifest, dict[str, float]]:
    """Write the bundle of ``run`` to ``out``, the manifest last.

    Args:
        run: folder that training wrote.
        out: the bundle's folder.
        coverage: the rate that prediction sets promise.
        progress: where to show it.

    Returns:
        The manifest, and max |Δ| to torch by graph and by ``fused SUBSET``.

    Raises:
        BundleError: a graph does not answer as torch does.
        RobultError: the run or its data set cannot be read.
    """
    model, info = load_model(run)
    out_of_fold, groups = _out_of_fold(run / "oof.npz")
    dataset = data.load(info.dataset)
    names = [m.name for m in info.modalities]
    held_out_any = bool(dataset.test.any())
    rows = np.flatnonzero((dataset.test if held_out_any else True) & labelled(dataset.y))
    windows = [dataset.windows[name][rows] for name in names]
    present, y = dataset.present[rows], standardised(dataset.y[rows], info.scales)
    out.mkdir(parents=True, exist_ok=True)
    step = progress.add_task("export", total=4)

    files = _write_graphs(model, names, windows, out)
    progress.advance(step)
    *branches, head = [Graph(file) for file in files]
    answers, h = measure.answer(branches, head, windows, present, y)
    fitted = fit(out_of_fold, groups, coverage, info.task)
    progress.advance(step)
    deltas = _graph_deltas(model, names, branches, head, windows, h)
    deltas |= _fused_deltas(model, names, windows, answers, fitted)
    progress.advance(step)

    scored = answers if held_out_any else out_of_fold
    known = usual.fit(dataset, info.modalities)
    manifest = Manifest(
        format=bundle.FORMAT,
        name=f"{dataset.name}-{_digest(files)}",
        task=info.task,
        classes=info.classes,
        scales=info.scales,
        modalities=info.modalities,
        width=info.width,
        branches=tuple(
            Branch(modality=name, onnx=bundle.reference(file), temperature=float(t))
            for name, file, t in zip(names, files[:-1], fitted.temperatures[:-1], strict=True)
        ),
        head=Head(onnx=bundle.reference(files[-1]), temperature=float(fitted.temperatures[-1])),
        tables={
            rule: measure.table(fitted, rule, scored, names, info.scales) for rule in fitted.tables
        },
        coverage=coverage,
        conflict=fitted.conflict,
        golden=bundle.write_arrays(out / "golden.npz", _golden(names, windows, answers, h)),
        usual=usual.write(out, known),
        provenance=_provenance(info, dataset, len(out_of_fold.y)) | {"in_phase": model.f.in_phase},
    )
    bundle.write_manifest(out, manifest)
    _remove_strangers(out, manifest)
    progress.advance(step)
    return manifest, deltas


def _out_of_fold(file: Path) -> tuple[Answers, np.ndarray]:
    """What training kept of the labels it judged itself by, and their groups."""
    with np.load(file, allow_pickle=False) as oof:
        if "group" not in oof:
            raise RobultError(f"{file} is of an earlier version; train again")
        return Answers(oof["branch"], oof["head"], oof["y"], oof["present"]), oof["group"]


def _write_graphs(
    model: Robult, names: Sequence[str], windows: Sequence[np.ndarray], out: Path
) -> list[Path]:
    """One graph per branch and, last, the fusion head's."""
    files = []
    for name, x in zip(names, windows, strict=True):
        files.append(out / f"{name}.onnx")
        example = (torch.from_numpy(np.resize(x, (4, *x.shape[1:]))),)
        write(model.branch(name).eval(), example, files[-1], ["x"], ["logits", "h"])
    files.append(out / "fusion.onnx")
    latents = (torch.zeros(4, len(names), model.width), torch.ones(4, len(names), dtype=torch.bool))
    write(model.head().eval(), latents, files[-1], ["h", "alive"], ["logits"])
    return files


def _graph_deltas(
    model: Robult,
    names: Sequence[str],
    branches: Sequence[Graph],
    head: Graph,
    windows: Sequence[np.ndarray],
    h: np.ndarray,
) -> dict[str, float]:
    """Largest |Δ| between torch and ONNX Runtime, per graph."""
    deltas = {
        name: parity(model.branch(name), graph, [x])
        for name, graph, x in zip(names, branches, windows, strict=True)
    }
    some = np.resize(np.arange(len(h)), PROOF_WINDOWS)
    alive = np.resize(
        subsets.as_bools(subsets.all_subsets(len(names)), len(names)), (len(some), len(names))
    )
    return deltas | {"fusion head": parity(model.head(), head, [h[some], alive])}


def _fused_deltas(
    model: Robult,
    names: Sequence[str],
    windows: Sequence[np.ndarray],
    by_onnx: Answers,
    fitted: Fit,
) -> dict[str, float]:
    """Largest |Δ| between torch's and ONNX Runtime's fused answers, per alive subset."""
    some = slice(0, PROOF_WINDOWS)
    by_onnx = by_onnx.rows(some)
    by_torch, _ = measure.answer(
        [Torch(model.branch(name)) for name in names],
        Torch(model.head()),
        [x[some] for x in windows],
        by_onnx.present,
        by_onnx.y,
    )
    deltas = {}
    for mask in subsets.all_subsets(len(names)):
        pair = [fitted.probabilities("pool", mask, a) for a in (by_torch, by_onnx)]
        name = f"fused {subsets.name(mask, names)}"
        deltas[name] = float(np.abs(pair[0] - pair[1]).max())
        if not deltas[name] <= TOLERANCE:
            raise BundleError(f"{name}: ONNX Runtime and torch differ by {deltas[name]:.2g}")
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
