"""One picture per data set and label fraction: accuracy over subsets, and under noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


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
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    colours = plt.get_cmap("tab10").colors  # type: ignore[attr-defined]
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
            style, width = ("-", 2.0) if rule.startswith("robult") else ("--", 1.2)
            values = [subsets.mean(), *np.mean(curves, 0)]
            right.plot([0, *noise], values, style, lw=width, marker=".", color=colour)
    left.set_yticks(range(len(own)), [titles[rule] for rule in own])
    left.invert_yaxis()
    left.set_xlabel("accuracy on unseen groups; dots: subsets, diamond: their mean")
    left.grid(axis="x", alpha=0.3)
    right.set_xlabel("noise, in spreads of each channel; colours as on the left")
    right.set_ylabel("accuracy, mean over subsets")
    right.grid(alpha=0.3)
    figure.suptitle(title)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
