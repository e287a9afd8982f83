"""Early fusion with modality dropout (after Neverova et al. 2016, ModDrop)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robult_edge.nn import losses
from robult_edge.nn.robult import Encoders, mlp
from train.comparators.neural import Network
from train.config import TrainConfig
from train.plan import Plan, random_subset


class Early(Network):
    """All latents side by side into one classifier, zeros where a sensor is absent.

    Args:
        plan, config: shapes.
        drop: train on a random subset of what is present; without it, on all of it.
    """

    def __init__(self, plan: Plan, config: TrainConfig, drop: bool = True) -> None:
        super().__init__()
        d = config.width
        self.drop = drop
        self.f = Encoders(plan.modalities, d, config.encoders)
        self.c = nn.Sequential(
            mlp(len(self.f) * d, d, config.dropout), nn.ReLU(), nn.Linear(d, plan.classes)
        )

    def encode(self, x: dict[str, Tensor], present: Tensor) -> Tensor:
        """H [B, M, d]."""
        return self.f(x, present)

    def decide(self, h: Tensor, alive: Tensor) -> Tensor:
        """[B, M, d], [B, M] → [B, K]."""
        return self.c((h * alive[:, :, None]).flatten(1))

    def loss(
        self,
        x: dict[str, Tensor],
        present: Tensor,
        y: Tensor,
        labelled: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """Cross entropy over a random subset of what is present."""
        alive = random_subset(present, generator) if self.drop else present
        return losses.l_sup(self.decide(self.encode(x, present), alive), y, labelled)
