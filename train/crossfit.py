"""Cross-fit over groups: every label inside the budget trains, and is also judged unseen."""

from __future__ import annotations

import multiprocessing
import platform
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import cpu_count
from torch import Tensor

from robult_edge import fusion, metrics, subsets
from robult_edge.data import Dataset
from robult_edge.data.mapped import select
from robult_edge.data.splits import draw_labels, drop_at_random, group_folds
from robult_edge.errors import RobultError
from robult_edge.nn.checkpoint import RunInfo
from robult_edge.nn.robult import Robult, encoder_names
from robult_edge.task import Task, labelled, scales, standardised, strata
from train import distributed
from train.config import TrainConfig
from train.loop import Progress, build, pick_device, predict, read_snapshot, train_fold
from train.plan import Plan, steps
from train.teacher import teach


@dataclass(frozen=True)
class Fitted:
    """What a cross-fit ends with.

    Attributes:
        epochs: chosen by the least out-of-fold error.
        weights: averaged, of the model trained on all training groups.
        oof: arrays of oof.npz: what each judged window got from the model that did not see its
            group: branch [n, M, K] and head [n, 2^M − 1, K] logits (NaN where a modality asked
            for is absent), y [n] or [n, K], present [n, M], index [n] row in the data set, group
            [n].
        metrics: the task's score by name.
    """

    epochs: int
    weights: dict[str, Tensor]
    oof: dict[str, np.ndarray]
    metrics: dict[str, float]


def make_plan(dataset: Dataset, config: TrainConfig) -> Plan:
    """Draw labels, holes and folds from the training groups.

    Raises:
        RobultError: nothing to learn from.
    """
    index = np.flatnonzero(~dataset.test)
    y, groups = dataset.y[index], dataset.groups[index]
    draws = [np.random.default_rng([config.seed, stream]) for stream in range(3)]
    known = draw_labels(_strata(y, labelled(y)), config.labels, draws[0])
    kinds = _strata(y, known)  # whatever else is done, is done from labels inside the budget
    if (found := len(np.unique(kinds[known]))) < 2:
        raise RobultError(
            f"data set {dataset.name!r}: the training groups show {found} kinds of its labels; "
            "at least two are needed, so hold out other groups"
        )
    fold = group_folds(groups, kinds, known, config.folds, draws[2])
    present = dataset.present[index]
    if config.missing:
        present = drop_at_random(present, config.missing, draws[1])
    by = scales(y[known], dataset.units)
    return Plan(
        task=dataset.task,
        classes=len(dataset.classes),
        scales=by,
        modalities=dataset.modalities,
        windows={name: select(w, index) for name, w in dataset.windows.items()},
        present=present,
        y=standardised(y, by),
        known=known,
        strata=kinds,
        groups=groups,
        fold=fold,
        index=index,
        invariances=dataset.invariances,
    )


