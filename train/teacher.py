"""The teacher: kernel ridge regression on the shapes and levels of all sensors at once.

From few labels a young network names unlabelled windows badly, and then learns from what it said.
A ridge on fixed features (`train.kernel`) needs no training: it is a formula, and of *other windows
of the same groups* it is right far more often, the more so as it is made smooth along unlabelled
windows (`train.manifold`). How much levels count beside shapes, whether a sensor whose windows are
flat has a shape at all, and whether what lies between two sensors counts (XOR at the purest), is
for labels left out to say. How sure it may be is too; where none can be left out, it rehearses
(`train.rehearsal`). The ridge is asked once, before training, and every branch and the head learn
to say what it said. It is asked about labelled windows too, each by a fit that did not learn from
its label: which classes it nearly was, and what it would be were its label wrong. `train.loop`
begins with that, and ends with the label. It is no model for deployment: it needs all its sensors,
and noise of a fifth of a channel's spread undoes it. What learns from it is judged on other groups.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain

import numpy as np
from scipy.sparse import csr_matrix

from robult_edge.task import Task
from train.config import TrainConfig
from train.kernel import Kernel, chunks
from train.manifold import deformation, laplacian
from train.plan import Plan
from train.rehearsal import rehearsed
from train.ridge import Ridge, ridge

VIEWS = ((1.0, 0.0), (0.0, 1.0))
"""Weights of what is natural to each sensor and of all sensors' shapes, tried; the first where
nothing can be left out. They differ where a sensor is flat."""
LEVEL_WEIGHTS = (0.0, 0.25, 1.0)
"""Of all sensors' levels beside that, tried likewise."""
PAIR_WEIGHTS = (0.0, 0.3)
"""Of what lies between two sensors, tried likewise."""
LABELLED, MOST = 1500, 2500
"""Windows that it learns from, at most: labelled ones, and all."""
STRENGTHS = (3.0, 1.0, 0.3)
"""Of the smoothness along unlabelled windows, tried; the first where nothing can be left out: the
fewer the labels, the more neighbours have to say."""
INTERCEPT = 0.1
"""Of a ridge whose labels are not drawn at random, in means of the kernel's diagonal. Features are
0 in the middle of all windows, and without it no class is favoured there: wrong where the labels
are one of each class and most windows are of the same."""
ODD = 2.0
"""Times as far off as by chance, from which labels count as not drawn at random."""

Weights = tuple[float, float, float, float]
"""Of the products of `train.kernel.Kernel`."""


def teach(plan: Plan, config: TrainConfig) -> dict[int, np.ndarray]:
    """What the ridge says of every window to each model that a cross-fit trains.

    Of a labelled one it is said without its label. Of the fold left out the ridge knows where
    windows lie, and no label; what stands there at labelled windows is for nobody.

    Returns:
        Per fold left out, ``plan.everything`` for none: [N, K] float32 probabilities or values.
    """
    rng = np.random.default_rng([config.seed, 5])
    known = np.sort(rng.permutation(np.flatnonzero(plan.known))[:LABELLED])
    n = len(known)
    others = np.setdiff1d(np.arange(len(plan.y)), known)
    learned = np.concatenate([known, np.sort(rng.permutation(others)[: MOST - n])])
    kernel = Kernel(plan, learned, rng)
    among = kernel.among()
    mine = {fold: plan.fold[known] != fold for fold in [*plan.folds, plan.everything]}
    fits = fit(among, plan.y[known], mine, plan.classes, plan.task, rng)
    said = {fold: np.zeros((len(plan.fold), plan.classes), np.float32) for fold in fits}
    here = learned[n:], among[:, n:]
    elsewhere = ((rows, kernel(rows)) for rows in chunks(np.setdiff1d(others, learned)))
    for rows, products in chain([here], elsewhere):
        for fold, answer in fits.items():
            said[fold][rows] = answer(products)
    for fold, answer in fits.items():
        said[fold][known[mine[fold]]] = answer.ridge.unseen
    return said


