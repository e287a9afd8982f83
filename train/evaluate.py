"""``python -m train.evaluate``: every method on every data set, label fraction, seed and subset.

One JSON per (data set, labels, seed, method, variant), written in one piece: an interrupted
evaluation goes on where it was. Test groups are drawn anew for every seed, and are the same for
all methods; nothing is chosen on them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from robult_edge.data import Dataset, load
from robult_edge.data.splits import drop_at_random, pick_test_groups
from robult_edge.errors import RobultError
from train import score
from train.config import TrainConfig

ROOT = Path(__file__).parents[1]
DATASETS = {
    "watch": "watch",
    "hydraulic": "examples/datasets/hydraulic.toml",
    "hydraulic_pump": "examples/datasets/hydraulic_pump.toml",
    "room_occupancy": "examples/datasets/room_occupancy.toml",
    "redundant": "synthetic:redundant=0.7,unique=0,synergy=0",
    "unique": "synthetic:redundant=0,unique=0.6,synergy=0",
    "synergy": "synthetic:redundant=0.3,unique=0,synergy=0.8",
}
METHODS = ("supervised", "early", "gmc", "actionmae", "shaspec", "minirocket", "robult")
SETTINGS = "settings.json"
"""How the trainings of a folder were done."""
COSTS = "costs.json"
"""What branches cost by their encoder."""
NOISE = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Spread of the noise added to every test window, in its channel's own."""

ABLATIONS: dict[str, dict[str, Any]] = {
    "no-L_rec": {"beta": 0.0},
    "no-L_ulb": {"lambda_u": 0.0},
    "no-L_lb": {"lambda_l": 0.0},
    "no-L_PU": {"alpha": 0.0},
    "no-L_distil": {"delta": 0.0},
    "kernel=l1": {"kernel": "l1"},
    "kernel=l2": {"kernel": "l2"},
    "kernel=uniform": {"kernel": "uniform"},
    "classifier=z": {"classifier_input": "z"},
}
"""Variants of Robult by what they change; the fusion rule is varied in every run anyway."""
ENCODERS = ("rocket", "gru", "transformer", "mlp")
MISSING = (0.3, 0.6, 0.9)
MANY = 0.5
"""Share of the labels with which supervised late fusion is set against Robult with ``FEW``."""
FEW = 0.05


@dataclass(frozen=True)
class Cell:
    """One training and its judgement.

    Attributes:
        dataset, method: names, of DATASETS and METHODS.
        labels: fraction.
        seed: of split, labels and training.
        variant: "default", an ablation, "encoder=<name>", "missing=<share>", "missing=unequal":
            shares from 0 to 0.9, rising from sensor to sensor, or "taught": a comparator that is
            given Robult's teacher.
    """

    dataset: str
    labels: float
    seed: int
    method: str
    variant: str = "default"

    @property
    def file(self) -> str:
        """Name of its JSON."""
        parts = (
            self.dataset.replace("/", "-"),
            f"{self.labels:g}",
            str(self.seed),
            self.method,
            self.variant,
        )
        return "_".join(parts) + ".json"


@dataclass(frozen=True)
class Grid:
    """What is to be run, and how long each training may take.

    Attributes:
        datasets, methods, labels, seeds: crossed, in the default variant.
        variants: of Robult, on every data set at 5 % of the labels.
        missing: methods that also run with samples missing in training, at 5 % of the labels.
        taught: comparators that also run with Robult's teacher, at 5 % of the labels.
        only: the variants to run of all these; every one if empty.
        rates: learning rates searched.
        config: everything else.
    """

    datasets: tuple[str, ...] = tuple(DATASETS)
    methods: tuple[str, ...] = METHODS
    labels: tuple[float, ...] = (0.01, 0.05, 0.2, 1.0)
    seeds: int = 5
    variants: tuple[str, ...] = (*ABLATIONS, *(f"encoder={name}" for name in ENCODERS))
    missing: tuple[str, ...] = METHODS
    taught: tuple[str, ...] = ("supervised", "early", "gmc", "actionmae", "shaspec")
    only: tuple[str, ...] = ()
    rates: tuple[float, ...] = (5e-4, 2e-3)
    config: TrainConfig = field(default_factory=lambda: TrainConfig(workers=1, device="cpu"))

    def cells(self) -> list[Cell]:
        """All of it, seed by seed, so that an unfinished evaluation is a smaller one."""
        shares = (*(f"missing={share:g}" for share in MISSING), "missing=unequal")
        few = FEW if FEW in self.labels else self.labels[0]
        variants = {
            method: (
                *(self.variants if method == "robult" else ()),
                *(shares if method in self.missing else ()),
                *(("taught",) if method in self.taught else ()),
            )
            for method in self.methods
        }
        out = []
        for seed in range(self.seeds):
            for dataset in self.datasets:
                out += [Cell(dataset, n, seed, m) for n in self.labels for m in self.methods]
                if "supervised" in self.methods and FEW in self.labels:
                    out.append(Cell(dataset, MANY, seed, "supervised"))
                out += [Cell(dataset, few, seed, m, v) for m in self.methods for v in variants[m]]
        return [cell for cell in out if not self.only or cell.variant in self.only]


