"""export.build: what a bundle's tables are fitted to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from export.__main__ import main as export
from robult_edge import bundle
from train.__main__ import main as train

torch.set_num_threads(1)  # the tensors are small: threads cost more than they bring


def test_windows_of_one_group_move_the_pool_less_than_those_of_many(tmp_path: Path) -> None:
    source = "synthetic:windows=480,groups=12,modalities=2"
    options = ["--epochs", "2", "--folds", "2", "--width", "16", "--workers", "1"]
    encoders = ["--encoder", "s0=conv1d", "--encoder", "s1=conv1d"]
    run = tmp_path / "run"
    assert train(["--dataset", source, "--out", str(run), *options, *encoders]) == 0
    with np.load(run / "oof.npz") as file:
        oof = dict(file)

    def moved(groups: np.ndarray) -> float:
        """How much of the branches is in the pool of both sensors, that begins with the head."""
        np.savez(run / "oof.npz", **oof | {"group": groups})
        assert export([str(run), "--out", str(tmp_path / "bundle")]) == 0
        return sum(bundle.load(tmp_path / "bundle").manifest.entry("pool", 0b11).weights)

    assert len(np.unique(oof["group"])) == 9
    assert moved(oof["group"]) > 2 * moved(np.full(len(oof["y"]), "one"))
