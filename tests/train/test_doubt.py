"""train.doubt: of many labels some are wrong, and a network would learn them by heart."""

from __future__ import annotations

import numpy as np
import pytest

from train.doubt import doubted


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_it_is_bayes_rule(rng: np.random.Generator) -> None:
    said = rng.dirichlet([6.0, 1.0, 1.0], 500)
    label = np.eye(3)[[rng.choice(3, p=p) for p in said]]
    wrong = (said.argmax(1) != label.argmax(1)).mean()
    for p, t, found in zip(said, label, doubted(said, label, "classification"), strict=True):
        joint = p * np.where(t == 1, 1 - wrong, wrong / 2)
        np.testing.assert_allclose(found, joint / joint.sum(), atol=3e-3)


def test_a_label_at_odds_with_a_teacher_as_sure_as_labels_are_is_half_believed(
    rng: np.random.Generator,
) -> None:
    truth = rng.integers(4, size=5000)
    wrong = rng.random(5000) < 0.25
    label = np.eye(4)[np.where(wrong, (truth + rng.integers(1, 4, 5000)) % 4, truth)]
    said = np.full((5000, 4), 0.25 / 3)
    said[np.arange(5000), truth] = 0.75
    believed = doubted(said, label, "classification")[np.arange(5000), truth]
    np.testing.assert_allclose(believed[wrong], 0.45, atol=0.03)  # each of both, the rest little
    np.testing.assert_allclose(believed[~wrong], 0.96, atol=0.01)


@pytest.mark.parametrize(("wrong", "doubts"), [(30, False), (50, True), (110, True), (130, False)])
def test_labels_are_doubted_if_some_are_at_odds_and_not_if_many_are(
    wrong: int, doubts: bool, rng: np.random.Generator
) -> None:
    truth = rng.integers(3, size=400)
    label = np.eye(3)[np.where(np.arange(400) < wrong, (truth + 1) % 3, truth)]
    believed = doubted(0.7 * np.eye(3)[truth] + 0.1, label, "classification")
    assert (believed is not label) == doubts


def test_an_answer_that_is_dead_sure_and_a_label_make_a_number() -> None:
    said, label = np.eye(2)[[0, 0, 1, 1, 1]], np.eye(2)[[0, 1, 1, 1, 1]]
    for task in ("classification", "multilabel"):
        believed = doubted(said, label, task)  # type: ignore[arg-type]
        assert np.isfinite(believed).all()
        np.testing.assert_allclose(believed.sum(1), 1)


def test_each_of_many_labels_is_doubted_for_itself(rng: np.random.Generator) -> None:
    truth = rng.random((1000, 3)) < 0.5
    label = (truth ^ (rng.random((1000, 3)) < 0.2)).astype(np.int64)
    believed = doubted(np.where(truth, 0.9, 0.1), label, "multilabel") > 0.5
    assert (believed == truth).all()


def test_values_are_taken_at_their_word(rng: np.random.Generator) -> None:
    label = rng.normal(size=(10, 2))
    assert doubted(rng.normal(size=(10, 2)), label, "regression") is label
