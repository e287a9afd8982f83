"""MiniRocket's features against its paper's definition, written out by brute force."""

import itertools

import numpy as np
import pytest

from train.comparators import minirocket


def features_by_definition(x, rocket):
    """x [C, T] → PPV of every kernel, dilation and bias, one multiplication at a time."""
    t = x.shape[1]
    out = []
    for index, dilation in enumerate(rocket.dilations):
        for kernel, three in enumerate(itertools.combinations(range(9), 3)):
            weights = [2 if j in three else -1 for j in range(9)]
            found = []
            for centre in range(t):
                total = 0.0
                for j in range(9):
                    at = centre + (j - 4) * dilation
                    if 0 <= at < t:
                        total += weights[j] * (x[:, at] @ rocket.channels[index][kernel])
                found.append(total)
            if (index + kernel) % 2:
                found = found[4 * dilation : t - 4 * dilation]
            for bias in rocket.biases[index][kernel]:
                out.append(np.mean([value > bias for value in found]))
    return np.array(out)


@pytest.mark.parametrize(("channels", "t"), [(1, 9), (1, 40), (3, 60)])
def test_features_are_the_papers(channels, t):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, channels, t)).astype(np.float32)
    rocket = minirocket.fit(x, rng, 84 * 6)
    got = rocket(x)
    assert got.shape == (6, 84 * 6)
    # A value that ties with a bias to a rounding may fall on either side.
    np.testing.assert_allclose(got[0], features_by_definition(x[0], rocket), atol=1.01 / t)
    assert np.mean(np.abs(got[0] - features_by_definition(x[0], rocket)) > 1e-6) < 0.02


def test_the_84_kernels_sum_to_zero_and_differ():
    assert minirocket.KERNELS.shape == (84, 9)
    assert not minirocket.KERNELS.sum(1).any()
    assert len(np.unique(minirocket.KERNELS, axis=0)) == 84


@pytest.mark.parametrize("t", [9, 16, 60, 128, 1000])
def test_dilations_spread_up_to_the_window_and_use_the_budget(t):
    dilations, counts = minirocket.spread(t, 119)
    assert dilations[0] == 1
    assert 8 * dilations[-1] < t
    assert counts.sum() == 119
    assert (counts > 0).all()


def test_biases_come_from_what_kernels_find():
    """So a feature is rarely constant on windows of the kind it was fitted on."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 2, 64)).astype(np.float32)
    assert (minirocket.fit(x, rng, 840)(x).std(0) > 0).mean() > 0.95
