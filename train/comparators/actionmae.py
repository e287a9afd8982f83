"""ActionMAE (Woo et al. 2023, arXiv 2211.13916): imagine the absent sensors' latents, then answer.

The published evaluation puts the kept tokens next to one another and so forgets which sensor each
came from; here every token stays at its sensor's place, in training and after.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robult_edge.nn import losses
from robult_edge.nn.robult import Encoders
from train.comparators.neural import Network
from train.config import TrainConfig
from train.plan import Plan, random_subset


class ActionMae(Network):
    """Kept latents and a memory token through an encoder; a decoder fills in the absent ones."""

    def __init__(self, plan: Plan, config: TrainConfig) -> None:
        super().__init__()
        d, m = config.width, len(plan.modalities)
        self.f = Encoders(plan.modalities, d, config.encoders)
        self.place = nn.Parameter(0.02 * torch.randn(m, d))
        self.memory = nn.Parameter(0.02 * torch.randn(1, d))
        self.mask = nn.Parameter(0.02 * torch.randn(d))
        self.encoder = _block(d, config.dropout)
        self.decoder = _block(d, config.dropout)
        self.reconstruct = nn.Linear(d, d)
        self.c = nn.Linear(d, plan.classes)

    def encode(self, x: dict[str, Tensor], present: Tensor) -> Tensor:
        """H [B, M, d]."""
        return self.f(x, present)

    def imagine(self, h: Tensor, alive: Tensor) -> tuple[Tensor, Tensor]:
        """Ĥ of every sensor [B, M, d] and the memory [B, d] from the alive ones of h [B, M, d]."""
        there = alive[:, :, None]
        memory = self.memory.expand(len(h), 1, -1)
        gone = torch.cat([~alive, torch.zeros_like(alive[:, :1])], 1)
        tokens = torch.cat([torch.where(there, h, 0.0) + self.place, memory], 1)
        kept = self.encoder(tokens, src_key_padding_mask=gone)
        filled = torch.where(there, kept[:, :-1], self.mask) + self.place
        seen = self.decoder(torch.cat([filled, kept[:, -1:]], 1))
        return self.reconstruct(seen[:, :-1]), seen[:, -1]

    def decide(self, h: Tensor, alive: Tensor) -> Tensor:
        """[B, M, d], [B, M] → [B, K]."""
        return self._answer(h, alive, *self.imagine(h, alive))

    def loss(
        self,
        x: dict[str, Tensor],
        present: Tensor,
        y: Tensor,
        labelled: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """Cross entropy from a random subset, and ‖H − Ĥ‖² of the sensors it lacks."""
        h = self.encode(x, present)
        alive = random_subset(present, generator)
        h_hat, memory = self.imagine(h, alive)
        loss = losses.l_sup(self._answer(h, alive, h_hat, memory), y, labelled)
        lacking = present & ~alive
        if lacking.any():
            loss = loss + (h_hat[lacking] - h.detach()[lacking]).square().mean()
        return loss

    def _answer(self, h: Tensor, alive: Tensor, h_hat: Tensor, memory: Tensor) -> Tensor:
        whole = torch.where(alive[:, :, None], h, h_hat)
        return self.c(torch.cat([whole, memory[:, None]], 1).mean(1))


def _block(d: int, dropout: float) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(d, 4, 2 * d, dropout, batch_first=True, norm_first=True)
