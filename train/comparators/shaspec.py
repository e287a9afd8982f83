"""ShaSpec (Wang et al. 2023, arXiv 2307.14126): shared and specific features of every sensor.

The paper's shared encoder reads raw inputs, all images of one size. Sensors differ in shape, so
here it reads the latents of the encoders that all methods have.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robult_edge.nn import losses
from robult_edge.nn.robult import Encoders, mlp
from train.comparators.neural import Network
from train.config import TrainConfig
from train.plan import Plan, random_subset

ALPHA, BETA = 0.1, 0.02
"""Weights of shared alignment and of domain classification, as the authors set them."""


class ShaSpec(Network):
    """f_i = proj(r_i, s_i) + s_i; an absent sensor's f is the mean of the alive ones' s."""

    def __init__(self, plan: Plan, config: TrainConfig) -> None:
        super().__init__()
        d, m, dropout = config.width, len(plan.modalities), config.dropout
        self.f = Encoders(plan.modalities, d, config.encoders)
        self.shared = mlp(d, d, dropout)
        self.specific = nn.ModuleList(mlp(d, d, dropout) for _ in range(m))
        self.project = nn.Linear(2 * d, d)
        self.domain = nn.Linear(d, m)
        self.c = nn.Sequential(mlp(m * d, d, dropout), nn.ReLU(), nn.Linear(d, plan.classes))

    def encode(self, x: dict[str, Tensor], present: Tensor) -> Tensor:
        """H [B, M, d]."""
        return self.f(x, present)

    def split(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Shared s and specific r, each [B, M, d]."""
        return self.shared(h), torch.stack([g(h[:, i]) for i, g in enumerate(self.specific)], 1)

    def decide(self, h: Tensor, alive: Tensor) -> Tensor:
        """[B, M, d], [B, M] → [B, K]."""
        return self._answer(*self.split(h), alive)

    def loss(
        self,
        x: dict[str, Tensor],
        present: Tensor,
        y: Tensor,
        labelled: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """Cross entropy from a random subset; α · alignment of s; β · telling r's sensor."""
        s, r = self.split(self.encode(x, present))
        sup = losses.l_sup(self._answer(s, r, random_subset(present, generator)), y, labelled)
        both = present[:, :, None] & present[:, None] & ~torch.eye(present.shape[1]).bool()
        apart = (s[:, :, None] - s[:, None]).abs().mean(3)
        align = (apart * both).sum() / both.sum().clamp(min=1)
        which = torch.arange(present.shape[1]).expand_as(present)[present]
        return sup + ALPHA * align + BETA * F.cross_entropy(self.domain(r[present]), which)

    def _answer(self, s: Tensor, r: Tensor, alive: Tensor) -> Tensor:
        there = alive[:, :, None]
        mean = (s * there).sum(1) / alive.sum(1, keepdim=True).clamp(min=1)
        fused = self.project(torch.cat([r, s], 2)) + s
        return self.c(torch.where(there, fused, mean[:, None]).flatten(1))
