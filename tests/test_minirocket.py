"""MiniRocket's features against its paper's definition, written out by brute force."""

import itertools

import numpy as np
import pytest
import torch

from robult_edge.nn.minirocket import KERNELS, MiniRocket, spread


def features_by_definition(x, rocket, softness):
    """x [C, T] → the features, one multiplication at a time."""
    t = x.shape[1]
    out = []
    for i, dilation in enumerate(rocket.dilations):
        weights = rocket.get_buffer(f"weights{i}").numpy()
        biases = rocket.get_buffer(f"biases{i}").numpy()
        kernels = [*enumerate(itertools.combinations(range(9), 3))]
        for kernel, three in kernels[0::2] + kernels[1::2]:
            usual = np.array([2 if j in three else -1 for j in range(9)])
            gain = weights[kernel] @ usual / (usual @ usual)  # of each channel, 0 where not read
            found = []
            for centre in range(t):
                total = 0.0
                for j in range(9):
                    at = centre + (j - 4) * dilation
                    if 0 <= at < t:
                        total += usual[j] * (x[:, at] @ gain)
                found.append(total)
            if (i + kernel) % 2:
                found = found[4 * dilation : t - 4 * dilation]
            for bias in biases[kernel]:
                if softness < 1e-3:
                    out.append(np.mean([value + bias > 0.5 for value in found]))
                else:
                    out.append(np.mean([np.clip(value + bias, 0, 1) for value in found]))
    return (np.array(out) - rocket.mean.numpy()) / rocket.std.numpy()


@pytest.mark.parametrize("softness", [1e-6, 0.25], ids=["the paper's", "softly counted"])
@pytest.mark.parametrize(("channels", "t"), [(1, 9), (1, 40), (3, 60)])
def test_features_are_what_the_definition_says(channels, t, softness):
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(6, channels, t)).astype(np.float32))
    rocket = MiniRocket(channels, t, 84 * 6, softness).fit(x[1:], rng)
    got = rocket(x).numpy()
    assert got.shape == (6, 84 * 6)
    off = np.abs(got[0] - features_by_definition(x[0].numpy(), rocket, softness))
    # Hard counts: a value that ties with a bias to a rounding may fall on either side.
    assert np.mean(off > 1e-4) < (0.02 if softness < 1e-3 else 1e-9)


def test_a_standing_sensor_looks_the_same_to_a_rounding():
    """Every kernel finds 0 there, where the softly counted share has no edge."""
    rng = np.random.default_rng(3)
    still = torch.from_numpy(np.repeat(rng.normal(size=(50, 2, 1)), 60, 2).astype(np.float32))
    rounding = 1e-6 * torch.randn(still.shape, generator=torch.Generator().manual_seed(0))
    moving = still + 0.1 * torch.randn(still.shape, generator=torch.Generator().manual_seed(1))
    rocket = MiniRocket(2, 60).fit(torch.cat([still, moving]), rng)
    assert (rocket(still + rounding) - rocket(still)).abs().max() < 1e-3


def test_the_84_kernels_sum_to_zero_and_differ():
    assert KERNELS.shape == (84, 9)
    assert not KERNELS.sum(1).any()
    assert len(np.unique(KERNELS, axis=0)) == 84


@pytest.mark.parametrize("t", [9, 16, 60, 128, 1000])
def test_dilations_spread_up_to_the_window_and_use_the_budget(t):
    dilations, counts = spread(t, 119)
    assert dilations[0] == 1
    assert 8 * dilations[-1] < t
    assert sum(counts) == 119
    assert min(counts) > 0


def test_biases_come_from_what_kernels_find():
    """So a feature is rarely constant on windows of the kind it was fitted on."""
    rng = np.random.default_rng(1)
    x = torch.from_numpy(rng.normal(size=(40, 2, 64)).astype(np.float32))
    assert (MiniRocket(2, 64, 840).fit(x, rng)(x).std(0) > 0).float().mean() > 0.95
