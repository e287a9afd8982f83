"""Each sensor's own network, supervised: alone ("unimodal"), or averaged ("late")."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from robult_edge import subsets
from robult_edge.nn import losses
from robult_edge.nn.robult import Encoders, mlp
from train.comparators import neural
from train.comparators.shape import Fitted, Tables, Windows, calibrated
from train.config import TrainConfig
from train.plan import Plan


class Supervised(neural.Network):
    """M networks that share nothing: encoder, one hidden layer, classifier."""

    def __init__(self, plan: Plan, config: TrainConfig) -> None:
        super().__init__()
        d = config.width
        self.f = Encoders(plan.modalities, d, config.encoders)
        self.c = nn.ModuleList(
            nn.Sequential(mlp(d, d, config.dropout), nn.Linear(d, plan.classes)) for _ in self.f
        )

    def encode(self, x: dict[str, Tensor], present: Tensor) -> Tensor:
        """Logits of each sensor [B, M, K]."""
        h = self.f(x, present)
        return torch.stack([c(h[:, i]) for i, c in enumerate(self.c)], 1)

    def decide(self, h: Tensor, alive: Tensor) -> Tensor:
        """log mean_i p_i over the alive: [B, M, K], [B, M] → [B, K]."""
        log_p = h.log_softmax(2).masked_fill(~alive[:, :, None], -torch.inf)
        return log_p.logsumexp(1) - alive.sum(1, keepdim=True).clamp(min=1).log()

    def loss(
        self,
        x: dict[str, Tensor],
        present: Tensor,
        y: Tensor,
        labelled: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """Cross entropy of every sensor that is present."""
        logits = self.encode(x, present)
        return torch.stack(
            [losses.l_sup(logits[:, i], y, labelled & p) for i, p in enumerate(present.T)]
        ).mean()


def fit(plan: Plan, config: TrainConfig, rates: Sequence[float]) -> Fitted:
    """Rules "late" and "unimodal": on a subset, the member most often right out of fold."""
    trained = neural.fit(plan, config, rates, Supervised)
    m = len(plan.modalities)
    alone = [trained.oof[:, (1 << i) - 1] for i in range(m)]
    right = [
        float((z.argmax(1) == trained.y)[there].mean()) if (there := seen(z)).any() else 0.0
        for z in alone
    ]
    favourite = np.array(
        [
            (1 << max(subsets.members(mask), key=lambda i: right[i])) - 1
            for mask in subsets.all_subsets(m)
        ]
    )

    def rules(late: np.ndarray) -> Tables:
        gone = ~np.isfinite(late).all(2, keepdims=True)
        return {"late": late, "unimodal": np.where(gone, np.nan, late[:, favourite])}

    def logits(windows: Windows, present: np.ndarray) -> Tables:
        return rules(neural.table(trained.network, windows, present))

    return calibrated(rules(trained.oof), trained.y, logits, trained.chosen)


def seen(logits: np.ndarray) -> np.ndarray:
    """Rows [n] of [n, K] that hold an answer."""
    return np.isfinite(logits).all(1)
