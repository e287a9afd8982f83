"""Late fusion: from the branches' logits to one distribution. Pure functions on arrays.

Symbols as in Robult (arXiv 2509.03477): ŷ_i the logits of branch i, A the alive subset, ŷ_A the
fusion head's logits over A. T are temperatures, w non-negative weights.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

Rule = Literal["pool", "mean"]


def softmax(z: np.ndarray) -> np.ndarray:
    """Probabilities of logits ``z`` [..., K] along the last axis."""
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def mean(y: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The paper's rule: p = Σ_i w_i softmax(ŷ_i / T_i).

    Args:
        y: tempered logits ŷ_i / T_i, [..., M, K].
        w: [M], 1/|A| for alive branches and 0 for the others.

    Returns:
        [..., K].
    """
    return w @ softmax(y)


def pool(y: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Log-linear pool: p ∝ exp(Σ_{i∈A} w_i ŷ_i/T_i + w_0 ŷ_A/T_0).

    Args:
        y: tempered logits, [..., M + 1, K]; the last row is the fusion head's ŷ_A / T_0.
        w: [M + 1] non-negative, 0 for branches outside A; the last is w_0.

    Returns:
        [..., K].
    """
    return softmax(w @ y)


def fuse(rule: Rule, y: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Late fusion by ``rule``: what export measures and the runtime answers, in one place.

    Args:
        rule: ``pool`` or ``mean``.
        y: tempered logits [..., M + 1, K]; the last row is the fusion head's.
        w: [M + 1] weights; ``mean`` ignores the last.

    Returns:
        [..., K].
    """
    return pool(y, w) if rule == "pool" else mean(y[..., :-1, :], w[:-1])


def conflict(p: np.ndarray) -> np.ndarray:
    """Generalised Jensen–Shannon divergence of the branches (Lin 1991, eq. 5.1), nats.

    Args:
        p: [..., B, K], one distribution per alive branch.

    Returns:
        [...], 0 where all agree, log B where they exclude one another.
    """
    p = np.maximum(p, 1e-12)
    branches = p.shape[-2]
    middle = p.sum(-2, keepdims=True) / branches
    return (p * np.log(p / middle)).sum((-2, -1)) / branches
