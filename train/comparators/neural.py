"""Training a comparator's network as Robult's is: cross-fit, search over rate and epochs."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from robult_edge import subsets
from robult_edge.nn.robult import Encoders
from train import crossfit, loop
from train.augment import Noise
from train.comparators.shape import Windows
from train.config import TrainConfig
from train.feed import feed
from train.plan import Plan, augmented, batches, fit_encoders, steps
from train.teacher import teach


class Network(nn.Module, ABC):
    """What a comparator defines."""

    f: Encoders

    @abstractmethod
    def encode(self, x: dict[str, Tensor], present: Tensor) -> Tensor:
        """Windows and present [B, M] → latents [B, R, d]: all that an answer needs."""

    @abstractmethod
    def decide(self, h: Tensor, alive: Tensor) -> Tensor:
        """Latents and alive [B, M] → logits [B, K]."""

    @abstractmethod
    def loss(
        self,
        x: dict[str, Tensor],
        present: Tensor,
        y: Tensor,
        labelled: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """Of a batch, all its terms."""


Build = Callable[[Plan, TrainConfig], Network]


@dataclass(frozen=True)
class Trained:
    """A comparator trained on all training groups, and what it said out of fold.

    Attributes:
        network: in evaluation mode.
        oof: [n, 2^M − 1, K] logits of the labelled windows.
        y: [n].
        chosen: learning rate and epochs.
    """

    network: Network
    oof: np.ndarray
    y: np.ndarray
    chosen: dict[str, float]


def fit(plan: Plan, config: TrainConfig, rates: Sequence[float], build: Build) -> Trained:
    """Choose learning rate and epochs by the out-of-fold error, then train on everything.

    With ``config.delta`` the network is given Robult's teacher too: what that names an unlabelled
    window counts as its label, in whatever loss the method has.
    """
    taught = teach(plan, config) if config.delta else {}
    rows = np.flatnonzero(plan.judged)
    y = plan.y[rows]
    fair = (1 / np.bincount(y, minlength=plan.classes).clip(1))[y]
    best: tuple[float, float, int, np.ndarray] | None = None
    for lr in rates:
        trial = replace(config, lr=lr)
        said = np.full(
            (config.epochs, len(rows), (1 << len(plan.modalities)) - 1, plan.classes),
            np.nan,
            np.float32,
        )
        costs = np.zeros(config.epochs)
        for fold in plan.folds:
            here = plan.fold[rows] == fold
            for epoch, network in enumerate(train(plan, trial, fold, build, taught.get(fold))):
                said[epoch, here] = table(network, *_of(plan, rows[here]))
                costs[epoch] += loop.oof_error(said[epoch, here], y[here], fair[here])
        epoch = crossfit.best_epoch(costs, plan, config)
        if best is None or costs[epoch] < best[0]:
            best = costs[epoch], lr, epoch, said[epoch]
    assert best is not None
    _, lr, epoch, oof = best
    chosen = replace(config, lr=lr, epochs=epoch + 1)
    *_, network = train(plan, chosen, plan.everything, build, taught.get(plan.everything))
    return Trained(network, oof, y, {"lr": lr, "epochs": epoch + 1})


def train(
    plan: Plan, config: TrainConfig, fold: int, build: Build, taught: np.ndarray | None = None
) -> Iterator[Network]:
    """Train on every fold but ``fold``; the network of averaged weights after every epoch.

    The next epoch goes on writing into what was yielded.
    """
    torch.manual_seed(loop.derived_seed(config.seed, fold, 0))
    network = build(plan, config)
    for encoders in (part for part in network.modules() if isinstance(part, Encoders)):
        fit_encoders(encoders, plan, config)
    averaged = copy.deepcopy(network).eval()
    ema = dict(averaged.state_dict())
    optimiser = loop.optimiser_of(network, config)
    present, y = torch.from_numpy(plan.present), plan.y
    if taught is not None:
        y = np.where(plan.known, plan.y, taught.argmax(1))
    mine = plan.fold != fold
    for epoch in range(config.epochs):
        seed = loop.derived_seed(config.seed, fold, epoch + 1)
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        rng = np.random.default_rng(seed)
        network.train()
        drawn = batches(plan, config, mine, rng)
        for step, batch in enumerate(feed(plan, drawn, slice(None), torch.device("cpu"))):
            rows = batch.rows
            x = augmented(
                network.f, batch.x, plan, config, Noise(generator, len(rows), slice(None))
            )
            labelled = batch.labelled if taught is None else torch.ones_like(batch.labelled)
            truth = torch.from_numpy(y[rows.numpy()])
            loss = network.loss(x, present[rows], truth, labelled, generator)
            loop.descend(loss, network, ema, optimiser, config, epoch * steps(config, mine) + step)
        yield averaged


@torch.no_grad()
def table(network: Network, windows: Windows, present: np.ndarray) -> np.ndarray:
    """Logits over every subset [n, 2^M − 1, K] float32, NaN where a modality of it is absent."""
    n, m = present.shape
    masks = subsets.as_bools(subsets.all_subsets(m), m)
    out: list[np.ndarray] = []
    for begin in range(0, n, 1024):
        part = slice(begin, begin + 1024)
        there = torch.from_numpy(present[part])
        h = network.encode({k: torch.from_numpy(w[part]) for k, w in windows.items()}, there)
        said = []
        for mask in torch.from_numpy(masks):
            logits = network.decide(h, there & mask)
            said.append(logits.masked_fill(~(there | ~mask).all(1)[:, None], torch.nan))
        out.append(torch.stack(said, 1).numpy())
    return np.concatenate(out)


def _of(plan: Plan, rows: np.ndarray) -> tuple[Windows, np.ndarray]:
    return {name: w[rows] for name, w in plan.windows.items()}, plan.present[rows]
