"""``python -m train.report results/quick``: the JSON files as docs/RESULTS.md and plots."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from robult_edge.errors import RobultError
from train import plots
from train.asked import command, grid_of
from train.comparators.shape import COVERAGE
from train.figures import (
    COLUMNS,
    FIGURES,
    Figure,
    area,
    curve,
    interval,
    mean_of,
    over_seeds,
    percent,
    table,
    verdict,
    worst_of,
)
from train.grid import COSTS, FEW, MANY, NOISE, ROOT, SETTINGS, Grid
from train.overview import overview
from train.runs import OURS, TITLES, USUAL, Runs, cells, read


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m train.report", description=__doc__)
    parser.add_argument("results", type=Path, help="folder of python -m train.evaluate")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "RESULTS.md")
    options = parser.parse_args(arguments)
    try:
        render(options.results, options.out)
    except RobultError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def render(results: Path, out: Path) -> None:
    """Write ``out``, say RESULTS.md, and in a folder ``results`` beside it the plots."""
    runs, settings = read(results), msgspec.json.decode((results / SETTINGS).read_bytes())
    pictures = out.parent / out.stem.lower()
    pictures.mkdir(parents=True, exist_ok=True)
    text = [*_head(results, out, settings, runs), *_reading(), *overview(runs)]
    text += _by_labels(runs, pictures)
    for dataset, labels in dict.fromkeys((d, n) for d, n, _, _ in runs):
        own = {
            rule: seeds
            for (d, n, rule, variant), seeds in runs.items()
            if (d, n, variant) == (dataset, labels, "default")
        }
        if not any(rule in own for rule in OURS):
            continue  # of late fusion alone: what `_efficiency` compares with
        picture = f"{dataset.replace('/', '-')}-{labels:g}.png"
        title = f"{dataset}, {percent(labels)} of the labels"
        plots.draw(own, TITLES, NOISE, title, pictures / picture)
        text += [f"## {title}", "", *_accuracy(own)]
        text += _paired(own)
        if labels == FEW:
            text += _efficiency(own, runs.get((dataset, MANY, "late", "default"), {}))
        text += _calibration(own) + _noise(own)
        text += [f"![accuracy and noise]({pictures.name}/{picture})", ""]
        text += _variants(runs, dataset, labels)
    if (results / COSTS).exists():
        text += _costs(msgspec.json.decode((results / COSTS).read_bytes()))
    out.write_text("\n".join(text), encoding="utf-8")


def _head(results: Path, out: Path, settings: dict[str, Any], runs: Runs) -> list[str]:
    seeds: dict[float, set[int]] = {}
    for (_, labels, _, variant), own in runs.items():
        if variant == USUAL[1]:
            seeds.setdefault(labels, set()).add(len(own))
    by_labels = ", ".join(
        f"{' to '.join(map(str, sorted({min(n), max(n)})))} with {percent(labels)}"
        for labels, n in sorted(seeds.items())
    )
    there, short = cells(results), bool(settings["short"])
    grid = grid_of(there, settings)
    whole = set(grid.cells())
    rates = ", ".join(f"{rate:g}" for rate in settings["rates"])
    lines = [
        "# Results",
        "",
        "```text",
        command(grid, settings, _seen(results)),
        f"python -m train.report {_seen(results)} --out {_seen(out)}",
        "```",
        "",
        f"made this page, which holds {len(there & whole)} of the {len(whole)} trainings that the",
        "first line names.",
    ]
    if short:
        steps, full = settings["epochs"] * settings["steps"], Grid().config
        lines += [
            "**This is the short form**: few seeds, one learning rate for all, and trainings of",
            f"{steps} steps at most, where the full form's have {full.epochs * full.steps}. Short",
            "ones set networks back against MiniRocket and ridge, whose fit is a formula. It shows",
            "that the machinery works and which way things lean; it does not settle who is best.",
        ]
    lines += [
        f"Seeds, each with test groups of its own: {by_labels} of the labels; "
        f"{settings['folds']} folds; at most {settings['epochs']} epochs of {settings['steps']} "
        f"steps; learning rates {rates}; "
        f"encoders: {settings['encoder'] or 'the default'}, wherever it suits the windows.",
        "",
    ]
    return lines


def _seen(path: Path) -> str:
    """From the repository's root."""
    return os.path.relpath(path, ROOT)


