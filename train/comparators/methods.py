"""Every method by name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from train.comparators import neural, ridge, robult, supervised
from train.comparators.actionmae import ActionMae
from train.comparators.early import Early
from train.comparators.gmc import Gmc
from train.comparators.neural import Network
from train.comparators.shape import Fitted, Method, Tables, Windows, calibrated
from train.comparators.shaspec import ShaSpec
from train.config import TrainConfig
from train.plan import Plan


def _method(rule: str, network: type[Network]) -> Method:
    def fit(plan: Plan, config: TrainConfig, rates: Sequence[float]) -> Fitted:
        trained = neural.fit(plan, config, rates, network)

        def logits(windows: Windows, present: np.ndarray) -> Tables:
            return {rule: neural.table(trained.network, windows, present)}

        return calibrated({rule: trained.oof}, trained.y, logits, trained.chosen)

    return fit


METHODS: dict[str, Method] = {
    "supervised": supervised.fit,
    "early": _method("early", Early),
    "gmc": _method("gmc", Gmc),
    "actionmae": _method("actionmae", ActionMae),
    "shaspec": _method("shaspec", ShaSpec),
    "minirocket": ridge.fit,
    "robult": robult.fit,
}
"""Name → method. "supervised" answers by "unimodal" and "late", "robult" by three rules."""
