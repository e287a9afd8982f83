"""GMC, geometric multimodal contrastive learning (Poklukar et al. 2022, arXiv 2202.03390)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robult_edge.nn import losses
from robult_edge.nn.robult import Encoders, mlp
from train.comparators.neural import Network
from train.config import TrainConfig
from train.plan import Plan

TAU = 0.3
"""Temperature of the authors' supervised experiments."""


class Gmc(Network):
    """A representation of each sensor, and one of all by encoders of its own, drawn together.

    All latents pass one shared projection g. With every sensor alive the joint representation
    answers, else the mean of the alive sensors' own.
    """

    def __init__(self, plan: Plan, config: TrainConfig) -> None:
        super().__init__()
        d, m = config.width, len(plan.modalities)
        self.f = Encoders(plan.modalities, d, config.encoders)
        self.joint = Encoders(plan.modalities, d, config.encoders)
        self.merge = nn.Linear(m * d, d)
        self.g = mlp(d, d, config.dropout)
        self.c = nn.Sequential(mlp(d, d, config.dropout), nn.Linear(d, plan.classes))

    def encode(self, x: dict[str, Tensor], present: Tensor) -> Tensor:
        """z_i and, last, z_1:M over what is present, of length 1: [B, M + 1, d]."""
        joint = self.merge(self.joint(x, present).flatten(1)).relu()
        h = torch.cat([self.f(x, present), joint[:, None]], 1)
        return F.normalize(self.g(h), dim=2)

    def decide(self, h: Tensor, alive: Tensor) -> Tensor:
        """[B, M + 1, d], [B, M] → [B, K]."""
        mean = (h[:, :-1] * alive[:, :, None]).sum(1) / alive.sum(1, keepdim=True).clamp(min=1)
        return self.c(torch.where(alive.all(1, keepdim=True), h[:, -1], mean))

    def loss(
        self,
        x: dict[str, Tensor],
        present: Tensor,
        y: Tensor,
        labelled: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """L_GMC (eq. 3) of all windows, and cross entropy of the joint answer where labelled."""
        z = self.encode(x, present)
        drawn = [contrast(z[p, i], z[p, -1]) for i, p in enumerate(present.T) if p.sum() > 1]
        return losses.l_sup(self.c(z[:, -1]), y, labelled) + torch.stack(drawn).sum()


def contrast(z: Tensor, joint: Tensor) -> Tensor:
    """−log s(z_a, joint_a) / Σ s over all other pairs of the 2 B points: [B, d] twice, length 1."""
    both = torch.cat([joint, z])
    s = both @ both.T / TAU
    itself = torch.eye(len(both), dtype=torch.bool, device=z.device)
    positive = (joint * z).sum(1).repeat(2) / TAU
    return (s.masked_fill(itself, -torch.inf).logsumexp(1) - positive).mean()