def _reading() -> list[str]:
    return [
        "Accuracy on unseen groups over all 2^M − 1 subsets of the sensors: their mean, the worst,",
        "and with all alive; ± is the standard deviation over seeds. All methods have the same",
        "encoders, augmentation, labels and splits, and the same search over learning rate and",
        "epochs, judged out of fold. Differences are paired over seeds, with their 95 %",
        "t-interval; one inside its interval is a tie. The best comparator is picked after the",
        "fact, by the very figure it is compared in, which flatters it. In the plots a dot is a",
        "subset, averaged over seeds. Of every class one label is known at least: with 0.01 % of",
        "them it is one.",
        "",
    ]


def _by_labels(runs: Runs, pictures: Path) -> list[str]:
    """A picture of all data sets that were learned with several shares of the labels."""
    curves: dict[str, dict[str, dict[float, float]]] = {}
    for dataset in dict.fromkeys(d for d, _, _, _ in runs):
        # Of our rules the pool alone: the three lie on one another.
        own = {
            (n, rule): seeds
            for (d, n, rule, variant), seeds in runs.items()
            if (d, variant) == (dataset, "default") and rule not in OURS[1:]
        }
        ours = {n: seeds for (n, rule), seeds in own.items() if rule == USUAL[0]}
        if len(ours) < 2:
            continue
        paired = set.intersection(*(set(seeds) for seeds in ours.values()))
        for (n, rule), seeds in own.items():
            if n in ours and (both := paired & seeds.keys()):
                mean = float(np.mean([FIGURES["mean"](seeds[s]) for s in both]))
                curves.setdefault(dataset, {}).setdefault(rule, {})[n] = mean
    if not curves:
        return []
    plots.draw_labels(curves, TITLES, pictures / "labels.png")
    return [
        "Accuracy by share of labels, over the seeds that were run with all of them:",
        "",
        f"![accuracy by share of labels]({pictures.name}/labels.png)",
        "",
    ]


def _accuracy(own: dict[str, Any]) -> list[str]:
    columns = [*FIGURES.values(), mean_of("balanced_accuracy"), mean_of("macro_f1")]
    names = ["method", *COLUMNS, "balanced, mean", "macro-F1, mean"]
    rows = [[TITLES[rule], *(over_seeds(seeds, f) for f in columns)] for rule, seeds in own.items()]
    return table(names, rows)


def _paired(own: dict[str, Any]) -> list[str]:
    rivals = [rule for rule in own if rule not in OURS]
    if not rivals:
        return []
    rows = []
    for ours in (rule for rule in OURS if rule in own):
        for name, figure in FIGURES.items():
            best = max(rivals, key=lambda r: np.mean([figure(s) for s in own[r].values()]))
            both = sorted(own[ours].keys() & own[best].keys())
            mean, half = interval([figure(own[ours][s]) - figure(own[best][s]) for s in both])
            cells = [f"{mean:+.3f} ± {half:.3f}", verdict(mean, half)]
            rows.append([TITLES[ours], name, TITLES[best], *cells])
    return table(["", "figure", "best comparator", "difference", ""], rows)


def _efficiency(own: dict[str, Any], many: dict[int, Any]) -> list[str]:
    """Robult with few labels against late fusion with ten times as many, paired over seeds."""
    rows = []
    for rule in (rule for rule in OURS if rule in own):
        both = sorted(own[rule].keys() & many.keys())
        for name, figure in FIGURES.items():
            if both:
                few, more = ({s: seeds[s] for s in both} for seeds in (own[rule], many))
                mean, half = interval([figure(few[s]) - figure(more[s]) for s in both])
                rows.append(
                    [TITLES[rule], name, over_seeds(few, figure), over_seeds(more, figure),
                     f"{mean:+.3f} ± {half:.3f}", verdict(mean, half)]
                )  # fmt: skip
    if not rows:
        return []
    return [
        f"Against supervised late fusion with {percent(MANY)} of the labels, ten times as many:",
        "",
        *table(
            ["", "figure", percent(FEW), f"late fusion, {percent(MANY)}", "difference", ""], rows
        ),
    ]


def _calibration(own: dict[str, Any]) -> list[str]:
    columns: list[Figure] = [
        mean_of("ece"),
        lambda said: max(s["ece"] for s in said["subsets"].values()),
        mean_of("coverage"),
        worst_of("coverage"),
        mean_of("set_size"),
        lambda said: said["confidence_rises"],
        lambda said: said["rises_unprovoked"],
    ]
    names = ["method", "ECE, mean", "ECE, worst", "coverage, mean", "coverage, worst", "set size",
             "confidence rises", "unprovoked"]  # fmt: skip
    rows = [[TITLES[rule], *(over_seeds(seeds, f) for f in columns)] for rule, seeds in own.items()]
    return [
        "Prediction sets promise 90 %. *Confidence rises*: share of cases in which taking a",
        "sensor away makes the answer surer. Where that sensor contradicts the others it should:",
        "there was a reason to doubt (two sensors of two classes, each right four times in five by",
        "itself, do so in 32 % of cases). *Unprovoked*: where it says the same as they do.",
        "",
        *table(names, rows),
        *_luck(own.get(USUAL[0], {})),
    ]


