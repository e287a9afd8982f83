"""export.build: what a bundle's tables are fitted to."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from export.__main__ import main as export
from robult_edge import bundle
from train.__main__ import main as train

torch.set_num_threads(1)  # the tensors are small: threads cost more than they bring


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = "synthetic:windows=480,groups=12,modalities=2"
    options = ["--epochs", "2", "--folds", "2", "--width", "16", "--workers", "1"]
    encoders = ["--encoder", "s0=conv1d", "--encoder", "s1=conv1d"]
    run = tmp_path_factory.mktemp("run")
    assert train(["--dataset", source, "--out", str(run), *options, *encoders]) == 0
    return run


def test_windows_of_one_group_move_the_pool_less_than_those_of_many(
    run: Path, tmp_path: Path
) -> None:
    with np.load(run / "oof.npz") as file:
        oof = dict(file)

    def moved(groups: np.ndarray) -> float:
        """How much of the branches is in the pool of both sensors, that begins with the head."""
        mine = shutil.copytree(run, tmp_path / "run", dirs_exist_ok=True)
        np.savez(mine / "oof.npz", **oof | {"group": groups})
        assert export([str(mine), "--out", str(tmp_path / "bundle")]) == 0
        return sum(bundle.load(tmp_path / "bundle").manifest.entry("pool", 0b11).weights)

    assert len(np.unique(oof["group"])) == 9
    assert moved(oof["group"]) > 2 * moved(np.full(len(oof["y"]), "one"))


def test_a_run_of_an_earlier_version_is_refused_in_one_sentence(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = shutil.copytree(run, tmp_path / "run")
    with np.load(run / "oof.npz") as file:
        np.savez(mine / "oof.npz", **{name: file[name] for name in file if name != "group"})
    assert export([str(mine), "--out", str(tmp_path / "bundle")]) == 2
    assert "oof.npz is of an earlier version; train again" in capsys.readouterr().err
