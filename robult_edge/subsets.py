"""Naming and iterating the subsets of modalities that may be alive.

A subset is a bit mask over the bundle's modalities: bit i is modality i. Masks order the tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

MAX_MODALITIES = 12
"""2^12 − 1 = 4095 rows: the largest expected-accuracy table a bundle may carry."""


def all_subsets(m: int) -> range:
    """Masks of all 2^m − 1 non-empty subsets, ascending."""
    return range(1, 1 << m)


def full(m: int) -> int:
    """Mask with every modality alive."""
    return (1 << m) - 1


def members(mask: int) -> tuple[int, ...]:
    """Indices of the modalities in ``mask``, ascending."""
    return tuple(i for i in range(mask.bit_length()) if mask >> i & 1)


def mask_of(indices: Iterable[int]) -> int:
    """Mask of the given modality indices."""
    mask = 0
    for i in indices:
        mask |= 1 << i
    return mask


def children(mask: int) -> tuple[int, ...]:
    """The non-empty subsets of ``mask`` that lack exactly one of its members."""
    return tuple(mask & ~(1 << i) for i in members(mask) if mask & ~(1 << i))


def name(mask: int, names: Sequence[str]) -> str:
    """Human name of a subset, e.g. ``acc+gyro``; ``none`` when empty."""
    return "+".join(names[i] for i in members(mask)) or "none"


def as_bools(masks: Sequence[int] | range, m: int) -> np.ndarray:
    """Alive masks as a table: [len(masks), m] bool."""
    return (np.asarray(masks)[:, None] >> np.arange(m) & 1).astype(bool)