def _luck(seeds: dict[int, Any]) -> list[str]:
    """What of an ECE and of a coverage is luck, where it was measured."""
    known = {
        s: said
        for s, said in seeds.items()
        if all("ece_floor" in scores for scores in said["subsets"].values())
    }
    if not known:
        return []
    lines = [
        f"Luck alone: {TITLES[USUAL[0]]}, right just as often as it says, would show an ECE of",
        f"{over_seeds(known, mean_of('ece_floor'))} on so many windows.",
    ]
    n = np.mean([said["labelled_windows"] for said in known.values()])
    if n >= 1 / (1 - COVERAGE) - 1:  # with fewer a set has to hold every class
        # The coverage that n labels promise is a beta's (Vovk 2012).
        spread = np.sqrt(COVERAGE * (1 - COVERAGE) / (n + 2))
        hit = np.mean([mean_of("accuracy")(said) for said in known.values()])
        shown = np.sqrt(hit * (1 - hit) / n)
        lines += [
            f"Sets made with {n:.0f} labels cover {100 * COVERAGE:g} ± {100 * spread:.1f} % of",
            f"windows drawn alike; that {100 * hit:.0f} % of answers are right, so many labels",
            f"show to ± {100 * shown:.1f} points, and how sure answers are is fitted to them.",
        ]
    return [*lines, ""]


def _noise(own: dict[str, Any]) -> list[str]:
    noisy = {rule: seeds for rule, seeds in own.items() if all(s["noise"] for s in seeds.values())}
    if not noisy:
        return []
    names = ["method", "clean", *(f"{100 * n:g} %" for n in NOISE), "relative", "effective"]
    rows = []
    for rule, seeds in noisy.items():
        curves = {s: curve(said) for s, said in seeds.items()}
        cells = [f"{v:.3f}" for v in np.mean(list(curves.values()), 0)]
        cells.append(f"{np.mean([area(c) for c in curves.values()]):.3f}")
        late = {s: curve(said) for s, said in noisy.get("late", {}).items() if s in curves}
        lost = [area(curves[s] - curves[s][0]) - area(c - c[0]) for s, c in late.items()]
        cells.append(f"{np.mean(lost):+.3f}" if lost else "–")
        rows.append([TITLES[rule], *cells])
    return [
        "Mean accuracy over subsets under noise, in spreads of each channel. *Relative* robustness",
        "is the area under that curve, *effective* what it loses against its clean value, less",
        "what late fusion loses (MultiBench; positive is sturdier than late fusion).",
        "",
        *table(names, rows),
    ]


def _costs(costs: dict[str, Any]) -> list[str]:
    branch = [
        [name, f"{c['parameters']:,}", f"{c['flops'] / 1e3:,.0f}", f"{c['us']:.0f}"]
        for name, c in costs["branch"].items()
    ]
    kept = [[f"{width}", f"{n:,}"] for width, n in costs["kept"].items()]
    return [
        "## Costs",
        "",
        "A branch of the watch (3 × 128 samples, 7 classes) by its encoder; microseconds are of",
        "one window on ONNX Runtime, one thread, on the machine that made this page. Branches",
        "share nothing that grows: M sensors cost M times this. `python -m train.costs` measures",
        "other data, and `python -m train --budget 60us` picks what fits.",
        "",
        *table(["encoder", "parameters", "kFLOP", "us"], branch),
        "Kept at inference with three such sensors, the fusion head included:",
        "",
        *table(["width", "parameters"], kept),
    ]


def _variants(runs: Runs, dataset: str, labels: float) -> list[str]:
    rows = []
    for (d, n, rule, variant), seeds in runs.items():
        usual = runs.get((d, n, rule, "default"))
        if (d, n) != (dataset, labels) or variant == "default" or not usual:
            continue
        both = sorted(seeds.keys() & usual.keys())
        cells = []
        for figure in FIGURES.values():
            mean, half = interval([figure(seeds[s]) - figure(usual[s]) for s in both])
            cells.append(f"{mean:+.3f} ± {half:.3f} ({verdict(mean, half)})")
        rows.append([TITLES[rule], variant, *cells])
    if not rows:
        return []
    return [
        "Variants, paired difference to the same method as it is: pieces taken out, other",
        "encoders, samples missing in training, and comparators that are given Robult's teacher.",
        "",
        *table(["method", "variant", *COLUMNS], rows),
    ]


if __name__ == "__main__":
    sys.exit(main())
