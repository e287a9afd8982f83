"""How a sensor's values looked in training."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from robult_edge import faults
from robult_edge.modality import RUN_HOPS, ChannelStats, HopStats, Range

LOW, HIGH, SPREAD = 0.001, 0.999, 0.001


def channel_stats(recordings: Sequence[np.ndarray], hop: int) -> ChannelStats:
    """Statistics per channel over training recordings, samples with NaN left out.

    Args:
        recordings: sample arrays [n, C] or [n, C, H, W], raw units.
        hop: samples per hop; ``spread`` is the 0.1 % quantile of (max − min) within one.
    """
    channels = recordings[0].shape[1]
    measured, spreads = [], []
    for samples in recordings:
        # Pixels of an image are values of its colour plane: [n, C, pixels].
        flat = samples.reshape(len(samples), channels, -1)
        measured.append(flat[np.isfinite(flat).all((1, 2))])
        hops = flat[: len(flat) // hop * hop].reshape(-1, hop, channels, flat.shape[2])
        hops = hops[np.isfinite(hops).all((1, 2, 3))]
        spreads.append(hops.max((1, 3)) - hops.min((1, 3)))
    values = np.concatenate(measured).astype(np.float64).transpose(1, 0, 2).reshape(channels, -1)
    if not values.size:
        zero, one = (0.0,) * channels, (1.0,) * channels
        return ChannelStats(mean=zero, std=one, low=zero, high=zero, spread=zero)
    spread = np.concatenate(spreads)
    std = values.std(1)
    # A channel that never moved would divide by zero; leave it unscaled instead.
    std = np.where(std > 1e-6 * np.maximum(np.abs(values.mean(1)), 1e-6), std, 1.0)
    return ChannelStats(
        mean=_numbers(values.mean(1)),
        std=_numbers(std),
        low=_numbers(np.quantile(values, LOW, axis=1)),
        high=_numbers(np.quantile(values, HIGH, axis=1)),
        spread=_numbers(np.quantile(spread, SPREAD, axis=0) if len(spread) else np.zeros(channels)),
        hop=_hop_stats(recordings, hop),
    )


def _hop_stats(recordings: Sequence[np.ndarray], hop: int) -> HopStats | None:
    """How time series [n, C] moved within hops; None where two hops in a row were never seen."""
    if recordings[0].ndim > 2 or hop < faults.SHORTEST_HOP:
        return None
    singles, pairs, leans = [], [], []
    for samples in recordings:
        hops = samples[: len(samples) // hop * hop].reshape(-1, hop, samples.shape[1])
        whole = np.isfinite(hops).all((1, 2))
        singles.append(hops[whole])
        pairs.append(np.concatenate([hops[:-1], hops[1:]], 1)[whole[:-1] & whole[1:]])
        if len(hops) >= RUN_HOPS:
            means = sliding_window_view(faults.level(hops), RUN_HOPS, 0).mean(-1)
            leans.append(np.linalg.norm(means[np.isfinite(means).all(1)], axis=1))
    single, pair = np.concatenate(singles), np.concatenate(pairs)
    lean = np.concatenate(leans) if leans else np.empty(0)
    if not len(pair):
        return None
    steps = faults.steps(single)
    bends = np.abs(faults.steps(steps))
    usual = bends.mean((0, 1), dtype=np.float64)
    usual = np.where(usual > 0, usual, 1.0)
    return HopStats(
        level=_ranges(faults.level(pair)),
        roughness=_ranges(faults.roughness(bends)),
        repeats=_numbers(np.quantile(faults.repeats(steps), HIGH, axis=0)),
        usual=_numbers(usual),
        length=_range(faults.length(pair)),
        spikiness=_range(faults.spikiness(bends, 1 / usual)),
        lean=_numbers(np.quantile(lean, [HIGH]))[0] if len(lean) else inf,
    )


def _ranges(values: np.ndarray) -> tuple[Range, ...]:
    return tuple(_range(channel) for channel in values.T)


def _range(values: np.ndarray) -> Range:
    low, high = _numbers(np.quantile(values, (LOW, HIGH)))
    return low, high


def _numbers(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(f"{v:.7g}") for v in values)
