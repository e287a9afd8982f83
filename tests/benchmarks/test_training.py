"""python -m benchmarks.training: ratios against one model on one core of the same run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import training


def test_ratios_are_against_one_model_on_one_core(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cores, gpu = {1: 20.0, 2: 38.0, 4: 70.0}, {1: 40.0, 2: 60.0, 4: 80.0}

    def steps_a_second(device: str, encoder: str, n: int, epochs: int) -> float:
        return (gpu if device == "cuda" else cores)[n]

    monkeypatch.setattr(training, "steps_a_second", steps_a_second)
    monkeypatch.setattr(training, "cpu_count", lambda: 4)
    monkeypatch.setattr(training.torch.cuda, "is_available", lambda: True)
    wanted = tmp_path / "training.json"
    monkeypatch.setattr(sys, "argv", ["training", "--quick", "--json", str(wanted)])
    assert training.main() == 0
    figures = json.loads(wanted.read_text())
    assert figures == {
        "cpu_conv1d_1_ratio": 1.0, "cpu_conv1d_2_ratio": 1.9, "cpu_conv1d_4_ratio": 3.5,
        "cuda_conv1d_1_ratio": 2.0, "cuda_conv1d_2_ratio": 3.0, "cuda_conv1d_4_ratio": 4.0,
    }  # fmt: skip
    assert "3.5" in capsys.readouterr().out


def test_models_side_by_side_really_train() -> None:
    two = training.steps_a_second("cpu", "conv1d", 2, 2)
    assert 0 < two < 1e4  # steps of a network, not of a clock
