"""How sure a ridge may be where no label can be left out: it rehearses on what it said itself.

With one label of each class nothing shows how often a ridge is right. But were all that it says of
unlabelled windows true, ridges fitted to others of them, again one of each class, could be asked
about the rest: a parametric bootstrap (Efron & Tibshirani 1993, chapter 6). One that hardly agrees
with itself is not to be sure. One that does may yet be wrong, where windows gather otherwise than
by class, and so few labels do not tell: all that is asked counts as no more windows than have one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from robult_edge.calibration import fit_temperature
from train.ridge import UNASKED, Ridge

REHEARSALS = 6


def rehearsed(
    kernel: np.ndarray,
    deformation: Callable[[np.ndarray], np.ndarray],
    named: np.ndarray,
    fit: Callable[[np.ndarray, np.ndarray], Ridge],
    labels: int,
    rng: np.random.Generator,
) -> float:
    """Temperature of a ridge's scores.

    Args:
        kernel: among all windows [a, a], not deformed.
        deformation: its columns [a, n] where windows [n] have a label, see `train.manifold`.
        named: class that the ridge names [a].
        fit: (deformed kernel [k, k], classes [k]) → a ridge.
        labels: how many labels it knows.
        rng: of the draws.
    """
    of_each = [np.flatnonzero(named == c) for c in np.unique(named)]
    if len(of_each) < 2:
        return UNASKED
    drawn = np.stack([rng.choice(rows, REHEARSALS) for rows in of_each], 1)
    products = np.split(kernel @ deformation(drawn.ravel()), REHEARSALS, 1)
    scores, truth = [], []
    for rows, mine in zip(drawn, products, strict=True):
        rest = np.delete(np.arange(len(named)), rows)
        scores.append(fit(mine[rows], named[rows]).scores(mine[rest]))
        truth.append(named[rest])
    z, y = np.concatenate(scores), np.concatenate(truth)
    return UNASKED * fit_temperature(z / UNASKED, y, worth=labels)
