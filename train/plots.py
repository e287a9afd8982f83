"""Pictures: accuracy by share of labels; and for each, over subsets and under noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

PANELS = 4
"""In a row."""


def draw(
    own: Mapping[str, Mapping[int, Any]],
    titles: Mapping[str, str],
    noise: Sequence[float],
    title: str,
    path: Path,
) -> None:
    """Write a PNG.

    Args:
        own: rule → seed → scores, as the JSON files hold them.
        titles: of the rules.
        noise: levels.
        title: of the picture.
        path: of the PNG.
    """
    plt = _pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    colours = plt.get_cmap("tab10").colors
    for row, (rule, seeds) in enumerate(own.items()):
        each = [[s["accuracy"] for s in said["subsets"].values()] for said in seeds.values()]
        subsets, colour = np.mean(each, 0), colours[row]
        left.scatter(subsets, np.full(len(subsets), row), s=14, alpha=0.4, color=colour)
        left.scatter(subsets.mean(), row, marker="D", s=50, color=colour, edgecolor="black")
        curves = [
            [said["noise"][f"{level:g}"]["mean"] for level in noise]
            for said in seeds.values()
            if said["noise"]
        ]
        if curves:
            values = [subsets.mean(), *np.mean(curves, 0)]
            right.plot([0, *noise], values, marker=".", color=colour, **_line(rule))
    left.set_yticks(range(len(own)), [titles[rule] for rule in own])
    left.invert_yaxis()
    left.set_xlabel("accuracy on unseen groups; dots: subsets, diamond: their mean")
    left.grid(axis="x", alpha=0.3)
    right.set_xlabel("noise, in spreads of each channel; colours as on the left")
    right.set_ylabel("accuracy, mean over subsets")
    right.grid(alpha=0.3)
    figure.suptitle(title)
    _write(figure, path)


def draw_labels(
    curves: Mapping[str, Mapping[str, Mapping[float, float]]],
    titles: Mapping[str, str],
    path: Path,
) -> None:
    """Write a PNG of accuracy by share of labels, a panel per data set.

    Args:
        curves: data set → rule → share of labels → accuracy.
        titles: of the rules.
        path: of the PNG.
    """
    plt = _pyplot()
    rows = -(-(len(curves) + 1) // PANELS)
    figure, axes = plt.subplots(
        rows, PANELS, figsize=(11, 2.8 * rows), layout="constrained", squeeze=False
    )
    colours = dict(zip(titles, plt.get_cmap("tab10").colors, strict=False)) | {"robult": "black"}
    *panels, legend = axes.flat[: len(curves) + 1]
    for axis, (dataset, by_rule) in zip(panels, curves.items(), strict=True):
        shares = sorted({share for by_share in by_rule.values() for share in by_share})
        for rule, by_share in by_rule.items():
            at = [shares.index(share) for share in by_share]
            axis.plot(at, list(by_share.values()), marker=".", color=colours[rule], **_line(rule))
        axis.set_xticks(range(len(shares)), [f"{100 * share:g} %" for share in shares])
        axis.set_title(dataset, fontsize=10)
        axis.grid(alpha=0.3)
    for rule in dict.fromkeys(rule for by_rule in curves.values() for rule in by_rule):
        legend.plot([], [], color=colours[rule], label=titles[rule], **_line(rule))
    legend.legend(loc="center", frameon=False, fontsize=9)
    for axis in axes.flat[len(curves) :]:
        axis.set_axis_off()
    figure.supxlabel("labels known", fontsize=10)
    figure.supylabel("accuracy, mean over subsets", fontsize=10)
    _write(figure, path)


def _line(rule: str) -> dict[str, Any]:
    return {"ls": "-", "lw": 2.0} if rule.startswith("robult") else {"ls": "--", "lw": 1.2}


def _pyplot() -> Any:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def _write(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=110, metadata={"Software": None})
    _pyplot().close(figure)
