"""Fitting what late fusion needs: temperatures, and the pool's weights per alive subset.

Everything here is fitted out of fold, from labels inside the budget. Needs scipy; the runtime only
applies the results and never imports this file.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, logsumexp

from robult_edge.task import Task

T_PRIOR = 4.0
"""How many nats of evidence it takes to move a temperature one e-fold from 1."""
W_PRIOR = 100.0
"""Strength of the pull towards the usual rule, in nats per squared unit of weight. Windows of a
group are alike: a hundred of them tell far less than a hundred independent ones would."""
TELLING = 50
"""Windows of a group that count: where groups hold more on average, the pull grows with them, so
that they move the pool no further than so many would."""


LogLoss = Callable[[np.ndarray, np.ndarray], tuple[float, np.ndarray]]
"""(outputs z [n, K], truth y) → summed log loss, nats, and its gradient with respect to z."""


def cross_entropy(z: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Of classes: y [n]."""
    rows = np.arange(len(y))
    log_z = logsumexp(z, axis=1, keepdims=True)
    residual = np.exp(z - log_z)
    residual[rows, y] -= 1
    return float((log_z[:, 0] - z[rows, y]).sum()), residual


def binary_cross_entropy(z: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Of labels, each on its own: y [n, K]."""
    return float((np.logaddexp(0, z) - y * z).sum()), expit(z) - y


def gaussian(z: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Of standardised values y [n, K] under normal noise, each target's as large as it turns out.

    Least squares, told in nats. A spread under 0.001 is not believed.
    """
    residual = z - y
    variance = np.square(residual).mean(0) + 1e-6
    return float(len(y) * np.log(variance).sum() / 2), residual / variance


LOG_LOSSES: dict[Task, LogLoss] = {
    "classification": cross_entropy,
    "multilabel": binary_cross_entropy,
    "regression": gaussian,
}


def fit_temperature(
    logits: np.ndarray,
    y: np.ndarray,
    log_loss: LogLoss = cross_entropy,
    worth: int | None = None,
) -> float:
    """Temperature T of Guo et al. (2017, eq. 9), shrunk towards 1 when labels are few.

    Args:
        logits: [n, K].
        y: truth [n] or [n, K].
        log_loss: of the task. Values have no temperature: theirs is 1.
        worth: how many labels all of them count as; n by default.
    """
    if not len(y) or log_loss is gaussian:
        return 1.0
    each = 1.0 if worth is None else worth / len(y)

    def cost(log_t: float) -> float:
        return each * log_loss(logits / np.exp(log_t), y)[0] + T_PRIOR * log_t**2 / 2

    return float(np.exp(minimize_scalar(cost, bounds=(-3, 3), method="bounded").x))


def pool_loss(
    w: np.ndarray, y_hat: np.ndarray, y: np.ndarray, log_loss: LogLoss = cross_entropy
) -> tuple[float, np.ndarray]:
    """Summed log loss of the pool and its gradient with respect to ``w``.

    Args:
        w: [R] weights.
        y_hat: tempered outputs [n, R, K] of R members (branches, and the fusion head).
        y: truth [n] or [n, K].
        log_loss: of the task.
    """
    loss, residual = log_loss(np.einsum("r,nrk->nk", w, y_hat), y)
    return loss, np.einsum("nk,nrk->r", residual, y_hat)


def usual_rule(members: int) -> np.ndarray:
    """Weights [R] that a pool begins with: one branch answers alone, for several the head does.

    Args:
        members: R, the branches of the subset and, last, the fusion head.
    """
    return np.eye(members)[0 if members == 2 else -1]


def fit_pool(
    y_hat: np.ndarray, y: np.ndarray, groups: np.ndarray, log_loss: LogLoss = cross_entropy
) -> np.ndarray:
    """Non-negative weights of the pool, shrunk towards the usual rule.

    Args:
        y_hat: tempered outputs [n, R, K]; the last member is the fusion head.
        y: truth [n] or [n, K]; where it is empty the usual rule stays.
        groups: of each window [n].
        log_loss: of the task.

    Returns:
        [R] weights.
    """
    start = usual_rule(y_hat.shape[1])
    if not len(y):
        return start
    prior = W_PRIOR * max(1.0, len(y) / len(np.unique(groups)) / TELLING)

    def cost(w: np.ndarray) -> tuple[float, np.ndarray]:
        loss, gradient = pool_loss(w, y_hat, y, log_loss)
        away = w - start
        return loss + prior * float(away @ away) / 2, gradient + prior * away

    found = minimize(cost, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(start))
    return found.x
