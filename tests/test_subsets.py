"""robult_edge.subsets: masks, their members, their names and their order."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from robult_edge import subsets

SIZES = range(1, 7)


@pytest.mark.parametrize("m", SIZES)
def test_every_non_empty_subset_has_exactly_one_mask(m: int) -> None:
    seen = sorted(subsets.members(mask) for mask in subsets.all_subsets(m))
    want = sorted(c for r in range(1, m + 1) for c in itertools.combinations(range(m), r))
    assert seen == want


@pytest.mark.parametrize("m", SIZES)
def test_the_last_subset_is_the_full_one_and_row_mask_minus_one_finds_any(m: int) -> None:
    rows = list(subsets.all_subsets(m))
    assert rows[-1] == subsets.full(m)
    assert all(rows[mask - 1] == mask for mask in rows)


@pytest.mark.parametrize("m", SIZES)
def test_members_and_mask_undo_each_other(m: int) -> None:
    for mask in range(1 << m):
        assert subsets.mask_of(subsets.members(mask)) == mask


@pytest.mark.parametrize(
    ("mask", "want"),
    [(0b1, set()), (0b101, {0b001, 0b100}), (0b111, {0b110, 0b101, 0b011})],
)
def test_children_lack_exactly_one_member_and_are_never_empty(mask: int, want: set[int]) -> None:
    assert set(subsets.children(mask)) == want


@pytest.mark.parametrize(
    ("mask", "want"), [(0, "none"), (1, "acc"), (2, "gyro"), (3, "acc+gyro"), (6, "gyro+mic")]
)
def test_a_subset_is_named_by_its_members_in_order(mask: int, want: str) -> None:
    assert subsets.name(mask, ("acc", "gyro", "mic")) == want


@pytest.mark.parametrize("m", SIZES)
def test_bools_say_the_same_as_masks(m: int) -> None:
    masks = subsets.all_subsets(m)
    table = subsets.as_bools(masks, m)
    assert table.shape == (len(masks), m)
    assert table.dtype == bool
    for row, mask in zip(table, masks, strict=True):
        assert tuple(np.flatnonzero(row)) == subsets.members(mask)
