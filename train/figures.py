"""The report's tables: figures of results and of their differences, and how they are written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from scipy.stats import t as student

from train.grid import NOISE

Figure = Callable[[dict[str, Any]], float]


def mean_of(score: str) -> Figure:
    """Mean of a score over the subsets."""
    return lambda said: float(np.mean([s[score] for s in said["subsets"].values()]))


def worst_of(score: str) -> Figure:
    """Its least over the subsets."""
    return lambda said: float(min(s[score] for s in said["subsets"].values()))


def full_of(score: str) -> Figure:
    """With every sensor alive: the largest subset."""
    return lambda said: float(max(said["subsets"].items(), key=lambda i: i[0].count("+"))[1][score])


FIGURES: dict[str, Figure] = {
    "mean": mean_of("accuracy"),
    "worst": worst_of("accuracy"),
    "full": full_of("accuracy"),
}
COLUMNS = ("mean", "worst subset", "all alive")
"""What tables call them."""


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """Mean of paired differences and half its 95 % t-interval; infinite from one pair."""
    n = len(differences)
    if n < 2:
        return float(np.mean(differences)), float("inf")
    spread = float(np.std(differences, ddof=1))
    return float(np.mean(differences)), float(student.ppf(0.975, n - 1)) * spread / n**0.5


def verdict(mean: float, half: float) -> str:
    """A difference inside its interval is a tie; one seed settles nothing."""
    if np.isinf(half):
        return "one seed"
    if abs(mean) <= half:
        return "tie"
    return "ahead" if mean > 0 else "behind"


def curve(said: dict[str, Any]) -> np.ndarray:
    """Mean accuracy over subsets: clean, then at every noise level."""
    clean = FIGURES["mean"](said)
    return np.array([clean, *(said["noise"][f"{level:g}"]["mean"] for level in NOISE)])


def area(values: np.ndarray) -> float:
    """Under such a curve, per unit of noise."""
    middles = (values[1:] + values[:-1]) / 2
    return float(middles @ np.diff((0, *NOISE)) / NOISE[-1])


def over_seeds(seeds: dict[int, Any], figure: Figure) -> str:
    """Mean ± standard deviation; of one seed the value."""
    values = [figure(said) for said in seeds.values()]
    if len(values) < 2:
        return f"{values[0]:.3f}"
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"


def percent(share: float) -> str:
    """0.05 → 5 %."""
    return f"{100 * share:g} %"


def table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of Markdown, a blank one last."""
    rule = ["---" if i == 0 else "---:" for i in range(len(names))]
    return [*(f"| {' | '.join(row)} |" for row in (names, rule, *rows)), ""]
