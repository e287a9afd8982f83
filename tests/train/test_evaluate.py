"""Evaluation: the same JSON however often interrupted, splits paired across methods."""

import dataclasses
import io
import json

import numpy as np
import pytest
import torch
from rich.console import Console

from robult_edge.data import load
from robult_edge.data.splits import pick_test_groups
from robult_edge.errors import RobultError
from train import score
from train.comparators.shape import Fitted
from train.config import TrainConfig
from train.evaluate import evaluate, main, run, split
from train.grid import METHODS, QUICK, Cell, Grid

torch.set_num_threads(1)  # the tensors are small: threads cost more than they bring
SOURCE = "synthetic:windows=240,modalities=2,groups=8,classes=3"
GRID = dataclasses.replace(
    QUICK,
    datasets=(SOURCE,),
    methods=("early", "minirocket"),
    labels=(0.3,),
    seeds=1,
    rates=(2e-3,),
    config=TrainConfig(workers=1, device="cpu", folds=2, epochs=2, steps=2, width=16),
)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    evaluate(GRID, folder, 2, Console(quiet=True))
    return folder


def test_an_interrupted_evaluation_goes_on_to_the_same_json(out, tmp_path):
    for cell in GRID.cells()[:1]:
        run(cell, GRID, tmp_path)
    first = (tmp_path / GRID.cells()[0].file).stat().st_mtime_ns
    evaluate(GRID, tmp_path, 1, Console(quiet=True))
    assert (tmp_path / GRID.cells()[0].file).stat().st_mtime_ns == first
    names = sorted(f.name for f in out.iterdir())
    assert sorted(f.name for f in tmp_path.iterdir()) == names
    for name in names:
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes()


def test_the_json_holds_every_subset_and_what_it_rests_on(out):
    groups = []
    for cell in GRID.cells():
        said = json.loads((out / cell.file).read_bytes())
        assert said["labelled_windows"] > 0
        groups.append(said["test_groups"])
        for rule in said["rules"].values():
            assert rule["subsets"].keys() == {"s0", "s1", "s0+s1"}
            for scores in rule["subsets"].values():
                assert 0 <= scores["accuracy"] <= 1
                assert scores["n"] > 0
            assert 0 <= rule["rises_unprovoked"] <= rule["confidence_rises"] <= 1
            assert set(rule["noise"]["0.5"]) == {"mean", "worst", "full"}
    assert groups[0] == groups[1]


def test_variants_can_be_asked_for_alone():
    grid = dataclasses.replace(Grid(seeds=1, datasets=("watch",)), only=("taught", "missing=0.6"))
    found = {(c.method, c.variant) for c in grid.cells()}
    assert found == {(m, "missing=0.6") for m in METHODS} | {
        (m, "taught") for m in METHODS if m not in ("minirocket", "robult")
    }


def test_ten_times_the_labels_go_to_late_fusion_alone():
    cells = Grid(seeds=1, datasets=("watch",)).cells()
    assert [(c.method, c.variant) for c in cells if c.labels == 0.5] == [("supervised", "default")]


@pytest.fixture
def settings(monkeypatch):
    """What each run trains with; none does."""
    seen = []

    def fit(plan, config, rates):
        seen.append(config)
        return Fitted(lambda windows, there: {}, {}, {})

    monkeypatch.setattr("train.comparators.methods.METHODS", {m: fit for m in METHODS})
    return seen


def test_a_comparator_is_given_the_teacher_only_when_asked(settings, tmp_path):
    for method, variant in (("early", "default"), ("early", "taught"), ("robult", "default")):
        run(Cell(SOURCE, 0.3, 0, method, variant), GRID, tmp_path)
    alone, taught, robult = (config.delta for config in settings)
    assert not alone
    assert taught == robult > 0


@pytest.mark.parametrize(("encoder", "suits"), [("rocket", True), ("conv2d", False), ("", False)])
def test_all_methods_have_the_encoder_that_is_asked_for_where_it_suits(
    settings, tmp_path, encoder, suits
):
    grid = dataclasses.replace(GRID, encoder=encoder)
    for method in METHODS:
        run(Cell(SOURCE, 0.3, 0, method), grid, tmp_path)
    same = {"s0": encoder, "s1": encoder} if suits else {}
    assert all(config.encoders == same for config in settings)
    run(Cell(SOURCE, 0.3, 0, "robult", "encoder=gru"), grid, tmp_path)
    assert settings[-1].encoders == {"s0": "gru", "s1": "gru"}


