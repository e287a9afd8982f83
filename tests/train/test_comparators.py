"""The comparators: each works, and shows what its own paper says of it, before it is beaten."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from robult_edge.data import load
from robult_edge.nn.robult import Encoders
from train import crossfit
from train.comparators import neural
from train.comparators.actionmae import ActionMae
from train.comparators.early import Early
from train.comparators.gmc import Gmc
from train.comparators.methods import METHODS
from train.comparators.ridge import averaged
from train.comparators.shaspec import ShaSpec
from train.config import TrainConfig

torch.set_num_threads(1)  # the tensors are small: threads cost more than they bring
SOURCE = "synthetic:windows=800,modalities=2,groups=8,classes=2,redundant=0.8,unique=0.3"
CONFIG = TrainConfig(
    labels=0.5, epochs=5, folds=2, steps=16, batch_labelled=32, batch_unlabelled=32, lr=4e-3,
    warmup=10, ema=0.9, width=32, workers=1, device="cpu",
)  # fmt: skip


@pytest.fixture(scope="module")
def data():
    return load(SOURCE)


@pytest.fixture(scope="module")
def plan(data):
    return crossfit.make_plan(data, CONFIG)


@pytest.fixture(scope="module")
def unseen(data):
    """Windows, presence and classes of the held-out groups."""
    rows = np.flatnonzero(data.test)
    return {name: w[rows] for name, w in data.windows.items()}, data.present[rows], data.y[rows]


def trained(plan, build):
    """On all training groups, to the last epoch."""
    *_, network = neural.train(plan, CONFIG, CONFIG.folds, build)
    return network


@torch.no_grad()
def latents(network, windows, present):
    x = {name: torch.from_numpy(w) for name, w in windows.items()}
    return network.encode(x, torch.from_numpy(present))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_beats_chance_on_every_subset(plan, unseen, method):
    windows, present, y = unseen
    fitted = METHODS[method](plan, CONFIG, (4e-3,))
    answers = fitted.answer(windows, present)
    assert answers.keys() == fitted.thresholds.keys()
    for p in answers.values():
        assert p.shape == (len(y), 3, 2)
        np.testing.assert_allclose(p.sum(2), 1, atol=1e-5)
        assert ((p.argmax(2) == y[:, None]).mean(0) > 0.65).all()  # a coin says 0.5


@pytest.mark.parametrize("method", METHODS)
def test_an_absent_sensor_is_not_seen(plan, unseen, method):
    windows, present, _ = unseen
    few = {name: w[:20] for name, w in windows.items()}
    hole = present[:20].copy()
    hole[:, 1] = False
    fitted = METHODS[method](plan, _small(), (4e-3,))
    nonsense = few | {"s1": np.full_like(few["s1"], 1e6)}
    for rule, p in fitted.answer(few, hole).items():
        assert np.isfinite(p[:, 0]).all()
        assert np.isnan(p[:, 1:]).all()
        np.testing.assert_array_equal(p, fitted.answer(nonsense, hole)[rule])


@pytest.mark.parametrize("method", METHODS)
def test_holes_in_training_are_learned_from(data, unseen, method):
    config = dataclasses.replace(_small(), missing=0.6)
    fitted = METHODS[method](crossfit.make_plan(data, config), config, (4e-3,))
    assert all(np.isfinite(p).all() for p in fitted.answer(*unseen[:2]).values())


def _small():
    return dataclasses.replace(CONFIG, epochs=2, steps=3, width=16)


def test_gmc_draws_each_sensor_to_the_joint_representation(plan, unseen):
    z = latents(trained(plan, Gmc), *unseen[:2])
    for i in range(2):
        s = z[:, i] @ z[:, -1].T
        same = s.diagonal()[:, None]
        # Chance: half of the other windows are nearer.
        assert (s > same).float().mean() < 0.25


def test_actionmae_imagines_an_absent_sensor_better_than_its_mean(plan, unseen):
    network = trained(plan, ActionMae)
    h = latents(network, *unseen[:2])
    for absent in range(2):
        alive = torch.ones(len(h), 2, dtype=torch.bool)
        alive[:, absent] = False
        with torch.no_grad():
            h_hat, _ = network.imagine(h, alive)
        truth = h[:, absent]
        assert (h_hat[:, absent] - truth).square().mean() < 0.9 * truth.var(0).mean()


def test_actionmae_keeps_every_token_at_its_place(plan, unseen):
    network = trained(plan, ActionMae)
    h = latents(network, *unseen[:2])
    swapped = h.flip(1)
    both = torch.ones(len(h), 2, dtype=torch.bool)
    with torch.no_grad():
        assert not torch.allclose(network.decide(h, both), network.decide(swapped, both))


def test_shaspec_shares_what_sensors_agree_on(plan, unseen):
    network = trained(plan, ShaSpec)
    with torch.no_grad():
        s, r = network.split(latents(network, *unseen[:2]))
        told = network.domain(r).argmax(2)
    shared, specific = (F.cosine_similarity(v[:, 0], v[:, 1]).mean() for v in (s, r))
    assert shared > specific + 0.2
    assert (told == torch.arange(2)).float().mean() > 0.9


def test_early_fusion_without_modality_dropout_collapses_on_a_subset():
    data = load("synthetic:windows=800,modalities=4,groups=8,classes=4,redundant=0.95,unique=0")
    rows = np.flatnonzero(data.test)
    windows = {name: w[rows] for name, w in data.windows.items()}
    worst: dict[bool, list[float]] = {False: [], True: []}
    for seed in range(3):
        config = dataclasses.replace(CONFIG, labels=1.0, epochs=10, seed=seed)
        plan = crossfit.make_plan(data, config)
        for drop, low in worst.items():
            *_, network = neural.train(plan, config, 2, lambda p, c, drop=drop: Early(p, c, drop))
            said = neural.table(network, windows, data.present[rows]).argmax(2)
            right = (said == data.y[rows, None]).mean(0)
            assert right[-1] > 0.9  # with every sensor alive both are good
            low.append(right.min())
    assert np.mean(worst[False]) < 0.75
    assert min(worst[True]) > 0.85


def test_all_networks_stand_on_the_same_encoders(plan):
    for build in (Early, Gmc, ActionMae, ShaSpec):
        network = build(plan, CONFIG)
        assert isinstance(network.f, Encoders)
        assert [type(f[1]) for f in network.f] == [
            type(f[1]) for f in Encoders(plan.modalities, CONFIG.width, {})
        ]


def test_all_encoders_of_a_network_draw_their_fixed_features(plan):
    rocket = dict.fromkeys((m.name for m in plan.modalities), "rocket")
    config = dataclasses.replace(CONFIG, epochs=1, steps=1, encoders=rocket)
    network = next(neural.train(plan, config, plan.everything, Gmc))
    for encoders in (network.f, network.joint):
        for _, encoder, _ in encoders:
            assert encoder.fixed.mean.any()


def test_a_taught_comparator_learns_from_the_teacher_and_from_no_hidden_label(plan):
    config = dataclasses.replace(CONFIG, epochs=1, steps=2, delta=1.0)
    lies = dataclasses.replace(plan, y=np.where(plan.known, plan.y, 1 - plan.y))
    one, two = (neural.fit(p, config, (4e-3,), Early).oof for p in (plan, lies))
    np.testing.assert_array_equal(one, two)
    alone = neural.fit(plan, dataclasses.replace(config, delta=0.0), (4e-3,), Early).oof
    assert not np.array_equal(one, alone)


def test_what_every_sensor_rules_out_has_a_finite_logarithm():
    sure = np.array([[[0.0, 2000.0], [0.0, 2000.0]]])
    assert np.isfinite(averaged(sure)).all()
