"""``python -m train --dataset watch --labels 0.05 --out runs/watch``.

``torchrun --nproc-per-node 4 -m train ...`` does the same on four GPUs of a machine.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import msgspec
import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from robult_edge.data import Dataset, load
from robult_edge.errors import RobultError
from robult_edge.metrics import SCORES
from robult_edge.nn.checkpoint import RunInfo, load_model, save_model
from train import costs, crossfit, distributed, loop
from train.config import TrainConfig
from train.plan import Plan


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    options = _parser().parse_args(arguments)
    with distributed.group(options.device):
        console = Console(quiet=not distributed.leads())
        try:
            dataset, config = load(options.dataset), _config(options)
            for hint in hints(dataset):
                console.print(hint, soft_wrap=True, highlight=False, markup=False)
            if options.budget:
                config = _within(costs.Budget.parse(options.budget), dataset, config, console)
            info = train(options.dataset, config, options.out, options.resume, console)
        except RobultError as error:
            console.print(f"[red]error:[/] {error}", soft_wrap=True, highlight=False)
            return 2
    if info is not None:
        console.print(_table(info))
        console.print(f"{options.out}: {info.epochs} epochs, {sum(info.label_counts)} labels")
    return 0


def train(
    source: str, config: TrainConfig, out: Path, resume: bool, console: Console
) -> RunInfo | None:
    """Train on a data set and leave run.json, model.safetensors and oof.npz in ``out``.

    Of several processes that train together the leading one does so, and has the result.

    Args:
        source: as ``robult_edge.data.load`` takes it.
        config: all settings.
        out: the run's folder. Without ``resume`` an earlier run in it is replaced.
        resume: go on where a run with the same data set and settings was interrupted.
        console: to show progress on.
    """
    dataset = load(source)
    plan = crossfit.make_plan(dataset, config)
    loop.build(plan, config)  # a wrong setting is found before anything is written
    if distributed.agreed(lambda: _begin(out, source, config, resume)):
        return load_model(out)[1]
    if not distributed.leads():
        crossfit.train_all(plan, config, out / "folds", lambda _: None)
        return None
    with _bars(console, plan, config) as report:
        fitted = crossfit.fit(plan, config, out / "folds", report)
    model = loop.build(plan, config).eval().to(loop.pick_device(config.device))
    model.load_state_dict(fitted.weights)
    fitted.metrics.update(crossfit.test_metrics(model, dataset, plan))
    info = crossfit.run_info(dataset, source, plan, config, fitted)
    np.savez(out / "oof.npz", **fitted.oof)  # type: ignore[arg-type, unused-ignore]
    save_model(out, fitted.weights, info)
    shutil.rmtree(out / "folds")
    return info


def hints(dataset: Dataset) -> Iterator[str]:
    """What of its sensors its author may not have thought of saying."""
    for m in dataset.modalities:
        said = dataset.invariances[m.name]
        ends = "".join(channel[-1:].lower() for channel in m.channels)
        axes = m.size is None and ends == "xyz" * (len(ends) // 3)
        if axes and "rotate" not in said:
            better = str([*said, "rotate"]).replace("'", '"')
            yield (
                f"{m.name}: {', '.join(m.channels)} look like axes; if they may be turned from one "
                f"group to another, as at another wrist, say invariant_to = {better}"
            )


def _within(
    budget: costs.Budget, dataset: Dataset, config: TrainConfig, console: Console
) -> TrainConfig:
    """With encoders that fit the budget, but for modalities whose encoder is given."""
    network = costs.Network(len(dataset.classes), config.width, config.classifier_input)
    free = [m for m in dataset.modalities if m.name not in config.encoders]
    with console.status("encoders within the budget"):
        chosen = costs.fitting(free, network, budget)
    for name, encoder in chosen.items():
        console.print(f"{name}: {encoder}")
    return replace(config, encoders=config.encoders | chosen)


def _begin(out: Path, source: str, config: TrainConfig, resume: bool) -> bool:
    """Make the run's folder ready; whether the run in it is finished already."""
    asked = msgspec.json.encode({"dataset": source, **asdict(config)})
    settings = out / "settings.json"
    if resume and settings.exists():
        then, now = msgspec.json.decode(settings.read_bytes()), msgspec.json.decode(asked)
        del now["workers"]  # how many train makes no difference
        for name in now:
            if then.get(name) != now[name]:
                raise RobultError(
                    f"{out} was begun with {name} {then.get(name)!r}, not {now[name]!r}; "
                    "resume with the same settings, or leave out --resume to begin again"
                )
        return (out / "run.json").exists()
    for leftover in ("folds", "logs"):
        shutil.rmtree(out / leftover, ignore_errors=True)
    for leftover in ("run.json", "model.safetensors", "oof.npz"):
        (out / leftover).unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    settings.write_bytes(asked)
    return False