def test_trainings_are_as_long_as_is_asked_and_short_in_all_else(tmp_path):
    asked = ["--datasets", SOURCE, "--methods", "early", "--epochs", "1", "--out", str(tmp_path)]
    assert main(["--quick", *asked]) == 0
    settings = json.loads((tmp_path / "settings.json").read_bytes())
    assert settings["short"]
    assert settings["epochs"] == 1
    assert QUICK.config.epochs > 1
    for cell in dataclasses.replace(QUICK, datasets=(SOURCE,), methods=("early",)).cells():
        said = json.loads((tmp_path / cell.file).read_bytes())
        assert said["chosen"]["epochs"] == 1


@pytest.mark.parametrize("option", ["--epochs", "--seeds", "--workers"])
def test_a_number_of_none_is_refused(option, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([option, "0", "--out", str(tmp_path / "out")])
    assert f"{option}: '0' is not a whole number from 1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_other_settings_do_not_mix_into_a_folder(out):
    with pytest.raises(RobultError, match="holds results with rates"):
        evaluate(dataclasses.replace(GRID, rates=(1e-2,)), out, 1, Console(quiet=True))


def test_a_data_set_that_is_not_there_is_left_out_and_said_so(tmp_path):
    console = Console(record=True, width=400, file=io.StringIO())
    grid = dataclasses.replace(GRID, datasets=("nowhere.toml",))
    evaluate(grid, tmp_path, 1, console)
    assert "nowhere.toml is left out" in console.export_text()


def test_each_seed_holds_out_other_groups_with_every_class_on_both_sides():
    data = load(SOURCE)
    splits = [split(data, seed) for seed in range(3)]
    assert len({s.test_groups for s in splits}) == 3
    # Statistics are of each split's own training groups.
    assert len({s.modalities for s in splits}) == 3
    for s in splits:
        assert len(s.test_groups) == len(data.test_groups)
        assert set(data.y[s.test]) == set(data.y[~s.test]) == {0, 1, 2}


def test_a_class_of_two_groups_is_seen_on_both_sides():
    groups = np.repeat(np.array(list("abcdefgh")), 10)
    y = np.where(np.isin(groups, ["c", "f"]), 1, 0)
    for seed in range(10):
        test = np.isin(groups, pick_test_groups(groups, y, 0.25, seed))
        assert set(y[test]) == set(y[~test]) == {0, 1}


def test_the_full_grid_is_the_protocol():
    cells = Grid().cells()
    assert len({c.file for c in cells}) == len(cells)
    assert {c.labels for c in cells if c.method == "robult"} == {0.01, 0.05, 0.2, 1.0}
    assert {c.seed for c in cells} == set(range(5))
    assert {c.method for c in cells} == set(METHODS)
    variants = {c.variant for c in cells}
    without = {f"no-{loss}" for loss in ("L_rec", "L_ulb", "L_lb", "L_PU", "L_distil")}
    assert without | {"missing=0.6", "missing=unequal"} <= variants


def test_confidence_rises_where_less_is_surer():
    p = np.array([[[0.9, 0.1], [0.6, 0.4], [0.7, 0.3]], [[0.6, 0.4], [0.5, 0.5], [0.8, 0.2]]])
    assert score.confidence_rises(p) == (1 / 4, 1 / 4)
    absent = p.copy()
    absent[1, 1:] = np.nan  # the second window lacks s1, and so both subsets with it
    assert score.confidence_rises(absent) == (1 / 2, 1 / 2)


def test_a_sensor_that_contradicts_is_a_reason_to_be_less_sure():
    p = np.array([[[0.9, 0.1], [0.4, 0.6], [0.7, 0.3]]])
    assert score.confidence_rises(p) == (1 / 2, 0)


def test_noise_is_measured_in_spreads_of_each_channel():
    data = load(SOURCE)
    seen = []

    def answer(windows, present):
        seen.append(windows["s0"])
        return {"rule": np.full((len(present), 3, 3), 1 / 3)}

    score.judge(Fitted(answer, {"rule": np.zeros(3)}, {}), data, (0.5,), 0)
    clean, noisy = seen
    std = np.array(data.modalities[0].stats.std)
    np.testing.assert_allclose((noisy - clean).std((0, 2)), 0.5 * std, rtol=0.05)


def test_a_data_set_of_another_task_is_left_out_with_the_reason(tmp_path):
    console = Console(file=io.StringIO(), width=400)
    grid = dataclasses.replace(GRID, datasets=(f"{SOURCE},task=regression",))
    evaluate(grid, tmp_path, 1, console)
    assert "answer classification alone" in console.file.getvalue()
    assert [file.name for file in tmp_path.iterdir()] == ["settings.json"]
