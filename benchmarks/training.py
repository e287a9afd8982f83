"""Training steps a second, on cores and on a GPU, with one model or several side by side.

``python -m benchmarks.training [--quick] [--json PATH]``

The watch's default steps, an epoch's judging and saving included, as a ratio against one model on
one core in the same run: what `train.crossfit.side_by_side` rests on. Without a GPU its rows are
missing.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from joblib import cpu_count
from rich.console import Console
from rich.progress import track
from rich.table import Table

from robult_edge.data import load
from train import crossfit, loop
from train.config import TrainConfig

ENCODERS, QUICK_ENCODERS = ("conv1d", "rocket"), ("conv1d",)
EPOCHS, QUICK_EPOCHS = 9, 4
"""The first is not counted: libraries load and kernels are chosen in it."""


def main() -> int:
    """Measure and print; write ``--json`` too."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one encoder, fewer epochs")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    encoders, epochs = (QUICK_ENCODERS, QUICK_EPOCHS) if args.quick else (ENCODERS, EPOCHS)
    counts = sorted({1, 2, min(8, cpu_count()), cpu_count()})
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    cases = [(d, e, n) for e in encoders for d in devices for n in counts]
    rates = {case: steps_a_second(*case, epochs) for case in track(cases, "training")}
    figures = {
        f"{device}_{encoder}_{n}_ratio": rate / rates["cpu", encoder, 1]
        for (device, encoder, n), rate in rates.items()
    }
    table = Table(title="training", title_justify="left")
    for column in ("device", "encoder", "side by side", "steps/s", "× one core"):
        table.add_column(column)
    for (device, encoder, n), rate in rates.items():
        ratio = figures[f"{device}_{encoder}_{n}_ratio"]
        table.add_row(device, encoder, str(n), f"{rate:.0f}", f"{ratio:.1f}")
    Console().print(table)
    if args.json:
        args.json.write_text(json.dumps(figures))
    return 0


def steps_a_second(device: str, encoder: str, n: int, epochs: int) -> float:
    """Of ``n`` models that begin together, all of them summed."""
    with ProcessPoolExecutor(n, multiprocessing.get_context("spawn")) as pool:
        return sum(pool.map(partial(_train, device, encoder), n * [epochs]))


def _train(device: str, encoder: str, epochs: int) -> float:
    torch.set_num_threads(1)
    dataset = load("watch")
    encoders = {m.name: encoder for m in dataset.modalities}
    config = TrainConfig(labels=0.05, epochs=epochs, device=device, encoders=encoders)
    plan = crossfit.make_plan(dataset, config)
    taught = np.full((len(plan.y), plan.classes), 1 / plan.classes, np.float32)
    ends: list[float] = []
    with TemporaryDirectory() as scratch:
        loop.train_fold(
            plan, config, 0, Path(scratch), lambda _: ends.append(time.perf_counter()), taught
        )
    return (epochs - 1) * config.steps / (ends[-1] - ends[0])


if __name__ == "__main__":
    sys.exit(main())
