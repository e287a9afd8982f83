"""Who trains, who tests, which labels are known, what is missing: always by group, always seeded.

Rows are windows. A group (subject, run, day) is never on two sides of a split.
"""

from __future__ import annotations

import numpy as np


def pick_groups(groups: np.ndarray, share: float, seed: int) -> tuple[str, ...]:
    """A share of the distinct groups, at least one, never all.

    Args:
        groups: [N] group of each row.
        share: of the groups, in (0, 1).
        seed: of the draw.
    """
    names = np.unique(groups)
    count = min(max(1, round(share * len(names))), len(names) - 1)
    drawn = np.random.default_rng(seed).permutation(names)[:count]
    return tuple(sorted(str(name) for name in drawn))


def pick_test_groups(groups: np.ndarray, y: np.ndarray, share: float, seed: int) -> tuple[str, ...]:
    """As ``pick_groups``, of 200 draws the first with every class on both sides, or nearest to it.

    Args:
        groups: [N] group of each row.
        y: [N] class, negative where unknown.
        share: of the groups, in (0, 1).
        seed: of the draws.
    """
    best: tuple[str, ...] = ()
    most = -1
    for draw in range(200):
        chosen = pick_groups(groups, share, 1000 * seed + draw)
        test, labelled = np.isin(groups, chosen), y >= 0
        sides = [len(np.unique(y[labelled & side])) for side in (test, ~test)]
        if sum(sides) > most:
            best, most = chosen, sum(sides)
        if most == 2 * len(np.unique(y[labelled])):
            break
    return best


def draw_labels(y: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Which rows' labels are known: a fraction of each class, at least one of each that occurs.

    Args:
        y: [N] class, negative where there is none to know.
        fraction: of each class, in (0, 1].
        rng: of the draw.

    Returns:
        [N] bool.
    """
    known = np.zeros(len(y), bool)
    for k in np.unique(y[y >= 0]):
        rows = np.flatnonzero(y == k)
        known[rng.permutation(rows)[: max(1, round(fraction * len(rows)))]] = True
    return known


def group_folds(
    groups: np.ndarray, y: np.ndarray, known: np.ndarray, folds: int, rng: np.random.Generator
) -> np.ndarray:
    """Fold of each row, whole groups, with the known labels of each class spread over the folds.

    Greedy: the group with most known labels first, into the fold that is then most even. Only
    labels inside the budget (``known``) are looked at.

    Args:
        groups: [N] group of each row.
        y: [N] class, read only where ``known``.
        known: [N] bool.
        folds: how many; fewer come back if there are fewer groups.
        rng: breaks ties.

    Returns:
        [N] int fold.
    """
    names, which = np.unique(groups, return_inverse=True)
    folds = min(folds, len(names))
    classes = int(y[known].max(initial=0)) + 1
    # Per group: known labels of each class, and (last column) rows.
    counts = np.zeros((len(names), classes + 1))
    np.add.at(counts, (which[known], y[known]), 1)
    np.add.at(counts[:, -1], which, 1)
    share = counts / np.maximum(counts.sum(0), 1)

    fold_of = np.zeros(len(names), int)
    load, held = np.zeros((folds, classes + 1)), np.zeros(folds, int)
    order = rng.permutation(len(names))
    for g in order[np.argsort(-share[order].sum(1), kind="stable")]:
        cost = ((load + share[g]) ** 2 - load**2).sum(1)
        cost[held > 0] += (held == 0).any() * 1e6  # no fold stays empty
        fold = int(np.argmin(cost))
        fold_of[g] = fold
        load[fold] += share[g]
        held[fold] += 1
    return fold_of[which]


def drop_at_random(
    present: np.ndarray, share: float | np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Presence with a share of the modality samples gone; every row keeps one of those it had.

    Args:
        present: [N, M] bool.
        share: probability that a present modality of a row goes; one for all, or [M].
        rng: of the draw.

    Returns:
        [N, M] bool.
    """
    kept = present & (rng.random(present.shape) >= share)
    spared = np.where(present, rng.random(present.shape), -1).argmax(1)
    bare = ~kept.any(1)
    kept[bare, spared[bare]] = present[bare, spared[bare]]
    return kept
