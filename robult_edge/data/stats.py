"""How a sensor's values looked in training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robult_edge.modality import ChannelStats

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
    )


def _numbers(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(f"{v:.7g}") for v in values)
