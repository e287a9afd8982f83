"""Fitting what late fusion needs: temperatures, and the pool's weights per alive subset.

Everything here is fitted out of fold, from labels inside the budget. Needs scipy; the runtime only
applies the results and never imports this file.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax, logsumexp

T_PRIOR = 4.0
"""How many nats of evidence it takes to move a temperature one e-fold from 1."""
W_PRIOR = 8.0
"""Strength of the pull towards the best simple rule, in nats per squared unit of weight."""


def fit_temperature(logits: np.ndarray, y: np.ndarray) -> float:
    """Temperature T of Guo et al. (2017, eq. 9), shrunk towards 1 when labels are few.

    Args:
        logits: [n, K].
        y: true classes [n].
    """
    if not len(y):
        return 1.0
    rows = np.arange(len(y))

    def cost(log_t: float) -> float:
        nll = -log_softmax(logits / np.exp(log_t), axis=1)[rows, y].sum()
        return float(nll + T_PRIOR * log_t**2 / 2)

    return float(np.exp(minimize_scalar(cost, bounds=(-3, 3), method="bounded").x))


def pool_loss(w: np.ndarray, y_hat: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Summed log loss of the log-linear pool and its gradient with respect to ``w``.

    Args:
        w: [R] weights.
        y_hat: tempered logits [n, R, K] of R members (branches, and the fusion head).
        y: true classes [n].
    """
    rows = np.arange(len(y))
    z = np.einsum("r,nrk->nk", w, y_hat)
    log_z = logsumexp(z, axis=1, keepdims=True)
    residual = np.exp(z - log_z)
    residual[rows, y] -= 1
    return float((log_z[:, 0] - z[rows, y]).sum()), np.einsum("nk,nrk->r", residual, y_hat)


def simple_rules(members: int) -> np.ndarray:
    """The rules a fitted pool is shrunk towards: each member alone, and their averages.

    Args:
        members: R, the branches of the subset and, last, the fusion head.

    Returns:
        [R + 2, R] weights: each alone, the branches' mean, the mean of all.
    """
    branches = np.r_[np.full(members - 1, 1 / (members - 1)), 0.0]
    return np.vstack([np.eye(members), branches, np.full(members, 1 / members)])


def fit_pool(y_hat: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Non-negative weights of the log-linear pool, shrunk towards the best simple rule.

    Args:
        y_hat: tempered logits [n, R, K]; the last member is the fusion head.
        y: true classes [n].

    Returns:
        [R] weights.
    """
    start = min(simple_rules(y_hat.shape[1]), key=lambda w: pool_loss(w, y_hat, y)[0])

    def cost(w: np.ndarray) -> tuple[float, np.ndarray]:
        loss, gradient = pool_loss(w, y_hat, y)
        pull = w - start
        return loss + W_PRIOR * float(pull @ pull) / 2, gradient + W_PRIOR * pull

    found = minimize(cost, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(start))
    return found.x
