"""Training, for real and small: what it promises about labels, groups, resuming and learning."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from robult_edge import subsets
from robult_edge.data import load
from robult_edge.errors import RobultError
from robult_edge.nn.checkpoint import load_model, save_tensors
from train import crossfit, loop
from train.__main__ import hints, main
from train.augment import AUGMENTATIONS, Noise, augment
from train.config import TrainConfig
from train.plan import steps
from train.teacher import teach

torch.set_num_threads(1)  # the tensors are small: threads cost more than they bring
SMALL = "synthetic:windows=240,modalities=2,groups=8,classes=3"
QUICK = TrainConfig(labels=0.2, epochs=4, folds=2, workers=1, device="cpu", steps=4, width=16)


def snapshot(folder, fold, epoch):
    return load_file(folder / f"fold{fold}" / f"epoch-{epoch:03d}.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def silent(_):
    pass


def test_plan_keeps_test_groups_out_and_the_budget():
    data = load(SMALL)
    plan = crossfit.make_plan(data, dataclasses.replace(QUICK, missing=0.3))
    assert not set(plan.groups) & set(data.test_groups)
    for fold in set(plan.fold):
        assert not set(plan.groups[plan.fold == fold]) & set(plan.groups[plan.fold != fold])
    for k in range(3):
        n = (plan.y == k).sum()
        assert (plan.known & (plan.y == k)).sum() == max(1, round(0.2 * n))
    np.testing.assert_array_equal(plan.windows["s1"], data.windows["s1"][plan.index])
    assert 0.15 < 1 - plan.present.mean() < 0.35
    assert plan.present.any(1).all()


def test_axes_that_may_be_turned_are_asked_about():
    watch = load("watch")
    assert not [*hints(watch), *hints(load(SMALL))]
    bare = dataclasses.replace(watch, invariances={"acc": ("jitter",), "gyro": ("rotate",)})
    assert [hint.rpartition("say ")[2] for hint in hints(bare)] == [
        'invariant_to = ["jitter", "rotate"]'
    ]


@pytest.mark.parametrize(
    ("windows", "asked", "made"), [(40, 40, 10), (320, 40, 20), (9000, 40, 40), (40, 4, 4)]
)
def test_few_windows_need_few_steps_but_some(windows, asked, made):
    config = dataclasses.replace(QUICK, steps=asked)
    assert steps(config, np.ones(windows, bool)) == made


def test_an_interrupted_run_ends_as_an_uninterrupted_one(tmp_path):
    plan = crossfit.make_plan(load(SMALL), QUICK)
    loop.train_fold(plan, QUICK, 0, tmp_path / "a" / "folds", silent)

    def stop(now):
        if now.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.train_fold(plan, QUICK, 0, tmp_path / "b" / "folds", stop)
    torch.manual_seed(12345)  # whatever happened in between
    seen = []
    loop.train_fold(plan, QUICK, 0, tmp_path / "b" / "folds", lambda now: seen.append(now.epoch))
    assert seen == [3, 4]
    for epoch in range(4):
        assert same(*(snapshot(tmp_path / run / "folds", 0, epoch) for run in "ab"))
    for run in "ab":
        state = load_file(tmp_path / run / "folds" / "fold0" / "state.safetensors")
        assert any(k.startswith("optimiser/") for k in state)
    assert same(*(load_file(tmp_path / r / "folds" / "fold0" / "state.safetensors") for r in "ab"))


def test_half_precision_trains_to_finite_losses(tmp_path, monkeypatch):
    plan = crossfit.make_plan(load(SMALL), QUICK)
    monkeypatch.setattr(loop, "autocast", lambda on: torch.autocast(on.type, torch.bfloat16))
    seen = []
    loop.train_fold(plan, QUICK, 0, tmp_path / "folds", seen.append)
    assert len(seen) == QUICK.epochs
    assert all(0 < now.loss < 10 for now in seen)
    weights = snapshot(tmp_path / "folds", 0, 3)
    assert all(w.isfinite().all() for w in weights.values())
    assert weights["c.weight"].dtype == torch.float32


def test_without_a_gpu_training_is_in_full_precision():
    with loop.autocast(torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_truth_outside_the_budget_changes_nothing(tmp_path):
    plan = crossfit.make_plan(load(SMALL), QUICK)
    lies = dataclasses.replace(plan, y=np.where(plan.known, plan.y, (plan.y + 1) % 3))
    for name, it in (("truth", plan), ("lies", lies)):
        loop.train_fold(it, QUICK, 0, tmp_path / name / "folds", silent)
    assert same(*(snapshot(tmp_path / name / "folds", 0, 3) for name in ("truth", "lies")))


def test_synergy_is_learned_by_the_head_alone(tmp_path):
    source = "synthetic:modalities=2,classes=2,redundant=0,unique=0,synergy=1"
    encoders = {"s0": "conv1d", "s1": "conv1d"}
    config = TrainConfig(epochs=5, folds=2, workers=1, device="cpu", encoders=encoders)
    data = load(source)
    plan = crossfit.make_plan(data, config)  # folds 0 and 1; 2 is everything
    loop.train_fold(plan, config, 2, tmp_path / "folds", silent)
    model = loop.build(plan, config).eval()
    model.load_state_dict(snapshot(tmp_path / "folds", 2, config.epochs - 1))
    metrics = crossfit.test_metrics(model, data, plan)
    assert metrics["test/head/s0+s1"] > 0.85
    for nothing in ("mean/s0", "mean/s1", "mean/s0+s1", "head/s0", "head/s1"):
        assert 0.4 < metrics[f"test/{nothing}"] < 0.6


def test_synergy_is_learned_from_few_labels(tmp_path):
    source = "synthetic:modalities=2,classes=2,redundant=0,unique=0,synergy=1"
    encoders = {"s0": "conv1d", "s1": "conv1d"}
    config = TrainConfig(labels=0.05, epochs=5, folds=2, workers=1, device="cpu", encoders=encoders)
    data = load(source)
    plan = crossfit.make_plan(data, config)
    taught = teach(plan, config)[plan.everything]
    loop.train_fold(plan, config, plan.everything, tmp_path / "folds", silent, taught)
    model = loop.build(plan, config).eval()
    model.load_state_dict(snapshot(tmp_path / "folds", plan.everything, config.epochs - 1))
    assert crossfit.test_metrics(model, data, plan)["test/head/s0+s1"] > 0.85


def test_wrong_labels_are_not_learnt_by_heart(tmp_path):
    data = load("synthetic:windows=800,modalities=2,groups=8,classes=3,redundant=1,unique=0")
    encoders = {"s0": "conv1d", "s1": "conv1d"}
    config = TrainConfig(epochs=6, folds=2, workers=1, device="cpu", encoders=encoders)
    plan = crossfit.make_plan(data, config)
    rng = np.random.default_rng(0)
    wrong = rng.random(len(plan.y)) < 0.4
    y = np.where(wrong, (plan.y + rng.integers(1, 3, len(plan.y))) % 3, plan.y)
    fitted = crossfit.fit(dataclasses.replace(plan, y=y), config, tmp_path / "folds", silent)
    model = loop.build(plan, config).eval()
    model.load_state_dict(fitted.weights)
    right = crossfit.test_metrics(model, data, plan)
    for sensor in ("s0", "s1"):  # .71 to .79 where labels are taken at their word
        assert right[f"test/mean/{sensor}"] > 0.85
    assert right["test/head/s0+s1"] > 0.9


def test_labels_are_believed_the_more_the_longer_training_lasts():
    said = torch.tensor([[0.2, 0.8], [0.2, 0.8]])
    label = torch.tensor([[1.0, 0.0], [torch.nan, torch.nan]])
    labelled = torch.tensor([True, False])
    for belief, then in ((0.0, [0.2, 0.8]), (0.5, [0.6, 0.4]), (1.0, [1.0, 0.0])):
        aim = loop.aims(said, label, labelled, belief)
        torch.testing.assert_close(aim, torch.stack([torch.tensor(then), said[1]]))


@pytest.mark.parametrize("sensors", [1, 2, 7])
def test_the_head_counts_as_much_as_all_branches_however_many(sensors):
    branches, head = torch.full((sensors,), 3.0), torch.tensor([5.0, 7.0])
    assert loop.halves([*branches, *head]) == (3 + 6) / 2


def test_each_sensor_alone_beats_chance_and_the_run_is_written_down(tmp_path):
    source = "synthetic:windows=800,modalities=2,groups=8,classes=2,redundant=0.8,unique=0"
    options = ["--labels", "0.3", "--epochs", "8", "--folds", "2", "--workers", "1"]
    assert main(["--dataset", source, "--out", str(tmp_path), *options]) == 0
    model, info = load_model(tmp_path)
    for where in ("oof", "test"):
        for subset in ("s0", "s1", "s0+s1"):
            for rule in ("mean", "head"):
                # A coin says 0.5, who hears the tone 0.9.
                assert info.metrics[f"{where}/{rule}/{subset}"] > 0.7
    oof = np.load(tmp_path / "oof.npz")
    data = load(source)
    n = len(oof["y"])
    assert oof["branch"].shape == (n, 2, 2)
    assert oof["head"].shape == (n, len(subsets.all_subsets(2)), 2)
    assert n == sum(info.label_counts)
    np.testing.assert_array_equal(data.y[oof["index"]], oof["y"])
    np.testing.assert_array_equal(data.groups[oof["index"]], oof["group"])
    assert not np.isin(oof["group"], data.test_groups).any()
    assert not (tmp_path / "folds").exists()
    assert any((tmp_path / "logs").rglob("events.*"))
    # The saved model gives the accuracy that was written down.
    rows = np.flatnonzero(data.test)
    with torch.no_grad():
        logits, _ = model.branch("s0")(torch.from_numpy(data.windows["s0"][rows]))
    right = (logits.argmax(1).numpy() == data.y[rows]).mean()
    assert right == pytest.approx(info.metrics["test/mean/s0"])


@pytest.mark.parametrize("extra", [["--classifier-input", "z"], ["--encoder", "s1=gru"]])
def test_one_label_per_class_and_holes_still_train(tmp_path, extra):
    options = ["--labels", "0.001", "--epochs", "2", "--folds", "3", "--workers", "1"]
    out = ["--dataset", SMALL, "--out", str(tmp_path), "--missing", "0.5", "--width", "16"]
    assert main([*out, *options, *extra]) == 0
    _, info = load_model(tmp_path)
    assert info.label_counts == (1, 1, 1)
    assert len(np.load(tmp_path / "oof.npz")["y"]) == 0  # nobody else has heard of the class


def test_out_of_fold_answers_rest_on_what_is_present(tmp_path):
    options = ["--labels", "0.1", "--epochs", "1", "--folds", "2", "--workers", "1"]
    out = ["--dataset", SMALL, "--out", str(tmp_path), "--missing", "0.5", "--width", "16"]
    assert main([*out, *options]) == 0
    oof = np.load(tmp_path / "oof.npz")
    assert len(oof["y"]) > 10
    np.testing.assert_array_equal(np.isfinite(oof["branch"]).all(2), oof["present"])
    masks = subsets.as_bools(subsets.all_subsets(2), 2)
    covered = (oof["present"][:, None] | ~masks).all(2)
    np.testing.assert_array_equal(np.isfinite(oof["head"]).all(2), covered)


def test_folds_train_side_by_side_to_the_same_end(tmp_path):
    plan = crossfit.make_plan(load(SMALL), QUICK)
    two = dataclasses.replace(QUICK, workers=2, epochs=2)
    one = dataclasses.replace(QUICK, workers=1, epochs=2)
    seen = []
    results = [
        crossfit.fit(plan, config, tmp_path / str(config.workers) / "folds", seen.append)
        for config in (one, two)
    ]
    assert same(results[0].weights, results[1].weights)
    np.testing.assert_array_equal(results[0].oof["branch"], results[1].oof["branch"])
    assert sorted((s.fold, s.epoch) for s in seen) == sorted(
        2 * [(f, e) for f in range(3) for e in (1, 2)]
    )


@pytest.mark.parametrize(("cores", "expected"), [(1, 1), (4, 4), (16, 6)])
def test_every_model_gets_a_core_as_far_as_there_are_some(monkeypatch, cores, expected):
    monkeypatch.setattr(crossfit, "cpu_count", lambda: cores)
    assert crossfit.side_by_side(6, dataclasses.replace(QUICK, workers=0)) == expected
    assert crossfit.side_by_side(6, dataclasses.replace(QUICK, workers=3)) == 3


def test_resume_refuses_other_settings_and_leaves_a_finished_run_alone(tmp_path, capsys):
    command = ["--dataset", SMALL, "--out", str(tmp_path), "--epochs", "1", "--folds", "2"]
    command += ["--width", "16", "--resume"]
    assert main([*command, "--workers", "1"]) == 0
    before = (tmp_path / "run.json").read_bytes()
    assert main([*command, "--workers", "2"]) == 0  # how many train makes no difference
    assert (tmp_path / "run.json").read_bytes() == before
    assert json.loads(before)["seed"] == 0
    capsys.readouterr()
    assert main([*command, "--seed", "1"]) == 2
    assert "was begun with seed 0, not 1" in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--labels", "5"], "--labels is 5"),
        (["--labels", "0"], "--labels is 0"),
        (["--encoder", "acc"], "--encoder is 'acc'"),
        (["--encoder", "lidar=gru"], "encoder given for 'lidar'"),
        (["--encoder", "s0=lstm"], "it must be one of rocket"),
        (["--folds", "1"], "--folds is 1"),
        (["--dataset", "nowhere"], "'nowhere' does not exist"),
    ],
)
def test_a_bad_command_ends_in_one_sentence_and_2(tmp_path, capsys, options, said):
    command = ["--dataset", SMALL, "--out", str(tmp_path / "run"), *options]
    assert main(command) == 2
    assert said in capsys.readouterr().out.replace("\n", " ")
    assert not (tmp_path / "run").exists()


def test_too_few_classes_to_learn_are_refused():
    data = load(SMALL)
    with pytest.raises(RobultError, match="at least two are needed"):
        crossfit.make_plan(dataclasses.replace(data, y=np.zeros_like(data.y)), QUICK)


def test_a_class_in_one_fold_alone_is_learned_but_not_judged_by():
    data = load(SMALL)
    home = data.groups[np.flatnonzero(~data.test)[0]]
    y = np.where((data.y == 2) & (data.groups != home), -1, data.y)
    plan = crossfit.make_plan(dataclasses.replace(data, y=y), QUICK)
    lonely = plan.known & (plan.y == 2)
    assert lonely.any()
    np.testing.assert_array_equal(plan.judged, plan.known & ~lonely)


def test_the_epoch_is_the_best_out_of_fold_of_those_that_are_not_their_random_start():
    plan = crossfit.make_plan(load(SMALL), QUICK)
    config = dataclasses.replace(QUICK, epochs=8, steps=5, ema=0.9)  # which remembers two epochs
    for costs, best in (
        ([1, 9, 8, 6, 5, 6, 7, 8], 4),
        ([9, 7, 1, 7, 3, 3, 3, 5], 5),  # one lucky epoch
        ([1, 2, 3, 4, 5, 6, 7, 8], 1),
        ([0, 0, 0, 0, 0, 0, 0, 0], 7),  # nothing to judge by
    ):
        assert crossfit.best_epoch(np.array(costs, float), plan, config) == best


def test_a_few_sure_mistakes_do_not_end_a_training_that_is_right_more_often():
    """Log loss, even at the best temperature, would take the first of these two."""
    y = np.zeros(100, int)
    doubtful = np.where(np.arange(100) < 65, 1.0, -1.0)
    mostly_right = np.where(np.arange(100) < 90, 2.0, -20.0)
    errors = [
        loop.oof_error(np.stack([margin, 0 * margin], 1)[:, None], y, np.ones(100))
        for margin in (doubtful, mostly_right)
    ]
    assert errors[1] < errors[0] / 2


@pytest.mark.parametrize(
    ("task", "truth", "by_row"),
    [
        ("classification", np.array([0, 2]), [2 / 9, 2 / 9]),  # of a third each
        ("multilabel", np.array([[1, 0, 1], [0, 0, 1]]), [1 / 4, 1 / 4]),
        ("regression", np.array([[2.0, 0.0, 0.0], [0.0, 1.0, 1.0]]), [4 / 3, 2 / 3]),
    ],
)
def test_the_out_of_fold_error_is_squared_and_leaves_out_what_is_absent(task, truth, by_row):
    logits = np.zeros((2, 2, 3))
    logits[1, 1] = np.nan  # the second answer to the second window
    found = loop.oof_error(logits, truth, np.array([1.0, 3.0]), task)
    assert found == pytest.approx((2 * by_row[0] + 3 * by_row[1]) / 2)


def test_a_snapshot_of_an_earlier_version_is_refused_by_name(tmp_path):
    path = tmp_path / "epoch-000.safetensors"
    save_tensors(path, {"w": torch.zeros(1)}, {"log_loss": "1.0"})
    with pytest.raises(RobultError, match=r"epoch-000.*earlier version; train again without"):
        loop.read_snapshot(path)


def test_labels_of_a_single_group_train_one_model_to_the_end(tmp_path):
    data = load(SMALL)
    home = data.groups[np.flatnonzero(~data.test)[0]]
    data = dataclasses.replace(data, y=np.where(data.groups == home, data.y, -1))
    plan = crossfit.make_plan(data, QUICK)
    assert not plan.judged.any()
    seen = []
    fitted = crossfit.fit(plan, QUICK, tmp_path / "folds", seen.append)
    assert {s.fold for s in seen} == {plan.everything}
    assert fitted.epochs == QUICK.epochs
    assert len(fitted.oof["y"]) == 0
    values = dataclasses.replace(plan, task="regression", y=np.ones((len(plan.y), 1), np.float32))
    assert values.folds == []


def test_augmentation_does_only_what_is_declared():
    noise = Noise(torch.Generator().manual_seed(0), 6, slice(None))
    series, image = torch.randn(6, 3, 32), torch.randn(6, 3, 16, 24)
    std = torch.ones(3, 1)
    assert torch.equal(augment(series, std, (), noise), series)
    for name in ("jitter", "scale", "shift", "rotate"):
        changed = augment(series, std, (name,), noise)
        assert changed.shape == series.shape
        assert not torch.equal(changed, series)
    shifted = AUGMENTATIONS["shift"](series, std, noise)
    torch.testing.assert_close(shifted.sort(2)[0], series.sort(2)[0])
    for name in ("jitter", "scale", "flip", "crop"):
        assert augment(image, std[:, :, None], (name,), noise).shape == image.shape


def test_a_sensor_is_turned_whole_by_some_degrees_and_each_window_otherwise():
    noise = Noise(torch.Generator().manual_seed(0), 200, slice(None))
    x = torch.randn(200, 1, 3, 8).repeat(1, 2, 1, 1)  # two sensors at one place measure the same
    turned = AUGMENTATIONS["rotate"](x.flatten(1, 2), torch.ones(6, 1), noise).unflatten(1, (2, 3))
    torch.testing.assert_close(turned[:, 0], turned[:, 1])
    # Lengths, angles between any two samples, and handedness stay.
    before, after = x[:, 0], turned[:, 0]
    torch.testing.assert_close(turned.norm(dim=2), x.norm(dim=2))
    torch.testing.assert_close(
        after.transpose(1, 2) @ after, before.transpose(1, 2) @ before, rtol=1e-4, atol=1e-4
    )
    volume = torch.linalg.det(before[:, :, :3])
    torch.testing.assert_close(torch.linalg.det(after[:, :, :3]), volume, rtol=1e-4, atol=1e-4)
    degrees = torch.rad2deg(torch.cosine_similarity(before, after, 1).clamp(-1, 1).acos())
    assert 5 < degrees.median() < 20
    assert degrees.mean(1).std() > 2
