"""train.rehearsal: with one label of each class, how sure a ridge is to be."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics.pairwise import rbf_kernel

from robult_edge import fusion
from train.manifold import deformation, laplacian
from train.rehearsal import rehearsed
from train.ridge import UNASKED, Ridge, ridge

K = 5


def ridge_of(kernel: np.ndarray, y: np.ndarray) -> Ridge:
    return ridge(kernel, y, y >= 0, K, "classification", 0.0)


def world(apart: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Kernel among windows of K classes, around means that lie ``apart``, and the classes."""
    rng = np.random.default_rng(seed)
    y = np.r_[np.arange(K), rng.integers(K, size=400)]
    x = apart * rng.normal(size=(K, 6))[y] + rng.normal(size=(len(y), 6))
    return rbf_kernel(x, gamma=0.05), y


def sure_and_right(apart: float, seed: int) -> tuple[float, float, float]:
    """With UNASKED, and after rehearsing, how sure on average; and how often right."""
    kernel, y = world(apart, seed)
    graph = laplacian(kernel)

    def bend(known: np.ndarray) -> np.ndarray:
        return deformation(kernel, graph, known, 3.0)

    smooth = kernel @ bend(np.arange(K))
    fitted = ridge_of(smooth[:K], y[:K])
    scores = fitted.scores(smooth)
    named = scores.argmax(1)
    found = rehearsed(kernel, bend, named, ridge_of, K, np.random.default_rng(seed))
    sure = [float(fusion.softmax(scores[K:] / t).max(1).mean()) for t in (UNASKED, found)]
    return sure[0], sure[1], float((named == y)[K:].mean())


@pytest.mark.parametrize("apart", [0.5, 3.0])
def test_it_is_nearer_to_how_often_it_is_right_than_unasked(apart: float) -> None:
    unasked, after, right = np.mean([sure_and_right(apart, seed) for seed in range(4)], 0)
    assert abs(after - right) < abs(unasked - right)


def test_the_better_windows_gather_the_surer_it_is() -> None:
    vague, clear = (
        np.mean([sure_and_right(apart, seed)[1] for seed in range(4)]) for apart in (0.5, 3.0)
    )
    assert clear > vague + 0.2


def test_few_labels_move_it_little_however_well_windows_gather() -> None:
    kernel, y = world(5.0, 0)
    graph = laplacian(kernel)
    one, many = (
        rehearsed(
            kernel,
            lambda known: deformation(kernel, graph, known, 3.0),
            y,
            ridge_of,
            labels,
            np.random.default_rng(0),
        )
        for labels in (1, 100)
    )
    assert many < one < UNASKED


def test_where_one_class_is_named_there_is_nothing_to_rehearse() -> None:
    def bend(known: np.ndarray) -> np.ndarray:
        raise AssertionError("nothing is fitted")

    named = np.zeros(9, int)
    assert rehearsed(np.eye(9), bend, named, ridge_of, 1, np.random.default_rng(0)) == UNASKED
