"""What holds over all data sets: Robult against comparators, and against itself less a piece."""

from __future__ import annotations

from typing import Any

import numpy as np

from train.figures import COLUMNS, FIGURES, interval, mean_of, percent, table, verdict
from train.grid import VARIANTS
from train.runs import OURS, TITLES, USUAL, Runs


def overview(runs: Runs) -> list[str]:
    """The pool against every comparator and against itself without a piece."""
    rivals = [(rule, "default") for rule in TITLES if rule not in OURS]
    against, without = [], []
    for labels in dict.fromkeys(n for _, n, _, _ in runs):
        pool = _by_dataset(runs, labels, *USUAL)
        for rule, variant in [*rivals, ("late", "taught")]:
            if cells := _over_datasets(pool, _by_dataset(runs, labels, rule, variant)):
                given = ", given Robult's teacher" if variant == "taught" else ""
                against.append([percent(labels), TITLES[rule] + given, *cells])
        for variant in VARIANTS:
            if cells := _over_datasets(_by_dataset(runs, labels, USUAL[0], variant), pool):
                without.append([percent(labels), variant, *cells])
    lines = []
    if against:
        lines += [
            "## Over all data sets",
            "",
            "Robult's pool less a comparator, averaged over seeds and then paired over data sets,",
            "with the 95 % t-interval over data sets and on how many of them Robult is better.",
            "",
            *table(["labels", "against", *COLUMNS], against),
            "ECE, averaged over subsets, seeds and data sets, by share of labels:",
            "",
            *_sureness(runs),
        ]
    if without:
        lines += [
            "What its pieces are worth: the pool without one, or with another, less the pool.",
            "",
            *table(["labels", "variant", *COLUMNS], without),
        ]
    return lines


def _by_dataset(runs: Runs, labels: float, rule: str, variant: str) -> dict[str, dict[int, Any]]:
    """Data set → seeds."""
    return {d: seeds for (d, *kind), seeds in runs.items() if kind == [labels, rule, variant]}


def _over_datasets(ours: dict[str, dict[int, Any]], theirs: dict[str, dict[int, Any]]) -> list[str]:
    """Per figure ours less theirs, paired over data sets; nothing of fewer than two."""
    cells = []
    for figure in FIGURES.values():
        differences = [
            float(np.mean([figure(seeds[s]) - figure(theirs[dataset][s]) for s in both]))
            for dataset, seeds in ours.items()
            if (both := seeds.keys() & theirs.get(dataset, {}).keys())
        ]
        if len(differences) > 1:
            mean, half = interval(differences)
            better = f"{sum(d > 0 for d in differences)} of {len(differences)}"
            cells.append(f"{mean:+.3f} ± {half:.3f} ({verdict(mean, half)}, {better})")
    return cells


def _sureness(runs: Runs) -> list[str]:
    """ECE by share of labels of every method that was judged on all of the pool's data sets."""
    datasets: dict[float, list[str]] = {}
    for dataset, labels, rule, variant in runs:
        if (rule, variant) == USUAL:
            datasets.setdefault(labels, []).append(dataset)
    rows = []
    for rule in TITLES:
        row = []
        for labels, names in datasets.items():
            own = [runs.get((name, labels, rule, USUAL[1]), {}) for name in names]
            ece = [np.mean([*map(mean_of("ece"), seeds.values())]) for seeds in own if seeds]
            row.append(f"{np.mean(ece):.3f}" if all(own) else "")
        if any(row):
            rows.append([TITLES[rule], *row])
    return table(["method", *map(percent, datasets)], rows)
