"""Learning what training windows look like, so that the runtime can tell what is unlike them.

No label is used, so none counts. What a window is measured by is fitted without its own group: a
person's windows are like that person's others, and a stranger's are not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from robult_edge import bundle, plausibility
from robult_edge.bundle import FileRef
from robult_edge.data import Dataset
from robult_edge.modality import ModalitySpec
from robult_edge.plausibility import Usual

CLUSTERS = 64
ROUNDS = 10
"""Of moving the centres to the middle of their clusters."""
RIDGE = 0.02
"""Share of a quantity's spread that is added to it, so that no direction counts for everything."""
QUANTILES = (0.75, 0.98)
"""Honest windows beyond the first are unusual, beyond the second strange."""
FOLDS = 8
ENOUGH = 20_000
"""Windows looked at, evenly over all."""


def fit(dataset: Dataset, modalities: Sequence[ModalitySpec]) -> dict[str, Usual]:
    """By modality, from the windows of the training groups.

    Missing are modalities whose windows have no looks, or were seen by a single group.

    Args:
        dataset: its windows.
        modalities: with the statistics that are exported.
    """
    training = ~dataset.test if not dataset.test.all() else np.ones(len(dataset.test), bool)
    found = {}
    for i, m in enumerate(modalities):
        rows = np.flatnonzero(training & dataset.present[:, i])
        rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), ENOUGH)).astype(int)]
        groups = dataset.groups[rows]
        if m.stats is None or not plausibility.can_tell(m) or len(set(groups)) < 2:
            continue
        scale = np.asarray([m.stats.mean, m.stats.std], np.float32)
        looks = plausibility.looks(dataset.windows[m.name][rows], scale)
        found[m.name] = fit_looks(looks, groups, scale)
    return found


def write(out: Path, usual: Mapping[str, Usual]) -> FileRef | None:
    """Write it into the bundle ``out``; None where nothing is known."""
    if not usual:
        return None
    return bundle.write_arrays(out / "usual.npz", plausibility.to_arrays(usual))


def fit_looks(looks: np.ndarray, groups: np.ndarray, scale: np.ndarray) -> Usual:
    """From what windows look like, [n, D], and whose they are, [n]."""
    distances = np.empty(len(looks))
    fold = np.unique(groups, return_inverse=True)[1] % FOLDS
    for k in np.unique(fold):
        whiten, centres = _clusters(looks[fold != k])
        alone = Usual(scale, whiten, centres, np.array([0.0, 1.0]))
        distances[fold == k] = alone.strangeness(looks[fold == k])
    usual, strange = np.quantile(distances, QUANTILES)
    limits = np.array([usual, max(strange, usual * (1 + 1e-6) + 1e-6)])
    return Usual(scale, *_clusters(looks), limits.astype(np.float32))


def _clusters(looks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whitening [D, D] and centres [k, D] of points [n, D]; the same in every run."""
    points = looks.astype(np.float64)
    rough = _whitening(points - points.mean(0))
    first = np.linspace(0, len(points) - 1, min(CLUSTERS, len(points))).astype(int)
    z = points @ rough
    centres = z[first]
    for _ in range(ROUNDS):
        nearest = _nearest(z, centres)
        members = np.bincount(nearest, minlength=len(centres))[:, None]
        total = np.zeros_like(centres)
        np.add.at(total, nearest, z)
        centres = np.where(members > 0, total / np.maximum(members, 1), centres)
    nearest = _nearest(z, centres)
    whiten = rough @ _whitening(z - centres[nearest])
    return whiten.astype(np.float32), (centres @ np.linalg.inv(rough)).astype(np.float32)


def _nearest(z: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Which centre [k, D] is nearest to each point [n, D]."""
    return np.argmin(np.square(centres).sum(1) - 2 * z @ centres.T, axis=1)


def _whitening(off: np.ndarray) -> np.ndarray:
    """What makes the spread of points [n, D] about 0 the same in every direction."""
    spread = off.T @ off / len(off)
    own = np.diag(spread)
    spread = spread + np.diag(RIDGE * own + 1e-9)
    return np.linalg.cholesky(np.linalg.inv(spread))