def _strata(y: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Strata [N] of the labels at ``rows`` [N] bool, −1 elsewhere."""
    out = np.full(len(y), -1)
    out[rows] = strata(y[rows])
    return out


def fit(plan: Plan, config: TrainConfig, out: Path, report: Callable[[Progress], None]) -> Fitted:
    """Train a model per fold and one on everything, side by side; choose the epoch; judge.

    The model on everything is trained to the last epoch too and taken as it was at the chosen one:
    the learning rate is constant and the weights averaged, so that is a finished model.
    """
    train_all(plan, config, out, report)

    path = "fold{}/epoch-{:03d}.safetensors".format
    costs = np.zeros(config.epochs)
    for fold in plan.folds:
        costs += [read_snapshot(out / path(fold, e))[1] for e in range(config.epochs)]
    epoch = best_epoch(costs, plan, config)

    m, k = len(plan.modalities), plan.classes
    masks = subsets.all_subsets(m)
    rows = np.flatnonzero(plan.judged)
    branch = np.full((len(rows), m, k), np.nan, np.float32)
    head = np.full((len(rows), len(masks), k), np.nan, np.float32)
    model = build(plan, config).eval().to(pick_device(config.device))
    for fold in plan.folds:
        model.load_state_dict(read_snapshot(out / path(fold, epoch))[0])
        here = plan.fold[rows] == fold
        branch[here], head[here] = predict(model, plan, rows[here], masks)
    oof = {
        "branch": branch,
        "head": head,
        "y": plan.y[rows],
        "present": plan.present[rows],
        "index": plan.index[rows],
        "group": plan.groups[rows],
    }
    weights, _ = read_snapshot(out / path(plan.everything, epoch))
    found = subset_scores(plan.task, branch, head, oof["y"], oof["present"], names(plan))
    return Fitted(epoch + 1, weights, oof, {f"oof/{name}": v for name, v in found.items()})


def best_epoch(costs: np.ndarray, plan: Plan, config: TrainConfig) -> int:
    """Epoch of least out-of-fold cost [epochs].

    One lucky epoch is not a minimum: neighbours count. While averaged weights still remember the
    random ones they began with, they are no candidate. With nothing to judge by it is the last.
    """
    if not costs.any():
        return config.epochs - 1
    smooth = np.convolve(np.pad(costs, 1, "edge"), np.ones(3), "valid")
    memory = 1 / (1 - config.ema) / steps(config, plan.fold != plan.everything)  # in epochs
    grown = min(max(1, round(memory)), config.epochs) - 1
    return grown + int(np.argmin(smooth[grown:]))


def test_metrics(model: Robult, dataset: Dataset, plan: Plan) -> dict[str, float]:
    """Score on the held-out groups per rule and subset: for the report, nothing is chosen."""
    rows = np.flatnonzero(dataset.test & labelled(dataset.y))
    if not len(rows):
        return {}
    whole = Plan(
        **{
            **vars(plan),
            "windows": dataset.windows,
            "present": dataset.present,
            "y": dataset.y,
        }
    )
    branch, head = predict(model, whole, rows, subsets.all_subsets(len(plan.modalities)))
    y = standardised(dataset.y[rows], plan.scales)
    found = subset_scores(plan.task, branch, head, y, dataset.present[rows], names(plan))
    return {f"test/{name}": v for name, v in found.items()}


def subset_scores(
    task: Task,
    branch: np.ndarray,
    head: np.ndarray,
    y: np.ndarray,
    present: np.ndarray,
    names: list[str],
) -> dict[str, float]:
    """Score of "mean/<subset>" (average of the branches' answers) and "head/<subset>".

    Rows that lack a member of the subset are left out; a subset no row has is left out as well.
    """
    link = fusion.LINKS[task]
    found = {}
    for j, mask in enumerate(subsets.all_subsets(len(names))):
        who = list(subsets.members(mask))
        rows = present[:, who].all(1)
        if rows.any():
            subset = subsets.name(mask, names)
            mean = link(branch[rows][:, who]).mean(1)
            found[f"mean/{subset}"] = metrics.score(task, mean, y[rows])
            found[f"head/{subset}"] = metrics.score(task, link(head[rows, j]), y[rows])
    return found


def run_info(
    dataset: Dataset, source: str, plan: Plan, config: TrainConfig, fitted: Fitted
) -> RunInfo:
    """run.json of a finished run."""
    packages = ("robult-edge", "torch", "numpy")
    return RunInfo(
        dataset=source,
        task=dataset.task,
        classes=dataset.classes,
        scales=plan.scales,
        modalities=dataset.modalities,
        width=config.width,
        encoders=encoder_names(dataset.modalities, config.encoders),
        classifier_input=config.classifier_input,
        seed=config.seed,
        labels=config.labels,
        label_counts=tuple(np.bincount(plan.strata[plan.known], minlength=plan.classes).tolist()),
        epochs=fitted.epochs,
        versions={"python": platform.python_version()} | {p: _version(p) for p in packages},
        metrics=fitted.metrics,
        config=asdict(config),
    )


def names(plan: Plan) -> list[str]:
    """Modality names in order."""
    return [m.name for m in plan.modalities]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def train_all(
    plan: Plan, config: TrainConfig, out: Path, report: Callable[[Progress], None]
) -> None:
    """Train a model per fold and one on everything, `side_by_side`.

    Under torchrun one after another, each on all processes: there may be more of them than folds,
    and a batch too large for one is then no hindrance.
    """
    folds = [plan.everything, *plan.folds]
    taught = teach(plan, config) if config.delta else {}
    workers = side_by_side(len(folds), config)
    if workers == 1 or distributed.world() > 1:
        for fold in folds:
            train_fold(plan, config, fold, out, report, taught.get(fold))
        return
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    with ProcessPoolExecutor(workers, context, _start_worker, (queue,)) as pool:
        jobs = {pool.submit(_work, plan, config, fold, out, taught.get(fold)) for fold in folds}
        while jobs:
            done, jobs = wait(jobs, timeout=0.2)
            while not queue.empty():
                report(queue.get())
            for job in done:
                job.result()


def side_by_side(models: int, config: TrainConfig) -> int:
    """How many processes train: as asked, or a core for every model, as far as there are cores.

    A GPU has two: with eight at once each took an H100 four times as long a step as one alone.
    """
    return config.workers or min(models, 2 if pick_device(config.device) == "cuda" else cpu_count())


_queue: Any = None


def _start_worker(queue: Any) -> None:
    global _queue
    _queue = queue
    torch.set_num_threads(1)  # folds share the cores; threads inside one would fight over them


def _work(plan: Plan, config: TrainConfig, fold: int, out: Path, taught: np.ndarray | None) -> None:
    train_fold(plan, config, fold, out, _queue.put, taught)
