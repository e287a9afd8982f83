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
from dataclasses import asdict, replace
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
from train.grid import (
    COSTS,
    DATASETS,
    ENCODERS,
    METHODS,
    NOISE,
    QUICK,
    ROOT,
    SETTINGS,
    VARIANTS,
    Cell,
    Grid,
    changes,
    missing_shares,
    source,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    options = command_line().parse_args(arguments)
    console = Console()
    grid = asked(options)
    try:
        out = options.out or ROOT / "results" / ("quick" if options.quick else "full")
        evaluate(grid, out, options.workers, console)
        _write(out / COSTS, _costs())
    except RobultError as error:
        console.print(f"[red]error:[/] {error}", soft_wrap=True, highlight=False)
        return 2
    return 0


def asked(options: argparse.Namespace) -> Grid:
    """What the command line names."""
    grid = QUICK if options.quick else Grid()
    if options.variants:
        grid = grid.with_variants(tuple(options.variants))
    return replace(
        grid,
        datasets=tuple(options.datasets or grid.datasets),
        methods=tuple(options.methods or grid.methods),
        labels=tuple(options.labels or grid.labels),
        seeds=options.seeds or grid.seeds,
        encoder=options.encoder or grid.encoder,
        config=replace(grid.config, epochs=options.epochs or grid.config.epochs),
    )


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
    changed = changes(cell, dataset, grid.encoder)
    config = replace(grid.config, labels=cell.labels, seed=cell.seed, **changed)
    plan = crossfit.make_plan(dataset, config)
    if cell.variant.startswith("missing="):
        shares = missing_shares(cell.variant, len(plan.modalities))
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


def _same_settings(grid: Grid, out: Path) -> None:
    """Write down how ``out`` is trained, or refuse to mix it with something else."""
    short = replace(grid.config, epochs=QUICK.config.epochs) == QUICK.config
    now = msgspec.json.decode(
        msgspec.json.encode({"short": short, "rates": grid.rates, "encoder": grid.encoder})
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


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)  # cells share the cores


def command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.evaluate",
        description="Robult and its comparators on the same splits, encoders, labels and search.",
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="two data sets, 5 %% of the labels, one seed, conv1d")
    add("--datasets", nargs="+", metavar="NAME", help=", ".join(DATASETS) + ", or a TOML")
    add("--methods", nargs="+", choices=METHODS)
    add("--labels", nargs="+", type=float, metavar="SHARE")
    add("--seeds", type=_count)
    add(
        "--variants",
        nargs="+",
        metavar="NAME",
        choices=sorted({c.variant for c in Grid(seeds=1).with_variants(()).cells()}),
        help="these alone: default, taught, " + ", ".join(VARIANTS) + ", missing=<share>",
    )
    add("--encoder", choices=ENCODERS, help="of all methods, wherever it suits the windows")
    add("--epochs", type=_count, help="of a training, at most")
    add("--out", type=Path, help="folder of the JSON files (default: results/quick or /full)")
    add("--workers", type=_count, default=2, help="processes side by side")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
