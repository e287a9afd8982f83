"""runtime.contradiction: the odd one out is named when enough others agree, for long enough."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.contradiction import LASTING_HOPS, Contradiction, odd_one_out

LIMIT = 0.1
A, B, C = np.eye(3) * 0.94 + 0.02
UNSURE = np.array([0.33, 0.35, 0.32])


@pytest.mark.parametrize(
    ("branches", "odd"),
    [
        ([A, A, A, B], 3),
        ([B, A, A, A], 0),
        ([A, A, B, A, A], 2),
        ([A, A, A, A], None),
        ([A, B, B], None),
        ([A, B], None),
        ([A], None),
        ([A, A, B, B], None),
        ([A, A, A, B, C], None),
        ([A, A, A, A, B, B], None),
        ([A, A, A, UNSURE], None),
    ],
    ids=[
        "last", "first", "middle", "of one mind", "two against one", "one against one", "alone",
        "a tie", "two strangers", "two of one mind", "unsure",
    ],
)  # fmt: skip
def test_the_odd_one_out_stands_alone_against_three_or_more(
    branches: list[np.ndarray], odd: int | None
) -> None:
    assert odd_one_out([tuple(p.tolist()) for p in branches], 0.3) == odd


FIRST, THIRD, NONE = [B, A, A, A], [A, A, B, A], [A, A, A, A]


@pytest.mark.parametrize(
    ("ticks", "named"),
    [
        ([FIRST] * LASTING_HOPS, [LASTING_HOPS - 1]),
        ([FIRST] * (LASTING_HOPS - 1), []),
        ([FIRST] * (LASTING_HOPS - 1) + [NONE] + [FIRST] * (LASTING_HOPS - 1), []),
        ([FIRST, THIRD] * LASTING_HOPS, []),
        ([FIRST] * 2 * LASTING_HOPS, [LASTING_HOPS - 1, 2 * LASTING_HOPS - 1]),
        ([NONE] * 3 * LASTING_HOPS, []),
    ],
)
def test_only_a_lasting_contradiction_is_a_lie(
    ticks: list[list[np.ndarray]], named: list[int]
) -> None:
    contradiction = Contradiction()
    said = [contradiction.observe([p.tolist() for p in tick], range(4), LIMIT) for tick in ticks]
    assert [k for k, odd in enumerate(said) if odd is not None] == named
    assert {odd for odd in said if odd is not None} <= {0}


def test_it_is_named_by_its_place_in_the_bundle_not_among_the_alive() -> None:
    contradiction = Contradiction()
    # The second is not alive: what it says does not count.
    each = np.array([A, C, A, A, B]).tolist()
    said = [contradiction.observe(each, [0, 2, 3, 4], LIMIT) for _ in range(LASTING_HOPS)]
    assert said[-1] == 4
