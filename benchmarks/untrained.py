"""A bundle of any number of sensors with untrained weights: speed does not depend on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress

from export.build import build
from robult_edge import bundle, data
from robult_edge.nn.checkpoint import RunInfo, save_model
from robult_edge.nn.robult import Robult

FOLD_ROWS = 64


def make(sensors: int, where: Path) -> bundle.Bundle:
    """The bundle ``where``/engines for that many sensors, made once.

    Args:
        sensors: how many modalities of 3 channels, 128 samples, default encoder.
        where: folder to keep it in.
    """
    if not (where / "engines" / bundle.MANIFEST).exists():
        source = f"synthetic:modalities={sensors}"
        dataset = data.load(source)
        torch.manual_seed(0)
        model = Robult(dataset.modalities, len(dataset.classes))
        where.mkdir(parents=True, exist_ok=True)
        save_model(where, model.state_dict(), _info(source, dataset, model.width))
        rng, m, k = np.random.default_rng(0), sensors, len(dataset.classes)
        np.savez(
            where / "oof.npz",
            branch=rng.normal(size=(FOLD_ROWS, m, k)).astype(np.float32),
            head=rng.normal(size=(FOLD_ROWS, 2**m - 1, k)).astype(np.float32),
            y=rng.integers(k, size=FOLD_ROWS),
            present=np.ones((FOLD_ROWS, m), bool),
            group=np.arange(FOLD_ROWS).astype(str),
        )
        build(where, where / "engines", 0.9, Progress(disable=True))
    return bundle.load(where)


def _info(source: str, dataset: data.Dataset, width: int) -> RunInfo:
    return RunInfo(
        dataset=source,
        classes=dataset.classes,
        modalities=dataset.modalities,
        width=width,
        encoders={},
        classifier_input="z",
        seed=0,
        labels=1.0,
        label_counts=(),
        epochs=0,
        versions={},
        metrics={},
        config={},
    )