@dataclass(frozen=True)
class Fit:
    """A ridge in the kernel that labels left out speak for.

    Attributes:
        weights: of the products.
        smooth: [a, n], see `train.manifold.deformation`.
        ridge: in the deformed kernel.
    """

    weights: Weights
    smooth: np.ndarray
    ridge: Ridge

    def __call__(self, products: np.ndarray) -> np.ndarray:
        """Products with the windows learned from [4, B, a] → answers [B, K]."""
        return self.ridge(np.tensordot(self.weights, products, 1) @ self.smooth)


def fit(
    products: np.ndarray,
    y: np.ndarray,
    mine: dict[int, np.ndarray],
    classes: int,
    task: Task,
    rng: np.random.Generator,
) -> dict[int, Fit]:
    """Per fold left out, the fit of least cost: view and levels' weight, pairs', then how smooth.

    Args:
        products: among the windows learned from [4, a, a], the known ones first.
        y: truth of the known ones, [n] or [n, K].
        mine: per fold left out, the known windows that its fit may learn from, [n] bool.
        classes: K.
        task: what is asked.
        rng: of what is rehearsed where nothing can be left out.
    """
    n = len(y)
    intercept = 0.0 if drawn_at_random(products[0], n) else INTERCEPT
    views = VIEWS[:1] if np.array_equal(products[0], products[2]) else VIEWS

    @cache
    def plain(weights: Weights) -> np.ndarray:
        return np.tensordot(weights, products, 1)

    @cache
    def graph(weights: Weights) -> csr_matrix:
        return laplacian(plain(weights))

    def bend(weights: Weights, strength: float, known: np.ndarray) -> np.ndarray:
        return deformation(plain(weights), graph(weights), known, strength)

    @cache
    def smooth(weights: Weights, strength: float) -> tuple[np.ndarray, np.ndarray]:
        g = bend(weights, strength, np.arange(n))
        return g, plain(weights)[:n] @ g

    def best(mine: np.ndarray) -> Fit:
        def ridge_in(kernel: np.ndarray) -> Ridge:
            return ridge(kernel, y, mine, classes, task, intercept)

        @cache
        def cost(weights: Weights) -> float:
            return ridge_in(plain(weights)[:n, :n]).cost

        tried = [
            (natural, 0.0, shape, level) for natural, shape in views for level in LEVEL_WEIGHTS
        ]
        natural, _, shape, level = min(tried, key=cost)
        weights = min(((natural, pairs, shape, level) for pairs in PAIR_WEIGHTS), key=cost)
        kernels = {strength: smooth(weights, strength) for strength in STRENGTHS}
        fits = {s: Fit(weights, g, ridge_in(kernel)) for s, (g, kernel) in kernels.items()}
        strength = min(fits, key=lambda s: fits[s].ridge.cost)
        found = fits[strength]
        return found if found.ridge.asked else rehearse(found, strength, mine)

    def rehearse(found: Fit, strength: float, mine: np.ndarray) -> Fit:
        kernel = plain(found.weights)
        named = found.ridge.scores(kernel @ found.smooth).argmax(1)
        named[:n][mine] = y[mine]
        temperature = rehearsed(
            kernel,
            partial(bend, found.weights, strength),
            named,
            lambda kernel, y: ridge(kernel, y, y >= 0, classes, task, intercept),
            int(mine.sum()),
            rng,
        )
        return replace(found, ridge=replace(found.ridge, temperature=temperature))

    return {fold: best(rows) for fold, rows in mine.items()}


def drawn_at_random(products: np.ndarray, n: int) -> bool:
    """Whether the first n windows lie among all [a, a] as a random draw does, by their mean.

    How far means lie apart is the maximum mean discrepancy (Gretton et al. 2012, eq. 5); squared,
    it is by chance an n-th of the spread.
    """
    apart = products[:n, :n].mean() - 2 * products[:n].mean() + products.mean()
    spread = products.diagonal().mean() - products.mean()
    return bool(n * apart <= ODD * spread)
