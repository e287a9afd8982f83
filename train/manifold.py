"""Manifold regularisation: windows alike are named alike, whoever of them has a label.

A ridge in a kernel's space is smooth as that kernel has it, wherever windows really lie. Told where
unlabelled windows lie, it can be made smooth along them: neighbours' answers may differ only at a
price. That is again a ridge, in a kernel deformed by the graph of neighbours.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

NEIGHBOURS = 5


def laplacian(products: np.ndarray) -> sparse.csr_matrix:
    """L = I − D^−½ W D^−½ of the graph that joins each window to its nearest by cosine: [a, a].

    Args:
        products: inner products among the windows [a, a]. W holds the cosines, none below 0.
    """
    a = len(products)
    length = np.sqrt(products.diagonal().clip(1e-12))
    cosine = products / length / length[:, None]
    np.fill_diagonal(cosine, -np.inf)
    nearest = min(NEIGHBOURS, a - 1)
    near = np.argpartition(-cosine, nearest, axis=1)[:, :nearest]
    ends = np.repeat(np.arange(a), near.shape[1]), near.ravel()
    w = sparse.csr_matrix((cosine[ends].clip(min=0), ends), (a, a))
    return sparse.csr_matrix(csgraph.laplacian(w.maximum(w.T), normed=True))


def deformation(
    products: np.ndarray, graph: sparse.csr_matrix, known: np.ndarray, strength: float
) -> np.ndarray:
    """Columns of G = I − (I + M K)⁻¹ M K, with K̃(x, ·) = K(x, ·) G the deformed kernel.

    A ridge in K̃ (Sindhwani, Niyogi & Belkin 2005) is one in K with a further penalty, fᵀ M f: it
    is Laplacian regularised least squares (Belkin, Niyogi & Sindhwani 2006).

    Args:
        products: K among the windows of the graph [a, a].
        graph: L [a, a].
        known: rows of those that have a label [n].
        strength: of M, in L's that weigh as much as the kernel's own norm.

    Returns:
        [a, n].
    """
    m_k = strength / products.diagonal().mean() * (graph @ products)
    eye = np.eye(len(products))
    return eye[:, known] - np.linalg.solve(eye + m_k, m_k[:, known])
