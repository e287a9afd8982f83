"""``python -m benchmarks [--quick]``: run every benchmark that is here, one table of their figures.

Writes benchmarks/RESULTS.md. A benchmark that fails is shown as failed, and the others go on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS.md"

BENCHMARKS: dict[str, tuple[str, ...]] = {
    "latency": ("p50_ratio", "p99_ratio"),
    "peers": ("litserve_p99_ratio", "litserve_throughput_ratio"),
    "throughput": ("batched_ratio_64",),
    "footprint": ("idle_core_share", "install_mb", "ready_s", "rss_mb"),
    "faults": ("found_share", "false_alarms_per_sensor_hour", "accuracy_loss_points"),
    "reload": ("missed_results", "p99_growth"),
    "soak": ("missed_results", "rss_slope_mb_per_h"),
    "fuzz": ("crashes", "others_changed"),
    "training": (),
    "gpu": (),
}
"""The figures to show of each; none named: all that it writes."""


@dataclass(frozen=True)
class Goal:
    """What a figure is to be: at most, or at least."""

    sign: str
    bound: float

    def __str__(self) -> str:
        return f"{self.sign} {self.bound:g}"

    def met(self, value: float) -> bool:
        return value <= self.bound if self.sign == "≤" else value >= self.bound


GOALS = {
    "p50_ratio": Goal("≤", 1.25),
    "p99_ratio": Goal("≤", 2),
    "litserve_p99_ratio": Goal("≤", 0.2),
    "litserve_throughput_ratio": Goal("≥", 5),
    "batched_ratio_64": Goal("≥", 0.85),
    "idle_core_share": Goal("≤", 0.04),
    "install_mb": Goal("≤", 150),
    "ready_s": Goal("≤", 1),
    "rss_mb": Goal("≤", 150),
    "found_share": Goal("≥", 0.95),
    "false_alarms_per_sensor_hour": Goal("≤", 1),
    "accuracy_loss_points": Goal("≤", 1),
    "missed_results": Goal("≤", 0),
    "p99_growth": Goal("≤", 1.2),
    "rss_slope_mb_per_h": Goal("≤", 1),
    "crashes": Goal("≤", 0),
    "others_changed": Goal("≤", 0),
}


@dataclass(frozen=True)
class Outcome:
    """What a benchmark came to: its exit code, the last line it printed, and its figures."""

    code: int
    last_line: str
    figures: Mapping[str, float] = field(default_factory=dict)


def main() -> int:
    """Run, print and write; 1 when a benchmark failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the short form of each")
    args = parser.parse_args()
    options = ["--quick"] if args.quick else []
    facts = machine()
    console, outcomes = Console(), {}
    for name in BENCHMARKS:
        if not (HERE / f"{name}.py").exists():
            continue
        with console.status(name):
            outcomes[name] = run(name, options)
        for row in rows(name, outcomes[name]):
            console.print("  ".join(row), markup=False, highlight=False)
    RESULTS.write_text(page(outcomes, options, facts), encoding="utf-8")
    console.print(f"wrote {RESULTS.relative_to(HERE.parent)}", highlight=False)
    return int(any(outcome.code for outcome in outcomes.values()))


def run(name: str, options: Sequence[str]) -> Outcome:
    """Run a benchmark in a process of its own."""
    with TemporaryDirectory() as scratch:
        written = Path(scratch) / "figures.json"
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}", *options, "--json", str(written)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=HERE.parent,
        )  # fmt: skip
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        figures = json.loads(written.read_text()) if written.exists() else {}
    return Outcome(done.returncode, lines[-1] if lines else "it printed nothing", figures)


def rows(name: str, outcome: Outcome) -> list[tuple[str, str, str]]:
    """Figure, value and goal of each of a benchmark's figures."""
    found = []
    for figure in BENCHMARKS[name] or tuple(outcome.figures) or (name,):
        goal = GOALS.get(figure)
        found.append((figure, _value(figure, outcome, goal), str(goal) if goal else "none"))
    return found


def page(outcomes: Mapping[str, Outcome], options: Sequence[str], facts: Sequence[str]) -> str:
    """The whole of RESULTS.md."""
    lines = ["| figure | value | goal | command |", "|---|---|---|---|"]
    for name, outcome in outcomes.items():
        command = " ".join(["python -m", f"benchmarks.{name}", *options])
        lines += [
            "| " + " | ".join(cell.replace("|", "\\|") for cell in (*row, f"`{command}`")) + " |"
            for row in rows(name, outcome)
        ]
    made = " ".join(["python -m benchmarks", *options])
    return "\n".join(
        [
            "# What was measured",
            "",
            f"Written by `{made}`. ✗ misses its goal. Latencies and throughputs",
            "are ratios to a floor or a peer in the same run; each benchmark's head says to which.",
            "",
            *lines,
            "",
            *(f"* {fact}" for fact in facts),
            "",
        ]
    )


def machine() -> list[str]:
    """When and where this is measured, and whether others keep the machine busy."""
    cores, load = os.cpu_count() or 1, os.getloadavg()[0]
    busy = f"loaded: others were running on its {cores} cores, and times are worse for it"
    return [
        f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
        f"{cores} cores, {platform.machine()}, {platform.system()}; "
        f"Python {platform.python_version()}",
        f"load average before the run {load:.1f}: " + (busy if load > cores / 2 else "nearly idle"),
    ]


def _value(figure: str, outcome: Outcome, goal: Goal | None) -> str:
    if outcome.code:
        return f"failed: {outcome.last_line}"
    if figure not in outcome.figures:
        return f"not measured: {outcome.last_line}"
    value = outcome.figures[figure]
    mark = "" if goal is None else " ✓" if goal.met(value) else " ✗"
    return f"{value:.3g}{mark}"


if __name__ == "__main__":
    sys.exit(main())
