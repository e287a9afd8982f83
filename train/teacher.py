"""The teacher: kernel ridge regression on the shapes and levels of all sensors at once.

From few labels a young network names unlabelled windows badly, and then learns from what it said.
A ridge on fixed features (`train.kernel`) needs no training: it is a formula, and of *other windows
of the same groups* it is right far more often, the more so as it is made smooth along unlabelled
windows (`train.manifold`). How much levels count beside shapes, whether a sensor whose windows are
flat has a shape at all, and whether what lies between two sensors counts (XOR at the purest), is
for labels left out to say. The ridge is asked once, before training, and every branch and the head
learn to say what it said. It is asked about labelled windows too, each by a fit that did not learn
from its label: which classes it nearly was, and what it would be were its label wrong. `train.loop`
begins with that, and ends with the label. It is no model for deployment: it needs all its sensors,
and noise of a fifth of a channel's spread undoes it. What learns from it is judged on other groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import chain
from operator import itemgetter

import numpy as np
from scipy.sparse import csr_matrix

from robult_edge import fusion
from robult_edge.calibration import LOG_LOSSES, fit_temperature
from robult_edge.task import Task
from train.config import TrainConfig
from train.kernel import Kernel, chunks
from train.manifold import deformation, laplacian
from train.plan import Plan

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
PENALTIES = np.logspace(-4, 2, 13)
"""Tried, in means of the kernel's eigenvalues; the middle one where nothing can be left out, or
labels left out are named no better than by naming the commonest class always: with a dozen labels
the fit that does just that may seem the best."""
INTERCEPT = 0.1
"""Of a ridge whose labels are not drawn at random, in means of the kernel's diagonal. Features are
0 in the middle of all windows, and without it no class is favoured there: wrong where the labels
are one of each class and most windows are of the same."""
ODD = 2.0
"""Times as far off as by chance, from which labels count as not drawn at random."""
SHARPNESS = 2.5
"""Of a ridge's scores, about −1 to 1, as logits, before a temperature is fitted."""
UNASKED = 0.5
"""Temperature where nothing can be left out: a ridge that knows one label of each class has small
scores elsewhere, and is right far more often than they say."""

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
    fits = fit(among, plan.y[known], mine, plan.classes, plan.task)
    said = {fold: np.zeros((len(plan.fold), plan.classes), np.float32) for fold in fits}
    here = learned[n:], among[:, n:]
    elsewhere = ((rows, kernel(rows)) for rows in chunks(np.setdiff1d(others, learned)))
    for rows, products in chain([here], elsewhere):
        for fold, answer in fits.items():
            said[fold][rows] = answer(products)
    for fold, answer in fits.items():
        said[fold][known[mine[fold]]] = answer.ridge.unseen
    return said


def probabilities(y: np.ndarray, classes: int, task: Task) -> np.ndarray:
    """Labels [N] or [N, K] as answers [N, K] that are sure of them."""
    return np.eye(classes)[y] if task == "classification" else y


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
    products: np.ndarray, y: np.ndarray, mine: dict[int, np.ndarray], classes: int, task: Task
) -> dict[int, Fit]:
    """Per fold left out, the fit of least cost: view and levels' weight, pairs', then how smooth.

    Args:
        products: among the windows learned from [4, a, a], the known ones first.
        y: truth of the known ones, [n] or [n, K].
        mine: per fold left out, the known windows that its fit may learn from, [n] bool.
        classes: K.
        task: what is asked.
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

    @cache
    def smooth(weights: Weights, strength: float) -> tuple[np.ndarray, np.ndarray]:
        g = deformation(plain(weights), graph(weights), n, strength)
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
        kernels = [smooth(weights, strength) for strength in STRENGTHS]
        fits = [Fit(weights, g, ridge_in(kernel)) for g, kernel in kernels]
        return min(fits, key=lambda fit: fit.ridge.cost)

    return {fold: best(rows) for fold, rows in mine.items()}


def drawn_at_random(products: np.ndarray, n: int) -> bool:
    """Whether the first n windows lie among all [a, a] as a random draw does, by their mean.

    How far means lie apart is the maximum mean discrepancy (Gretton et al. 2012, eq. 5); squared,
    it is by chance an n-th of the spread.
    """
    apart = products[:n, :n].mean() - 2 * products[:n].mean() + products.mean()
    spread = products.diagonal().mean() - products.mean()
    return bool(n * apart <= ODD * spread)


@dataclass(frozen=True)
class Ridge:
    """Kernel ridge regression: products with the known windows [B, n] → answers [B, K].

    Attributes:
        weights: [n, K].
        middle: [K], what it says where features are 0.
        temperature: of its scores.
        unseen: its answers to the windows it was fitted to, each left out; its label of the only
            one of a class.
        cost: squared error of its scores on windows left out, summed; 0 where none can be.
        task: what is asked.
    """

    weights: np.ndarray
    middle: np.ndarray
    temperature: float
    unseen: np.ndarray
    cost: float
    task: Task

    def __call__(self, products: np.ndarray) -> np.ndarray:
        return fusion.LINKS[self.task]((products @ self.weights + self.middle) / self.temperature)


def ridge(
    kernel: np.ndarray,
    y: np.ndarray,
    mine: np.ndarray,
    classes: int,
    task: Task,
    intercept: float,
) -> Ridge:
    """Fit to the known windows that are ``mine``; penalty and temperature by leaving one out.

    What is said of a window by the fit without it is its target less c_i / (G⁻¹)_ii, with
    G⁻¹ the inverse of the penalised kernel and c its weights (Rifkin & Lippert 2007, eq. 9). The
    only window of its class is not asked about: without it the class is unheard of.

    Args:
        kernel: [n, n] among the known windows.
        y: their truth [n] or [n, K].
        mine: [n] bool.
        classes: K.
        task: what is asked.
        intercept: the square of a feature that is the same everywhere, see INTERCEPT.
    """
    y = y[mine]
    label = probabilities(y, classes, task)
    targets = label.astype(float) if task == "regression" else 2.0 * label - 1
    middle = targets.mean(0)
    asked = np.ones(len(y), bool)
    if task == "classification":
        asked = np.bincount(y, minlength=classes)[y] > 1
    same = intercept * kernel.diagonal().mean()
    values, q = np.linalg.eigh(kernel[np.ix_(mine, mine)].astype(float) + same)
    trials = []
    for penalty in PENALTIES * values.mean():
        inverse = 1 / (values + penalty)
        best = q @ (inverse[:, None] * (q.T @ (targets - middle)))
        unseen = targets - best / (np.square(q) @ inverse)[:, None]
        trials.append((float(np.square(unseen - targets)[asked].sum()), best, unseen))
    cost, best, unseen = min(trials, key=itemgetter(0))
    if task == "classification" and not _learnt(unseen[asked], y[asked]):
        cost, best, unseen = trials[len(PENALTIES) // 2]
    weights = np.zeros((len(mine), targets.shape[1]))
    weights[mine] = best
    sharp = 1.0 if task == "regression" else SHARPNESS
    t = fit_temperature(sharp * unseen[asked], y[asked], LOG_LOSSES[task])
    temperature = (t if asked.any() else UNASKED) / sharp
    answers = np.where(asked[:, None], fusion.LINKS[task](unseen / temperature), label)
    return Ridge(weights, middle + same * best.sum(0), temperature, answers, cost, task)


def _learnt(scores: np.ndarray, y: np.ndarray) -> bool:
    """Whether scores [n, K] name classes better than by naming the commonest always."""
    return bool((scores.argmax(1) == y).sum() > np.bincount(y, minlength=1).max())