QUICK = Grid(
    datasets=("watch", "hydraulic"),
    labels=(0.05,),
    seeds=2,
    variants=(),
    missing=(),
    taught=("supervised",),
    rates=(4e-3,),
    config=TrainConfig(workers=1, device="cpu", folds=3, epochs=8, steps=32, batch_labelled=32),
)
"""Meant for ten minutes on two idle cores: one learning rate for all, and trainings a fifth as
long as they should be, which sets networks back against MiniRocket + ridge, a formula."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    options = _parser().parse_args(arguments)
    console = Console()
    grid, full = QUICK if options.quick else Grid(), Grid()
    if options.variants:
        grid = replace(
            grid, variants=full.variants, missing=full.missing, taught=full.taught,
            only=tuple(options.variants),
        )  # fmt: skip
    grid = replace(
        grid,
        datasets=tuple(options.datasets or grid.datasets),
        methods=tuple(options.methods or grid.methods),
        labels=tuple(options.labels or grid.labels),
        seeds=options.seeds or grid.seeds,
    )
    try:
        out = options.out or ROOT / "results" / ("quick" if options.quick else "full")
        evaluate(grid, out, options.workers, console)
        _write(out / COSTS, _costs())
    except RobultError as error:
        console.print(f"[red]error:[/] {error}", soft_wrap=True, highlight=False)
        return 2
    return 0


def evaluate(grid: Grid, out: Path, workers: int, console: Console) -> None:
    """Run every cell that has no JSON in ``out`` yet.

    Raises:
        RobultError: ``out`` holds results of other settings, or a training failed.
    """
    out.mkdir(parents=True, exist_ok=True)
    _same_settings(grid, out)
    there = [name for name in grid.datasets if _readable(name, console)]
    cells = [c for c in replace(grid, datasets=tuple(there)).cells()]
    todo = [cell for cell in cells if not (out / cell.file).exists()]
    bars = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=console,
    )  # fmt: skip
    context = multiprocessing.get_context("spawn")
    with bars, ProcessPoolExecutor(workers, context, _one_thread) as pool:
        task = bars.add_task("evaluate", total=len(cells), completed=len(cells) - len(todo))
        jobs = {pool.submit(run, cell, grid, out): cell for cell in todo}
        try:
            for job in as_completed(jobs):
                job.result()
                bars.update(task, advance=1, description=f"{jobs[job].file:<40}")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def run(cell: Cell, grid: Grid, out: Path) -> None:
    """Train one cell, judge it on the held-out groups and write its JSON."""
    from train import crossfit  # torch is for the processes that train
    from train.comparators.methods import METHODS as methods

    dataset = split(load(source(cell.dataset)), cell.seed)
    config = replace(grid.config, labels=cell.labels, seed=cell.seed, **_changes(cell, dataset))
    plan = crossfit.make_plan(dataset, config)
    if cell.variant.startswith("missing="):
        shares = _shares(cell.variant, len(plan.modalities))
        present = drop_at_random(plan.present, shares, np.random.default_rng([cell.seed, 3]))
        plan = replace(plan, present=present)
    fitted = methods[cell.method](plan, config, grid.rates)
    levels = NOISE if cell.variant == "default" else ()
    result = {
        "dataset": cell.dataset,
        "labels": cell.labels,
        "seed": cell.seed,
        "method": cell.method,
        "variant": cell.variant,
        "labelled_windows": int(plan.known.sum()),
        "test_groups": list(dataset.test_groups),
        "chosen": fitted.chosen,
        "rules": score.judge(fitted, dataset, levels, cell.seed),
    }
    _write(out / cell.file, result)


def split(dataset: Dataset, seed: int) -> Dataset:
    """The data set with test groups of this seed's own, drawn so that both sides see every class.

    The same share of groups as the data set holds out by itself, about a quarter.
    """
    share = len(dataset.test_groups) / len(set(dataset.groups.tolist()))
    return dataset.holding_out(pick_test_groups(dataset.groups, dataset.y, share, seed))


def source(name: str) -> str:
    """A data set of DATASETS, or whatever ``robult_edge.data.load`` takes."""
    known = DATASETS.get(name, "")
    return str(ROOT / known) if known.endswith(".toml") else known or name


def _same_settings(grid: Grid, out: Path) -> None:
    """Write down how ``out`` is trained, or refuse to mix it with something else."""
    now = msgspec.json.decode(
        msgspec.json.encode({"short": grid.config == QUICK.config, "rates": grid.rates})
    )
    now |= msgspec.json.decode(msgspec.json.encode(asdict(grid.config)))
    if not (out / SETTINGS).exists():
        _write(out / SETTINGS, now)
    then = msgspec.json.decode((out / SETTINGS).read_bytes())
    for name, value in now.items():
        if then.get(name) != value:
            raise RobultError(
                f"{out} holds results with {name} {then.get(name)!r}, not {value!r}; "
                "give another --out"
            )


def _costs() -> dict[str, Any]:
    """Of the watch's sensors: a branch's by encoder, and what three of them keep by width."""
    from train import costs

    spec = load("watch").modalities[0]
    three = [msgspec.structs.replace(spec, name=name) for name in "abc"]
    widths = (64, 128, 256)
    return {
        "branch": costs.measured(spec, costs.Network(classes=7)),
        "kept": {str(d): costs.kept(three, costs.Network(7, d)) for d in widths},
    }


def _write(path: Path, content: dict[str, Any]) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(msgspec.json.encode(content))
    os.replace(part, path)


def _readable(name: str, console: Console) -> bool:
    os.environ.setdefault("ROBULT_DATA", str(ROOT.parent / "shared" / "data"))
    try:
        _require_classes(load(source(name)))
    except RobultError as error:
        console.print(f"{name} is left out: {error}", soft_wrap=True, highlight=False)
        return False
    return True


def _require_classes(dataset: Dataset) -> None:
    if dataset.task != "classification":
        raise RobultError(
            f"data set {dataset.name!r} is of {dataset.task}, and the comparators answer "
            "classification alone; train it with python -m train"
        )


def _changes(cell: Cell, dataset: Dataset) -> dict[str, Any]:
    """Settings that a cell changes."""
    if cell.method != "robult":
        return {"delta": float(cell.variant == "taught")}
    kind, _, value = cell.variant.partition("=")
    if kind == "encoder":
        return {"encoders": {m.name: value for m in dataset.modalities}}
    return ABLATIONS.get(cell.variant, {})


def _shares(variant: str, m: int) -> np.ndarray:
    value = variant.partition("=")[2]
    return np.linspace(0, 0.9, m) if value == "unequal" else np.full(m, float(value))


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)  # cells share the cores


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.evaluate",
        description="Robult and its comparators on the same splits, encoders, labels and search.",
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="two data sets, 5 %% of the labels, two seeds")
    add("--datasets", nargs="+", metavar="NAME", help=", ".join(DATASETS) + ", or a TOML")
    add("--methods", nargs="+", choices=METHODS)
    add("--labels", nargs="+", type=float, metavar="SHARE")
    add("--seeds", type=int)
    add(
        "--variants",
        nargs="+",
        metavar="NAME",
        choices=sorted({c.variant for c in Grid(seeds=1).cells()}),
        help="these alone: default, taught, " + ", ".join(Grid().variants) + ", missing=<share>",
    )
    add("--out", type=Path, help="folder of the JSON files (default: results/quick or /full)")
    add("--workers", type=int, default=2, help="processes side by side")
    return parser


if __name__ == "__main__":
    sys.exit(main())
