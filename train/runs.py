"""What a folder of `train.evaluate` says, by data set, share of labels, rule and variant."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from robult_edge.errors import RobultError
from train.grid import Cell

OURS = ("robult", "robult-mean", "robult-head")
USUAL = ("robult", "default")
"""Rule and variant that a bundle answers by."""
TITLES = {
    "unimodal": "best sensor's own network",
    "late": "supervised late fusion",
    "early": "early fusion, modality dropout",
    "gmc": "GMC",
    "actionmae": "ActionMAE",
    "shaspec": "ShaSpec",
    "minirocket": "MiniRocket + ridge, averaged",
    "robult": "Robult, pool",
    "robult-mean": "Robult, mean",
    "robult-head": "Robult, head",
}

Runs = dict[tuple[str, float, str, str], dict[int, dict[str, Any]]]
"""(data set, labels, rule, variant) → seed → what one JSON says of the rule."""


def cells(results: Path) -> set[Cell]:
    """The trainings that a folder holds."""
    return {
        Cell(*(said[name] for name in ("dataset", "labels", "seed", "method", "variant")))
        for said in _all(results)
    }


def read(results: Path) -> Runs:
    """All cells of a folder, by rule.

    Raises:
        RobultError: there are none.
    """
    runs: Runs = {}
    for cell in _all(results):
        for rule, said in cell["rules"].items():
            key = (cell["dataset"], cell["labels"], rule, cell["variant"])
            said["labelled_windows"] = cell["labelled_windows"]
            runs.setdefault(key, {})[cell["seed"]] = said
    if not runs:
        raise RobultError(f"{results} holds no results; make some with python -m train.evaluate")
    order = list(TITLES)
    return dict(sorted(runs.items(), key=lambda kv: (*kv[0][:2], order.index(kv[0][2]), kv[0][3])))


def _all(results: Path) -> Iterator[dict[str, Any]]:
    for file in sorted(results.glob("*_*.json")):
        yield msgspec.json.decode(file.read_bytes())
