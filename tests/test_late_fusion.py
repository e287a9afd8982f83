"""How a subset answers: by a pool of its own, or as a smaller one where that is clearly better."""

import numpy as np
import pytest

from robult_edge import late_fusion
from robult_edge.late_fusion import Answers

FIRST, BOTH = 0b01, 0b11


def answers(windows: int) -> Answers:
    """Two sensors whose pool is less surely wrong than the first alone, but more often.

    The first is right four times in five, and very sure when it is not. The second knows better
    just then, and is slightly wrong or silent most other times. The head knows nothing.
    """
    y = np.arange(windows) % 2
    truth = np.stack([1 - 2 * y, 2 * y - 1], 1).astype(float)
    kind = np.repeat([0, 1, 2, 3], [3, 3, 2, 2])[np.arange(windows) % 10]
    margins = np.array([[1.0, -0.5], [1.0, 0.0], [0.5, 2.0], [-3.0, 1.0]])[kind]
    branch = margins[..., None] * truth[:, None]
    return Answers(branch, np.zeros((windows, 3, 2)), y, np.ones((windows, 2), bool))


def right(fit: late_fusion.Fit, mask: int, asked: Answers) -> float:
    return float((fit.probabilities("pool", mask, asked).argmax(1) == asked.y).mean())


def test_no_subset_clearly_loses_to_its_best_member() -> None:
    many = answers(400)
    fit = late_fusion.fit(many, np.arange(400) // 4, 0.9)
    assert fit.tables["pool"][BOTH - 1].uses == FIRST
    assert right(fit, BOTH, many) == right(fit, FIRST, many) == pytest.approx(0.8)


def test_a_member_better_by_a_few_windows_was_lucky() -> None:
    few = answers(10)
    fit = late_fusion.fit(few, np.arange(10), 0.9)
    assert right(fit, FIRST, few) > right(fit, BOTH, few)
    assert fit.tables["pool"][BOTH - 1].uses == BOTH


def test_so_was_one_that_is_better_in_a_few_groups() -> None:
    many = answers(400)
    fit = late_fusion.fit(many, np.arange(400) // 134, 0.9)
    assert right(fit, FIRST, many) > right(fit, BOTH, many)
    assert fit.tables["pool"][BOTH - 1].uses == BOTH


def test_windows_of_a_group_that_say_the_same_are_one() -> None:
    more = np.array([1.0, 0.0, 1.0, 1.0])
    assert late_fusion.lead(more, np.arange(4)) == pytest.approx(3**0.5)  # McNemar's
    assert late_fusion.lead(np.repeat(more, 9), np.repeat(np.arange(4), 9)) == pytest.approx(3**0.5)
    # Groups that disagree within themselves do not make a lead of windows' luck.
    assert late_fusion.lead(np.array([1.0, -1.0, 1.0]), np.array([0, 0, 1])) == pytest.approx(
        3**-0.5
    )


@pytest.mark.parametrize(("sensors", "lead"), [(2, 1.96), (3, 2.54), (5, 3.21)])
def test_the_more_subsets_are_compared_the_more_is_luck(sensors: int, lead: float) -> None:
    assert late_fusion.clear(sensors) == pytest.approx(lead, abs=0.01)
