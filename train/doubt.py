"""Doubt of labels: where many are known, the wrong ones among them are what a network memorises."""

from __future__ import annotations

import numpy as np

from robult_edge.task import Task

LEAST = 1e-3
"""Share of labels that may be wrong at least, and of chance that any answer has."""


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
        [n, K] probabilities.
    """
    if task == "regression":
        return label
    said = said.clip(LEAST, 1 - LEAST)
    if task == "multilabel":
        epsilon = max(LEAST, float(((said > 0.5) != (label > 0.5)).mean()))
        yes = said * np.where(label > 0.5, 1 - epsilon, epsilon)
        no = (1 - said) * np.where(label > 0.5, epsilon, 1 - epsilon)
        return yes / (yes + no)
    epsilon = max(LEAST, float((said.argmax(1) != label.argmax(1)).mean()))
    joint = said * np.where(label > 0.5, 1 - epsilon, epsilon / (label.shape[1] - 1))
    return joint / joint.sum(1, keepdims=True)
