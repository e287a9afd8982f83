"""What may be learned from, and the batches drawn from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robult_edge.data.mapped import Windows
from robult_edge.modality import ModalitySpec
from robult_edge.nn.robult import Encoders
from robult_edge.task import Scale, Task
from train.augment import Noise, augment
from train.config import TrainConfig

FEWEST = 10
"""Steps of an epoch, however few the windows: a network needs some, or a short training ends while
it still warms up."""
FITTED_TO = 500
"""Windows that fixed features are drawn from and measured on."""


@dataclass(frozen=True)
class Plan:
    """What may be learned from: the training groups' windows and the labels inside the budget.

    Attributes:
        task: what is asked.
        classes: K: of classes, labels or targets.
        scales: of regression, from the labels inside the budget.
        modalities: with statistics.
        windows: per modality [N, *window_shape], raw units; in memory or on disk.
        present: [N, M] bool, after any simulated missing.
        y: truth [N] or [N, K], values standardised; outside ``known`` it is held back and only
            ever logged.
        known: [N] bool, labels inside the budget.
        strata: [N] int, what labels are drawn evenly by, see ``robult_edge.task.strata``; −1
            outside ``known``.
        groups: [N] str.
        fold: [N] int.
        index: [N] row in the data set.
        invariances: per modality.
    """

    task: Task
    classes: int
    scales: tuple[Scale, ...]
    modalities: tuple[ModalitySpec, ...]
    windows: dict[str, Windows]
    present: np.ndarray
    y: np.ndarray
    known: np.ndarray
    strata: np.ndarray
    groups: np.ndarray
    fold: np.ndarray
    index: np.ndarray
    invariances: dict[str, tuple[str, ...]]

    @property
    def judged(self) -> np.ndarray:
        """Labels that a model which did not see their fold can be judged by, [N] bool.

        With very few labels all of a class may lie in one fold. Whoever is trained on the others
        has never heard of it, is wrong on it for sure, and says nothing of a model that has.
        """
        judged = self.known.copy()
        for fold in np.unique(self.fold[self.known]):
            here = self.known & (self.fold == fold)
            others = self.known & ~here
            judged[here] = others.any()
            if self.task == "classification":
                judged[here] = np.isin(self.y[here], self.y[others])
        return judged

    @property
    def folds(self) -> list[int]:
        """Those that hold something to judge by: a model is trained without each of them."""
        return sorted({*self.fold[self.judged].tolist()})

    @property
    def everything(self) -> int:
        """No fold: the model that leaves out this one is trained on all groups."""
        return int(self.fold.max()) + 1


def fit_encoders(encoders: Encoders, plan: Plan, config: TrainConfig) -> None:
    """Let encoders learn the usual course of the plan's windows, and draw fixed features."""
    rng = np.random.default_rng([config.seed, 4])
    some = {}
    for m, there in zip(plan.modalities, plan.present.T, strict=True):
        rows = rng.permutation(np.flatnonzero(there))[:FITTED_TO]
        some[m.name] = plan.windows[m.name][np.sort(rows)]
    in_phase = [
        m.name
        for m in plan.modalities
        if m.size is None and not (config.augment and "shift" in plan.invariances[m.name])
    ]
    encoders.fit(some, rng, in_phase)


def augmented(
    encoders: Encoders,
    x: dict[str, Tensor],
    plan: Plan,
    config: TrainConfig,
    noise: Noise,
) -> dict[str, Tensor]:
    """Windows per modality, changed as far as each modality declares."""
    return {
        m.name: augment(
            x[m.name],
            f[0].std,  # type: ignore[index]
            plan.invariances[m.name] if config.augment else (),
            noise,
        )
        for m, f in zip(plan.modalities, encoders, strict=True)
    }


def random_subset(present: Tensor, generator: torch.Generator) -> Tensor:
    """Of the modalities present [B, M] some, at least one, any number as likely as any other."""
    keep = torch.rand(present.shape, generator=generator, device=present.device)
    chance = torch.rand((len(present), 1), generator=generator, device=present.device)
    favourite = keep.masked_fill(~present, -1).argmax(1, keepdim=True)
    return present & ((keep < chance).scatter(1, favourite, True))


def steps(config: TrainConfig, mine: np.ndarray) -> int:
    """Of an epoch: ``config.steps``, or fewer where every window is seen four times in fewer."""
    enough = -(-4 * int(mine.sum()) // config.batch_unlabelled)
    return min(config.steps, max(FEWEST, enough))


def batches(
    plan: Plan, config: TrainConfig, mine: np.ndarray, rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """(rows, labelled) of an epoch's steps: labelled rows stratum by stratum, then others."""
    count = steps(config, mine)
    known = np.flatnonzero(mine & plan.known)
    others = np.flatnonzero(mine & ~plan.known)
    strata = [known[plan.strata[known] == k] for k in np.unique(plan.strata[known])]
    pool = others if len(others) else known
    rounds = -(-count * config.batch_unlabelled // len(pool))
    stream = np.concatenate([rng.permutation(pool) for _ in range(rounds)])
    for step in range(count):
        drawn = rng.integers(len(strata), size=config.batch_labelled)
        first = [rng.choice(strata[k]) for k in drawn]
        second = stream[step * config.batch_unlabelled :][: config.batch_unlabelled]
        rows = np.concatenate([first, second])
        yield torch.from_numpy(rows), torch.from_numpy(plan.known[rows])
