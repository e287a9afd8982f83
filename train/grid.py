"""What is evaluated: data sets, methods, variants, and the cells that a grid makes of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from robult_edge.data import Dataset
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
    "vowels": "examples/datasets/vowels.toml",
    "segments": "examples/datasets/segments.toml",
    "digits": "examples/datasets/digits.toml",
}
"""The method was not made on the last three: see docs/LEARNING.md."""
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
    "no-L_distil,L_PU": {"delta": 0.0, "alpha": 0.0},
    "no-augmentation": {"augment": False},
    "kernel=l1": {"kernel": "l1"},
    "kernel=l2": {"kernel": "l2"},
    "kernel=uniform": {"kernel": "uniform"},
    "classifier=z": {"classifier_input": "z"},
}
"""Variants of Robult by what they change; the fusion rule is varied in every run anyway."""
ENCODERS = ("rocket", "conv1d", "gru", "transformer", "mlp")
"""The default of long windows, and others."""
VARIANTS = (*ABLATIONS, *(f"encoder={name}" for name in ENCODERS))
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
        encoder: of all methods, wherever it suits the windows; each window's default if empty.
        rates: learning rates searched.
        config: everything else.
    """

    datasets: tuple[str, ...] = tuple(DATASETS)
    methods: tuple[str, ...] = METHODS
    labels: tuple[float, ...] = (0.01, 0.05, 0.2, 1.0)
    seeds: int = 5
    variants: tuple[str, ...] = tuple(v for v in VARIANTS if v != f"encoder={ENCODERS[0]}")
    missing: tuple[str, ...] = METHODS
    taught: tuple[str, ...] = ("supervised", "early", "gmc", "actionmae", "shaspec")
    only: tuple[str, ...] = ()
    encoder: str = ""
    rates: tuple[float, ...] = (5e-4, 2e-3)
    config: TrainConfig = field(default_factory=lambda: TrainConfig(workers=1, device="cpu"))

    def with_variants(self, only: tuple[str, ...]) -> Grid:
        """The same with these variants, whichever it has itself."""
        full = Grid()
        return replace(self, variants=VARIANTS, missing=full.missing, taught=full.taught, only=only)

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
    seeds=1,
    variants=(),
    missing=(),
    taught=("supervised",),
    encoder="conv1d",
    rates=(4e-3,),
    config=TrainConfig(workers=1, device="cpu", folds=3, epochs=8, steps=32, batch_labelled=32),
)
"""Made to end within ten minutes on two cores: one seed, one learning rate for all, an encoder a
third as dear as the default, and trainings a fifth as long as they should be, which sets networks
back against MiniRocket + ridge, a formula."""


def source(name: str) -> str:
    """A data set of DATASETS, or whatever ``robult_edge.data.load`` takes."""
    known = DATASETS.get(name, "")
    return str(ROOT / known) if known.endswith(".toml") else known or name


def changes(cell: Cell, dataset: Dataset, encoder: str) -> dict[str, Any]:
    """Settings that a cell changes, in a grid of this encoder."""
    from robult_edge.nn.encoders import suitable  # torch is for the processes that train

    kind, _, value = cell.variant.partition("=")
    encoder = value if kind == "encoder" else encoder
    encoders = {m.name: encoder for m in dataset.modalities if encoder in suitable(m)}
    if cell.method == "robult":
        return {"encoders": encoders} | ABLATIONS.get(cell.variant, {})
    return {"encoders": encoders} | ({} if cell.variant == "taught" else {"delta": 0.0})


def missing_shares(variant: str, m: int) -> np.ndarray:
    value = variant.partition("=")[2]
    return np.linspace(0, 0.9, m) if value == "unequal" else np.full(m, float(value))
