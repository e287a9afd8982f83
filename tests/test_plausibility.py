"""robult_edge.plausibility and export.usual: what training windows look like, and what does not."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from export import usual
from robult_edge import plausibility
from robult_edge.modality import ModalitySpec
from robult_edge.plausibility import Usual

T = 64
SCALE = np.array([[0.0, 5.0], [1.0, 0.5]], np.float32)
SPEC = ModalitySpec(
    name="acc", channels=("x", "y"), unit="g", rate_hz=50.0, window=T, hop=16, timeout_s=1.0
)


def windows(n: int, seed: int) -> np.ndarray:
    """Of a sensor that swings about one of three levels [n, 2, T]; each group a little its own."""
    rng = np.random.default_rng(seed)
    level = np.array([[-1, 5.5], [0, 4.5], [1, 5.0]])[rng.integers(3, size=n)]
    phase = np.arange(T) / 6 + rng.uniform(0, 6, (n, 2, 1))
    swing = np.sin(phase) * SCALE[1][:, None] * rng.uniform(0.8, 1.2, (n, 2, 1))
    noise = 0.02 * rng.normal(size=(n, 2, T))
    return (level[..., None] + swing + noise + 0.05 * rng.normal(size=(1, 2, 1))).astype(np.float32)


@pytest.fixture(scope="module")
def known() -> Usual:
    looks = np.concatenate([plausibility.looks(windows(60, seed), SCALE) for seed in range(10)])
    return usual.fit_looks(looks, np.repeat(np.arange(10), 60), SCALE)


def strangeness(known: Usual, x: np.ndarray) -> np.ndarray:
    return known.strangeness(plausibility.looks(x.astype(np.float32), known.scale))


def test_looks_are_level_movement_and_roughness_in_spreads() -> None:
    x = windows(5, seed=0)
    looks = plausibility.looks(x, SCALE).reshape(5, 3, 2)
    off = x.astype(np.float64) - SCALE[0][:, None]
    spread = SCALE[1][:, None]
    np.testing.assert_allclose(looks[:, 0], (off / spread).mean(-1), rtol=1e-4, atol=1e-5)
    moved = np.log((off / spread).std(-1) + plausibility.STILL)
    np.testing.assert_allclose(looks[:, 1], moved, rtol=1e-4, atol=1e-5)
    rough = np.sqrt(np.abs(np.diff(off / spread, 2))).mean(-1) ** 2
    np.testing.assert_allclose(
        looks[:, 2], np.log(rough + plausibility.STILL), rtol=1e-3, atol=1e-4
    )


def test_a_large_offset_costs_the_movement_no_precision() -> None:
    """As of a pressure of 1e5 Pa that moves by one."""
    x = windows(5, seed=0)
    far = np.array([[1e4, 1e4], SCALE[1]], np.float32)
    near = plausibility.looks(x, SCALE)[:, 2:4]
    moved = plausibility.looks(x + np.float32(1e4) - SCALE[0][:, None], far)[:, 2:4]
    np.testing.assert_allclose(moved, near, atol=0.01)


def test_new_groups_are_usual_and_seldom_strange(known: Usual) -> None:
    new = np.concatenate([strangeness(known, windows(100, seed)) for seed in range(20, 30)])
    assert np.mean(new <= 0) > 0.6
    assert np.mean(new >= 1) < 0.08


@pytest.mark.parametrize(
    ("lie", "oddest"),
    [
        (lambda x: x + np.array([[6.0], [0.0]]), "level of channel x"),
        (lambda x: x + np.array([[0.0], [-3.0]]), "level of channel y"),
        (lambda x: np.where([[True], [False]], x.mean(-1, keepdims=True), x), "of channel x"),
        (lambda x: x + RNG.normal(size=x.shape) * [[0], [0.5]], "roughness of channel y"),
    ],
    ids=["bias of x", "bias of y", "x stands still", "y is noisy"],
)
def test_a_lie_is_strange_and_said_to_be_where_it_is(known: Usual, lie, oddest: str) -> None:
    lied = lie(windows(50, seed=50))
    assert (strangeness(known, lied) >= 1).all()
    for look in plausibility.looks(lied.astype(np.float32), SCALE):
        assert oddest in plausibility.name(known.oddest(look), SPEC)


RNG = np.random.default_rng(7)


def test_between_the_levels_is_strange_though_no_quantity_leaves_its_range(known: Usual) -> None:
    """Where a level alone would pass: x as high as ever, y as low as ever, but never both."""
    crossed = windows(50, seed=51)
    crossed += (np.array([1.0, 4.5]) - crossed.mean(-1))[..., None].astype(np.float32)
    assert (strangeness(known, crossed) >= 1).all()


def test_the_same_windows_give_the_same_looks_to_the_bit() -> None:
    looks, groups = plausibility.looks(windows(90, 0), SCALE), np.repeat(np.arange(3), 30)
    once, again = (usual.fit_looks(looks, groups, SCALE) for _ in range(2))
    for field in plausibility.FIELDS:
        np.testing.assert_array_equal(getattr(once, field), getattr(again, field))


def test_windows_all_alike_are_usual_and_anything_else_is_strange() -> None:
    still = np.zeros((40, 2, T), np.float32) + SCALE[0][:, None]
    looks = plausibility.looks(still, SCALE)
    known = usual.fit_looks(looks, np.repeat(np.arange(4), 10), SCALE)
    assert (strangeness(known, still) <= 0).all()
    assert (strangeness(known, still + 1) >= 1).all()


def test_a_window_survives_the_file(known: Usual) -> None:
    arrays = plausibility.to_arrays({"acc.left": known})
    (name,), (back,) = zip(*plausibility.from_arrays(arrays).items(), strict=True)
    assert name == "acc.left"
    x = windows(9, seed=3)
    np.testing.assert_array_equal(strangeness(back, x), strangeness(known, x))


@pytest.mark.parametrize(
    ("changes", "tells"),
    [({}, True), ({"window": 11}, False), ({"window": 1, "size": (4, 4)}, False)],
)
def test_images_and_short_windows_have_no_looks(changes: dict, tells: bool) -> None:
    assert plausibility.can_tell(msgspec.structs.replace(SPEC, **changes)) is tells
