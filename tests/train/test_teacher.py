"""train.teacher: what ridge regression says of windows whose labels are not known."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist, squareform
from sklearn.kernel_ridge import KernelRidge

from robult_edge import fusion
from robult_edge.data import load
from train.config import TrainConfig
from train.crossfit import make_plan
from train.kernel import Kernel, _values
from train.plan import Plan
from train.ridge import PENALTIES, ridge
from train.teacher import STRENGTHS, VIEWS, drawn_at_random, teach

torch.set_num_threads(1)  # the tensors are small: threads cost more than they bring
CONFIG = TrainConfig(labels=0.1, folds=2)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(load("synthetic:windows=400,modalities=2,groups=8,classes=3"), CONFIG)


@pytest.fixture(scope="module")
def said(plan: Plan) -> dict[int, np.ndarray]:
    return teach(plan, CONFIG)


def right(plan: Plan, answers: np.ndarray, rows: np.ndarray) -> float:
    return float((answers.argmax(1) == plan.y)[rows].mean())


def test_it_names_what_it_was_not_told(plan: Plan, said: dict[int, np.ndarray]) -> None:
    everything = max(said)
    assert said.keys() == {*plan.fold.tolist(), everything}
    assert right(plan, said[everything], ~plan.known) > 0.6  # a coin says 0.33
    for answers in said.values():
        np.testing.assert_allclose(answers[~plan.known].sum(1), 1, rtol=1e-5)


def test_of_a_labelled_window_it_says_what_it_would_without_the_label(
    plan: Plan, said: dict[int, np.ndarray]
) -> None:
    for fold, answers in said.items():
        mine = plan.known & (plan.fold != fold)
        np.testing.assert_allclose(answers[mine].sum(1), 1, rtol=1e-5)
        assert 0.5 < right(plan, answers, mine) < 1
        assert not answers[plan.known & ~mine].any()


@pytest.mark.parametrize("most", [100, 1500])
def test_wrong_labels_are_believed_less(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.teacher.LABELLED", most)
    config = replace(CONFIG, labels=0.8)
    many = make_plan(
        load("synthetic:windows=800,modalities=2,groups=8,redundant=1,unique=0"), config
    )
    rng = np.random.default_rng(0)
    wrong = many.known & (rng.random(len(many.y)) < 0.2)
    label = np.where(wrong, (many.y + rng.integers(1, 4, len(many.y))) % 4, many.y)
    for fold, answers in teach(replace(many, y=label), config).items():
        believed = answers[np.arange(len(label)), label]
        mine = many.known & (many.fold != fold)
        assert believed[mine & wrong].mean() < 0.3
        assert believed[mine & ~wrong].mean() > 0.7


def test_labels_of_the_fold_left_out_change_nothing(
    plan: Plan, said: dict[int, np.ndarray]
) -> None:
    other = replace(plan, y=np.where(plan.fold == 0, (plan.y + 1) % 3, plan.y))
    np.testing.assert_array_equal(teach(other, CONFIG)[0], said[0])
    assert not np.array_equal(teach(other, CONFIG)[1], said[1])


def test_truth_outside_the_budget_changes_nothing(plan: Plan, said: dict[int, np.ndarray]) -> None:
    lies = replace(plan, y=np.where(plan.known, plan.y, (plan.y + 1) % 3))
    for fold, answers in teach(lies, CONFIG).items():
        np.testing.assert_array_equal(answers, said[fold])


def test_one_label_of_each_class_is_enough_to_say_something() -> None:
    config = replace(CONFIG, labels=1e-4)
    few = make_plan(load("synthetic:windows=400,modalities=2,groups=8,classes=3"), config)
    assert few.known.sum() == 3
    assert few.folds == []
    answers = teach(few, config)
    assert answers.keys() == {few.everything}
    assert right(few, answers[few.everything], ~few.known) > 0.4  # a coin says 0.33
    assert answers[few.everything][~few.known].max(1).mean() > 0.4


def test_with_one_label_of_each_class_it_is_as_sure_as_it_is_right() -> None:
    """No label is left to ask how sure that is."""
    dataset = load("synthetic:windows=400,modalities=2,groups=8,classes=3")
    too_sure = []
    for seed in range(6):
        config = replace(CONFIG, labels=1e-4, seed=seed)
        few = make_plan(dataset, config)
        answers = teach(few, config)[few.everything]
        too_sure.append(answers[~few.known].max(1).mean() - right(few, answers, ~few.known))
    assert abs(np.mean(too_sure)) < 0.06


def test_only_where_no_label_can_be_left_out_it_rehearses(
    plan: Plan, said: dict[int, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(CONFIG, labels=1e-4)
    few = make_plan(load("synthetic:windows=400,modalities=2,groups=8,classes=3"), config)
    before = teach(few, config)[few.everything]
    monkeypatch.setattr("train.teacher.rehearsed", lambda *_: 1e-3)
    sure = teach(few, config)[few.everything]
    assert sure.max(1).mean() > before.max(1).mean() + 0.1
    np.testing.assert_array_equal(sure.argmax(1), before.argmax(1))
    for fold, answers in teach(plan, CONFIG).items():
        np.testing.assert_array_equal(answers, said[fold])


def test_one_label_of_each_class_says_nothing_of_how_often_classes_occur(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Most windows are of one class, which lies near where windows lie on average."""
    shares, level = [0.85, 0.1, 0.05], np.array([-0.3, 1.0, 2.0])
    gain = []
    for seed in range(4):
        config = replace(CONFIG, labels=1e-4, seed=seed)
        few = make_plan(load("synthetic:windows=400,modalities=2,groups=8,classes=3"), config)
        rng = np.random.default_rng(seed)
        y = rng.choice(3, len(few.y), p=shares)
        known = np.zeros(len(y), bool)
        known[[rng.choice(np.flatnonzero(y == k)) for k in range(3)]] = True
        drawn = rng.normal(0, 0.3, (len(y), 2)) + level[y][:, None]
        windows = {
            name: np.tile(at[:, None, None], w.shape[1:]).astype(np.float32)
            for at, (name, w) in zip(drawn.T, few.windows.items(), strict=True)
        }
        few = replace(few, y=y, strata=np.where(known, y, -1), known=known, windows=windows)
        said = teach(few, config)[few.everything]
        with monkeypatch.context() as without:
            without.setattr("train.teacher.INTERCEPT", 0.0)
            plain = teach(few, config)[few.everything]
        gain.append(right(few, said, ~known) - right(few, plain, ~known))
    assert np.mean(gain) > 0.1


