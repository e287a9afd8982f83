"""Late fusion: from the branches' outputs to one answer. Pure functions on arrays.

Symbols as in Robult (arXiv 2509.03477): ŷ_i the outputs of branch i, A the alive subset, ŷ_A the
fusion head's over A. T are temperatures (1 for values), w non-negative weights.

Tasks differ in how an output becomes an answer, the link: softmax for classes, sigmoid for labels,
and nothing for values. The pool weighs outputs and links them; the mean links them and weighs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from robult_edge.task import Task

Link = Callable[[np.ndarray], np.ndarray]
Rule = Literal["pool", "mean"]


def softmax(z: np.ndarray) -> np.ndarray:
    """Probabilities of logits ``z`` [..., K] along the last axis."""
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def sigmoid(z: np.ndarray) -> np.ndarray:
    """Probability of each label for its logit, any shape; never overflows."""
    return (1 + np.tanh(z / 2)) / 2


def identity(z: np.ndarray) -> np.ndarray:
    """Values are answers as they are."""
    return z


LINKS: dict[Task, Link] = {
    "classification": softmax,
    "multilabel": sigmoid,
    "regression": identity,
}


def mean(y: np.ndarray, w: np.ndarray, link: Link = softmax) -> np.ndarray:
    """The paper's rule: p = Σ_i w_i link(ŷ_i / T_i).

    Args:
        y: tempered outputs ŷ_i / T_i, [..., M, K].
        w: [M], 1/|A| for alive branches and 0 for the others.
        link: of the task.

    Returns:
        [..., K].
    """
    return w @ link(y)


def pool(y: np.ndarray, w: np.ndarray, link: Link = softmax) -> np.ndarray:
    """The pool, log-linear for classes and labels: p = link(Σ_{i∈A} w_i ŷ_i/T_i + w_0 ŷ_A/T_0).

    Args:
        y: tempered outputs, [..., M + 1, K]; the last row is the fusion head's ŷ_A / T_0.
        w: [M + 1] non-negative, 0 for branches outside A; the last is w_0.
        link: of the task.

    Returns:
        [..., K].
    """
    return link(w @ y)


def fuse(rule: Rule, y: np.ndarray, w: np.ndarray, link: Link = softmax) -> np.ndarray:
    """Late fusion by ``rule``: what export measures and the runtime answers, in one place.

    Args:
        rule: ``pool`` or ``mean``.
        y: tempered outputs [..., M + 1, K]; the last row is the fusion head's.
        w: [M + 1] weights; ``mean`` ignores the last.
        link: of the task.

    Returns:
        [..., K].
    """
    return pool(y, w, link) if rule == "pool" else mean(y[..., :-1, :], w[:-1], link)


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


def label_conflict(p: np.ndarray) -> np.ndarray:
    """The same over labels: each label's divergence of present and absent, summed.

    Args:
        p: [..., B, K], each alive branch's probabilities.
    """
    return conflict(np.stack([p, 1 - p], -1).swapaxes(-3, -2)).sum(-1)


def value_conflict(v: np.ndarray) -> np.ndarray:
    """How far the branches' standardised values [..., B, K] spread, root mean square of targets."""
    return np.sqrt(v.var(-2).mean(-1))


CONFLICTS: dict[Task, Callable[[np.ndarray], np.ndarray]] = {
    "classification": conflict,
    "multilabel": label_conflict,
    "regression": value_conflict,
}
"""Of the branches' answers [..., B, K] → [...]."""