@contextmanager
def _bars(
    console: Console, plan: Plan, config: TrainConfig
) -> Iterator[Callable[[loop.Progress], None]]:
    """Progress bars, one per model, while training."""
    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.description:<16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}  pseudo-labels right {task.fields[right]}"),
        TimeRemainingColumn(),
        console=console,
    )
    names = {plan.everything: "all groups"} | {f: f"without fold {f + 1}" for f in plan.folds}
    tasks = {
        fold: progress.add_task(name, total=config.epochs, loss="  –  ", right=" – ")
        for fold, name in names.items()
    }

    def report(now: loop.Progress) -> None:
        progress.update(
            tasks[now.fold],
            completed=now.epoch,
            loss=f"{now.loss:5.2f}",
            right=" – " if plan.known.all() else f"{now.pseudo_accuracy:3.0%}",
        )

    with progress:
        yield report


def _table(info: RunInfo) -> Table:
    """The task's score per subset and rule, out of fold and on held-out groups."""
    table = Table(
        title=f"{SCORES[info.task]}, {100 * info.labels:g} % of the labels", title_justify="left"
    )
    table.add_column("alive")
    columns = [(where, rule) for where in ("oof", "test") for rule in ("mean", "head")]
    said = {"oof": "out of fold", "test": "unseen groups"}
    for where, rule in columns:
        table.add_column(f"{said[where]}\n{rule}", justify="right")
    for subset in dict.fromkeys(key.split("/", 2)[2] for key in info.metrics):
        values = [info.metrics.get(f"{w}/{r}/{subset}") for w, r in columns]
        table.add_row(subset, *("–" if v is None else f"{v:.3f}" for v in values))
    if not any(key.startswith("oof/") for key in info.metrics):
        table.caption = "no label can be judged out of fold, so nothing is fitted to any"
    return table


def _config(options: argparse.Namespace) -> TrainConfig:
    encoders = {}
    for pair in options.encoder:
        modality, _, encoder = pair.partition("=")
        if not encoder:
            raise RobultError(f"--encoder is {pair!r}; give MODALITY=ENCODER, e.g. acc=gru")
        encoders[modality] = encoder
    for name in ("labels", "missing"):
        value = getattr(options, name)
        if not 0 <= value <= 1 or (name == "labels" and value == 0):
            raise RobultError(f"--{name} is {value:g}; it must be a share, e.g. 0.05")
    for name in ("epochs", "width", "folds", "workers"):
        least = {"folds": 2, "workers": 0}.get(name, 1)
        if getattr(options, name) < least:
            raise RobultError(f"--{name} is {getattr(options, name)}; it must be at least {least}")
    given = {
        name: getattr(options, name)
        for name in ("labels", "missing", "seed", "epochs", "width", "folds", "workers",
                     "classifier_input", "device", "lr")
    }  # fmt: skip
    return TrainConfig(encoders=encoders, **given)


def _parser() -> argparse.ArgumentParser:
    default = TrainConfig()
    parser = argparse.ArgumentParser(
        prog="python -m train",
        description="Train Robult: one encoder per sensor, one fusion head for any subset of them. "
        "Under torchrun (torchrun --nproc-per-node 4 -m train ...) on several GPUs at once.",
    )
    add = parser.add_argument
    add(
        "--dataset",
        required=True,
        help="watch, synthetic[:name=value,…], a TOML or its "
        "folder, or one of the paper's: mosi, mosei, mmimdb, food101 or hateful_memes:PATH",
    )
    add("--labels", type=float, default=default.labels, help="share of training labels to use")
    add("--out", type=Path, required=True, help="folder of the run")
    add("--seed", type=int, default=default.seed)
    add("--epochs", type=int, default=default.epochs, help="at most; chosen out of fold")
    add("--folds", type=int, default=default.folds, help="of the cross-fit over groups")
    add("--lr", type=float, default=default.lr, help="learning rate after warm-up")
    add("--width", type=int, default=default.width, help="of the latents")
    add("--encoder", action="append", default=[], metavar="MODALITY=ENCODER")
    add("--budget", help="the best encoders of branches of so many parameters, or us: 50000, 60us")
    add("--classifier-input", choices=("z", "zu"), default=default.classifier_input)
    add("--missing", type=float, default=default.missing, help="share of samples to take away")
    add("--device", choices=("auto", "cpu", "cuda"), default=default.device)
    add(
        "--workers",
        type=int,
        default=default.workers,
        help="processes that train side by side; "
        "0, the default: one per core, or two on a GPU, and no more than models",
    )
    add("--resume", action="store_true", help="go on with an interrupted run")
    return parser


if __name__ == "__main__":
    sys.exit(main())