@pytest.mark.parametrize("n", [4, 40, 400])
def test_an_even_draw_of_uneven_classes_is_told_from_a_random_one(n: int) -> None:
    rng = np.random.default_rng(0)
    rare = np.arange(1000) >= 900
    x = rng.normal(size=(1000, 20)) + 2 * rare[:, None]
    x -= x.mean(0)

    def random(first: np.ndarray) -> bool:
        order = np.r_[first, np.setdiff1d(np.arange(1000), first)]
        return drawn_at_random(x[order] @ x[order].T, n)

    fair = [random(rng.choice(1000, n, replace=False)) for _ in range(50)]
    assert np.mean(fair) > 0.8
    half = min(n // 2, 100)
    for _ in range(10):
        common, odd = rng.choice(900, n - half, replace=False), rng.choice(100, half, replace=False)
        assert not random(np.r_[common, 900 + odd])


def test_the_fewest_labels_ask_for_the_most_smoothness(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = load("synthetic:windows=400,modalities=2,groups=8,classes=3")
    plans = [make_plan(dataset, replace(CONFIG, labels=1e-4, seed=seed)) for seed in range(4)]

    def mean_right() -> float:
        said = [teach(few, CONFIG)[few.everything] for few in plans]
        return float(np.mean([right(f, s, ~f.known) for f, s in zip(plans, said, strict=True)]))

    smooth = mean_right()
    monkeypatch.setattr("train.teacher.STRENGTHS", STRENGTHS[::-1])
    assert smooth > mean_right() + 0.01


def test_unlabelled_windows_help_to_name_each_other(
    plan: Plan, said: dict[int, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.teacher.STRENGTHS", (0.0,))
    alone = teach(plan, CONFIG)
    gain = [right(plan, said[fold], ~plan.known) - right(plan, alone[fold], ~plan.known)
            for fold in said]  # fmt: skip
    assert np.mean(gain) > 0.01


def test_how_smooth_is_chosen_by_leaving_one_out(
    plan: Plan, said: dict[int, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.teacher.STRENGTHS", STRENGTHS[::-1])
    for fold, answers in teach(plan, CONFIG).items():
        np.testing.assert_array_equal(answers, said[fold])


def of_values(plan: Plan) -> Plan:
    """Of every window the first sample alone: vectors, no series."""
    short = tuple(
        type(m)(**{f: getattr(m, f) for f in m.__struct_fields__} | {"window": 1, "hop": 1})
        for m in plan.modalities
    )
    windows = {name: w[:, :, :1].copy() for name, w in plan.windows.items()}
    return replace(plan, modalities=short, windows=windows)


def level_with(plan: Plan, told: np.ndarray) -> Plan:
    """The first sensor lies where ``told`` [N] says, and nothing else about any sensor tells."""
    rng = np.random.default_rng(0)
    shuffled = {name: w[rng.permutation(len(w))] for name, w in plan.windows.items()}
    shuffled["s0"] = shuffled["s0"] + 0.6 * told[:, None, None].astype(np.float32)
    return replace(plan, windows=shuffled)


def test_a_class_that_shows_in_levels_alone_is_seen(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    telling = level_with(plan, plan.y)
    seen = right(plan, teach(telling, CONFIG)[2], ~plan.known)
    monkeypatch.setattr("train.teacher.LEVEL_WEIGHTS", (0.0,))
    assert seen > right(plan, teach(telling, CONFIG)[2], ~plan.known) + 0.1


def test_of_flat_windows_levels_are_seen_from_one_label_of_each_class(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = replace(CONFIG, labels=1e-4, seed=1)
    few = make_plan(load("synthetic:windows=400,modalities=2,groups=8,classes=3"), config)
    rng = np.random.default_rng(0)
    n, _, t = few.windows["s0"].shape

    def lies_higher(where: np.ndarray) -> np.ndarray:
        pitch = rng.choice([0.2, 0.4, 0.8, 1.6], n)  # moves a little, in ways that tell nothing
        level = where + rng.normal(0, 0.1, n)
        ripple = 0.15 * np.sin(pitch[:, None] * np.arange(t))
        return np.repeat((level[:, None] + ripple)[:, None], 2, 1).astype(np.float32)

    flat = replace(few, windows={"s0": lies_higher(few.y == 1), "s1": lies_higher(few.y == 2)})
    seen = right(few, teach(flat, config)[few.everything], ~few.known)
    assert seen > 0.95
    monkeypatch.setattr("train.teacher.VIEWS", VIEWS[1:])
    assert seen > right(few, teach(flat, config)[few.everything], ~few.known) + 0.1


def test_small_details_beside_large_swings_are_seen(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    n, _, t = plan.windows["s0"].shape
    swings = 3 * rng.normal(size=(n, 1, t)) * (rng.random((n, 1, t)) < 0.1)
    details = rng.normal(size=(n, 1, t)) * 0.02 * 2.5 ** plan.y[:, None, None]
    telling = level_with(plan, 0 * plan.y)
    telling.windows["s0"] = (swings + details).astype(np.float32)
    seen = right(plan, teach(telling, CONFIG)[2], ~plan.known)
    monkeypatch.setattr("train.kernel.SOFTNESS", 0.25)
    assert seen > right(plan, teach(telling, CONFIG)[2], ~plan.known) + 0.1


def test_levels_that_tell_nothing_count_for_nothing(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    windows = {
        name: w + 10 * rng.normal(size=(len(w), 1, 1)).astype(np.float32)
        for name, w in plan.windows.items()
    }
    drifting = replace(plan, windows=windows)
    with_levels = teach(drifting, CONFIG)
    monkeypatch.setattr("train.teacher.VIEWS", VIEWS[1:])
    monkeypatch.setattr("train.teacher.LEVEL_WEIGHTS", (0.0,))
    for fold, answers in teach(drifting, CONFIG).items():
        np.testing.assert_array_equal(answers, with_levels[fold])


def test_what_lies_between_two_sensors_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    xor = "synthetic:windows=600,modalities=2,groups=8,classes=2,redundant=0,unique=0,synergy=1"
    config = replace(CONFIG, labels=0.3)
    plan = make_plan(load(xor), config)
    said = teach(plan, config)[2]
    assert right(plan, said, ~plan.known) > 0.95
    assert right(plan, said, plan.known) > 0.95  # of its own label it is not told
    monkeypatch.setattr("train.teacher.PAIR_WEIGHTS", (0.0,))
    assert right(plan, teach(plan, config)[2], ~plan.known) < 0.7


def test_what_lies_between_sensors_is_seen_beside_what_each_shows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mixed = "windows=600,modalities=2,groups=8,classes=2,redundant=0.5,unique=0.3,synergy=0.5"
    config = replace(CONFIG, labels=0.3, seed=1)
    plan = make_plan(load(f"synthetic:{mixed}"), config)
    seen = right(plan, teach(plan, config)[2], ~plan.known)
    monkeypatch.setattr("train.teacher.PAIR_WEIGHTS", (0.0,))
    assert seen > right(plan, teach(plan, config)[2], ~plan.known) + 0.02


def test_to_look_between_sensors_where_nothing_lies_costs_next_to_nothing(
    plan: Plan, said: dict[int, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.teacher.PAIR_WEIGHTS", (0.0,))
    for fold, answers in teach(plan, CONFIG).items():
        alone = right(plan, answers, ~plan.known)
        assert right(plan, said[fold], ~plan.known) > alone - 0.02


def test_products_of_pairs_are_those_of_every_two_sensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.kernel._fourier", lambda spec, some, rng: partial(_values, spec))
    three = make_plan(load("synthetic:windows=80,groups=8,classes=2"), replace(CONFIG, labels=1.0))
    three = of_values(three)
    rows = np.arange(20)
    values = [
        (w[rows, :, 0] - m.stats.mean) / m.stats.std
        for m, w in zip(three.modalities, three.windows.values(), strict=True)
    ]
    a, b, c = (x @ x.T / x.shape[1] / 3 for x in values)
    natural, pairs, shapes, levels = Kernel(three, rows, np.random.default_rng(0))(rows)
    np.testing.assert_allclose(natural, a + b + c, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(pairs, 3 * (a * b + a * c + b * c), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(shapes, natural)
    np.testing.assert_array_equal(levels, natural)


def test_of_a_vector_it_sees_what_a_gaussian_kernel_does(plan: Plan) -> None:
    m, w, rows = plan.modalities[0], plan.windows["s0"], np.arange(100)
    one = replace(plan, modalities=(m,), windows={"s0": w}, present=plan.present[:, :1])
    _, _, shapes, levels = Kernel(of_values(one), rows, np.random.default_rng(0)).among()
    assert m.stats is not None
    x = (w[rows, :, 0] - m.stats.mean) / m.stats.std
    np.testing.assert_allclose(levels, x @ x.T / x.shape[1], rtol=1e-4, atol=1e-6)
    apart = pdist(x, "sqeuclidean")
    gaussian = np.exp(-squareform(apart) / np.median(apart))
    for k in (shapes, gaussian):  # which is 0 in the middle is for the drawn windows to say
        k -= k.mean(0) + k.mean(1)[:, None] - k.mean()
    np.testing.assert_allclose(shapes, gaussian, atol=0.15)


@pytest.mark.parametrize("of", [40, 2])
def test_a_vector_that_hardly_moves_is_looked_at_too(plan: Plan, of: int) -> None:
    windows = {name: np.zeros_like(w) for name, w in plan.windows.items()}
    windows["s0"][::of] = 1  # a switch, seldom or often on
    switches = of_values(replace(plan, windows=windows))
    assert np.isfinite(teach(switches, CONFIG)[2]).all()


def test_rings_in_a_vector_are_told_apart(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    n = len(plan.y)
    angle, radius = rng.uniform(0, 2 * np.pi, n), 1 + plan.y + rng.normal(0, 0.2, n)
    windows = {name: rng.normal(size=w.shape) for name, w in plan.windows.items()}
    windows["s0"][:, :2, 0] = np.stack([np.cos(angle), np.sin(angle)], 1) * radius[:, None]
    rings = of_values(replace(plan, windows=windows))
    seen = right(rings, teach(rings, CONFIG)[2], ~plan.known)
    monkeypatch.setattr("train.kernel._fourier", lambda spec, some, rng: partial(_values, spec))
    assert seen > right(rings, teach(rings, CONFIG)[2], ~plan.known) + 0.2


def test_to_a_sensor_of_flat_windows_its_levels_are_natural(plan: Plan) -> None:
    s0 = plan.windows["s0"]
    steps = 0.1 * s0 + 2 * np.random.default_rng(0).normal(size=(len(s0), 1, 1))
    for w, flat in ((s0, False), (steps.astype(np.float32), True)):
        one = replace(
            plan, modalities=plan.modalities[:1], windows={"s0": w}, present=plan.present[:, :1]
        )
        natural, _, shapes, levels = Kernel(one, np.arange(20), np.random.default_rng(0)).among()
        np.testing.assert_array_equal(natural, levels if flat else shapes)
        assert np.abs(shapes - levels).max() > 0.1


def test_windows_of_few_sensors_are_as_long_as_those_of_all(plan: Plan) -> None:
    present = plan.present.copy()
    present[::2, 1] = False
    rows = np.arange(100)
    kernel = Kernel(replace(plan, present=present), rows, np.random.default_rng(0))
    _, _, *kinds = kernel(rows)
    for products in kinds:
        lengths = products.diagonal()
        assert lengths[::2].mean() == pytest.approx(lengths[1::2].mean(), rel=0.2)


def test_an_absent_sensor_counts_for_nothing(plan: Plan) -> None:
    rng = np.random.default_rng(0)
    present = plan.present.copy()
    present[::3, 1] = False
    windows = {name: w.copy() for name, w in plan.windows.items()}
    windows["s1"][::3] = np.nan
    holes = replace(plan, windows=windows, present=present)
    one, both = (Kernel(p, np.arange(20), np.random.default_rng(0)) for p in (holes, plan))
    rows = rng.permutation(len(plan.y))[:50]
    assert np.isfinite(one(rows)).all()
    whole = rows[present[rows].all(1)]
    seen, with_all = one(whole)[0], both(whole)[0]
    assert np.abs(seen[:, 1:3] - with_all[:, 1:3]).max() < 0.2  # drawn from other windows
    assert right(plan, teach(holes, CONFIG)[2], ~plan.known) > 0.6


@pytest.mark.parametrize("intercept", [0.0, 0.1])
@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_the_formula_is_sklearns_and_its_left_out_answers_are_refits(
    task: str, intercept: float
) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 6))
    y = x @ rng.normal(size=(6, 3)) + 0.3 * rng.normal(size=(40, 3))
    truth = {"classification": y.argmax(1), "multilabel": (y > 0).astype(int), "regression": y}[
        task
    ]
    targets = {
        "classification": 2 * np.eye(3)[y.argmax(1)] - 1,
        "multilabel": 2.0 * (y > 0) - 1,
        "regression": y,
    }[task]
    mine = np.arange(40) < 30
    kernel = x @ x.T
    fitted = ridge(kernel, truth, mine, 3, task, intercept)  # type: ignore[arg-type]
    assert not fitted.weights[~mine].any()
    x = np.c_[x, np.full(40, np.sqrt(intercept * kernel.diagonal().mean()))]

    middle = targets[mine].mean(0)
    best = np.inf
    for penalty in PENALTIES * np.square(x[:30]).sum(1).mean():
        unseen = [
            KernelRidge(alpha=penalty)
            .fit(np.delete(x[:30], i, 0), np.delete(targets[:30], i, 0) - middle)
            .predict(x[i : i + 1])[0]
            + middle
            for i in range(30)
        ]
        cost = np.square(unseen - targets[:30]).mean()
        if cost < best:
            best, model = cost, KernelRidge(alpha=penalty).fit(x[:30], targets[:30] - middle)
            answers = fusion.LINKS[task](np.array(unseen) / fitted.temperature)  # type: ignore[index]
    np.testing.assert_allclose(
        kernel[30:] @ fitted.weights + fitted.middle, model.predict(x[30:]) + middle, atol=1e-8
    )
    np.testing.assert_allclose(fitted.unseen, answers, atol=1e-8)


def test_that_left_out_labels_tell_nothing_is_no_reason_to_name_one_class_always() -> None:
    x = np.random.default_rng(0).normal(size=(16, 30))
    y = np.repeat([0, 1, 2, 3], [7, 3, 3, 3])
    fitted = ridge(x @ x.T, y, np.ones(16, bool), 4, "classification", 0.0)
    said = fitted(x @ x.T).argmax(1)
    assert (said == y).mean() > 0.9


def test_values_and_vectors_have_a_teacher_too() -> None:
    source = "synthetic:windows=400,modalities=2,groups=8,classes=3"
    plan = make_plan(load(source), CONFIG)
    plan = of_values(plan)
    rng = np.random.default_rng(0)
    y = np.stack([plan.windows["s0"][:, 0, 0], rng.normal(size=len(plan.fold))], 1).astype(
        np.float32
    )
    plan = replace(plan, y=y, task="regression", classes=2)
    values = teach(plan, CONFIG)[2][~plan.known]
    truth = y[~plan.known]
    assert np.corrcoef(values[:, 0], truth[:, 0])[0, 1] > 0.95
