"""train.manifold: a ridge that is smooth along windows nobody labelled."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import make_moons
from sklearn.metrics.pairwise import rbf_kernel

from train.manifold import NEIGHBOURS, deformation, laplacian


def test_the_graph_joins_each_window_to_its_nearest() -> None:
    rng = np.random.default_rng(0)
    x = np.r_[rng.normal([5, 0, 0], 1, (20, 3)), rng.normal([0, 5, 0], 1, (20, 3))]
    graph = laplacian(x @ x.T).toarray()
    np.testing.assert_allclose(graph, graph.T)
    np.testing.assert_allclose(graph.diagonal(), 1)
    assert (np.count_nonzero(graph, 1) > NEIGHBOURS).all()
    assert not graph[:20, 20:].any()  # two crowds, two graphs
    values = np.linalg.eigvalsh(graph)
    assert values.min() > -1e-9
    assert (values < 1e-9).sum() == 2


def test_windows_alike_in_nothing_are_not_joined() -> None:
    graph = laplacian(np.eye(4)).toarray()
    np.testing.assert_array_equal(graph, np.zeros((4, 4)))


def test_a_ridge_in_the_deformed_kernel_pays_for_unevenness_along_the_graph() -> None:
    """It is the minimum of Σ (y − f)² + λ (‖w‖² + fᵀ M f), f = X w, found by calculus."""
    rng = np.random.default_rng(1)
    x, n, strength, penalty = rng.normal(size=(30, 8)), 10, 2.0, 0.3
    y, new = rng.normal(size=n), rng.normal(size=(5, 8))
    products = x @ x.T
    graph = laplacian(products)
    g = deformation(products, graph, np.arange(n), strength)
    c = np.linalg.solve(products[:n] @ g + penalty * np.eye(n), y)

    m = strength / products.diagonal().mean() * graph.toarray()
    quadratic = x[:n].T @ x[:n] + penalty * (np.eye(8) + x.T @ m @ x)
    w = np.linalg.solve(quadratic, x[:n].T @ y)
    np.testing.assert_allclose(new @ x.T @ g @ c, new @ w, atol=1e-9)


def test_two_labels_are_enough_where_the_shape_of_the_data_tells_the_rest() -> None:
    x, y = make_moons(200, noise=0.05, random_state=0)
    first = [int(np.flatnonzero(y == k)[0]) for k in (0, 1)]
    order = np.r_[first, np.setdiff1d(np.arange(200), first)]
    products, truth = rbf_kernel(x[order], gamma=20), 2 * y[order] - 1

    def right(strength: float) -> float:
        g = deformation(products, laplacian(products), np.arange(2), strength)
        c = np.linalg.solve(products[:2] @ g + 1e-3 * np.eye(2), truth[:2])
        return float((np.sign(products @ g @ c) == truth).mean())

    assert right(0.0) < 0.9
    assert right(3.0) > 0.97
