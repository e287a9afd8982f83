"""Doubt of labels: where many are known, the wrong ones among them are what a network memorises."""

from __future__ import annotations

import numpy as np

from robult_edge.task import Task

AT_ODDS = 0.1, 0.3
"""Shares of labels at odds between which they are doubted. Of fewer, the fault may as well be the
other side's; of more it is: a ridge that is wrong so often, on XOR say, has no word in it."""
SURE = 1 - 1e-3
"""No answer is surer than this."""


def doubted(said: np.ndarray, label: np.ndarray, task: Task) -> np.ndarray:
    """P(k | window, label) ∝ P(k | window) P(label | k): what to believe of labelled windows.

    A label is right but for a share ε, and then any other as likely. ε is how often ``said``, which
    does not know a window's label, is at odds with it: more cannot be wrong, unless ``said`` makes
    the same mistakes. Where it is as sure as labels are right, a label at odds with it counts half:
    ``said`` may be ignorant as well.

    Args:
        said: [n, K] probabilities of windows, by a model that did not learn from their own labels.
        label: [n, K], 1 for what it says and 0 elsewhere. Values are taken at their word.
        task: what is asked.

    Returns:
        [n, K] probabilities; ``label`` itself where ε is not within ``AT_ODDS``.
    """
    if task == "regression":
        return label
    one = task == "classification"
    at_odds = said.argmax(1) != label.argmax(1) if one else (said > 0.5) != (label > 0.5)
    epsilon = at_odds.mean()
    least, most = AT_ODDS
    if not least <= epsilon <= most:
        return label
    said = said.clip(1 - SURE, SURE)
    likely = np.where(label > 0.5, 1 - epsilon, epsilon / (label.shape[1] - 1 if one else 1))
    yes = said * likely
    return yes / (yes.sum(1, keepdims=True) if one else yes + (1 - said) * (1 - likely))
