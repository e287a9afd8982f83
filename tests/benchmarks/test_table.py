"""python -m benchmarks: one table of what every benchmark wrote, whatever became of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as table
from benchmarks.__main__ import Outcome


@pytest.mark.parametrize(
    ("name", "outcome", "cells"),
    [
        ("throughput", Outcome(0, "└──┘", {"batched_ratio_64": 0.9}), ["0.9 ✓", "≥ 0.85"]),
        ("throughput", Outcome(0, "└──┘", {"batched_ratio_64": 0.8}), ["0.8 ✗", "≥ 0.85"]),
        ("throughput", Outcome(1, "MemoryError: 9 GB"), ["failed: MemoryError: 9 GB", "≥ 0.85"]),
        ("throughput", Outcome(0, "no such device"), ["not measured: no such device", "≥ 0.85"]),
        ("gpu", Outcome(0, "└──┘", {"p50_us": 41.26}), ["41.3", "none"]),
        ("gpu", Outcome(2, "no GPU"), ["failed: no GPU", "none"]),
    ],
    ids=["met", "missed", "failed", "not measured", "without a goal", "all its figures unknown"],
)
def test_a_figure_shows_its_value_or_why_there_is_none(
    name: str, outcome: Outcome, cells: list[str]
) -> None:
    ((_, *shown),) = table.rows(name, outcome)
    assert shown == cells


def test_every_figure_that_is_named_has_a_goal() -> None:
    assert {figure for named in table.BENCHMARKS.values() for figure in named} == set(table.GOALS)


def test_page_names_figure_value_goal_command_and_machine() -> None:
    outcomes = {
        "latency": Outcome(0, "", {"p50_ratio": 1.2, "p99_ratio": 2.5, "p50_ratio_2_sensors": 1}),
        "soak": Outcome(1, "KeyError: 'a|b'"),
    }
    page = table.page(outcomes, ["--quick"], ["2 cores"]).splitlines()
    assert "| p50_ratio | 1.2 ✓ | ≤ 1.25 | `python -m benchmarks.latency --quick` |" in page
    assert "| p99_ratio | 2.5 ✗ | ≤ 2 | `python -m benchmarks.latency --quick` |" in page
    failed = [line for line in page if line.startswith("| missed_results |")]
    assert failed == [
        "| missed_results | failed: KeyError: 'a\\|b' | ≤ 0 | `python -m benchmarks.soak --quick` |"
    ]
    assert not any("p50_ratio_2_sensors" in line for line in page)
    assert "* 2 cores" in page


def test_one_that_fails_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "latency.py").write_text("raise RuntimeError('no sockets left')")
    written = json.dumps({"batched_ratio_64": 0.91})
    (folder / "throughput.py").write_text(
        f"import sys, pathlib; pathlib.Path(sys.argv[-1]).write_text({written!r})"
    )
    monkeypatch.setattr(table, "HERE", folder)
    monkeypatch.setattr(table, "RESULTS", folder / "RESULTS.md")
    monkeypatch.setattr("sys.argv", ["benchmarks", "--quick"])
    assert table.main() == 1
    page = (folder / "RESULTS.md").read_text()
    assert "| p50_ratio | failed: RuntimeError: no sockets left |" in page
    assert "| batched_ratio_64 | 0.91 ✓ |" in page
