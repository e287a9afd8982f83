"""How a sensor's values looked in training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from math import inf

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from robult_edge import faults
from robult_edge.modality import RUN_HOPS, ChannelStats, HopStats, Range

TAIL = 0.001
"""Share of the values below ``low``, above ``high``, and of the hops below ``spread``."""
PIECE = 1 << 20
"""Numbers looked at at once."""
ENOUGH = 1 << 24
"""Numbers that hops are measured on."""


def channel_stats(recordings: Callable[[], Iterable[np.ndarray]], hop: int) -> ChannelStats:
    """Statistics per channel over training recordings, samples with NaN left out.

    One recording is in memory at a time, and of all others no more than the tails.

    Args:
        recordings: gives the sample arrays [n, C] or [n, C, H, W], raw units, at every call anew.
        hop: samples per hop; ``spread`` is the 0.1 % quantile of (max − min) within one.
    """
    n, hops, total = 0, 0, np.zeros(1)
    for values, spreads in _looked_at(recordings, hop):
        n, hops = n + values.shape[1], hops + spreads.shape[1]
        total = total + values.sum(1, dtype=np.float64)
    mean = total / max(n, 1)

    squares = np.zeros_like(mean)
    low = high = spread = np.zeros((len(values), 0), np.float32)
    for values, spreads in _looked_at(recordings, hop):
        off = values - mean[:, None]
        squares += np.einsum("cn,cn->c", off, off)
        low = _least(low, values, n)
        high = _least(high, -values, n)
        spread = _least(spread, spreads, hops)
    std = np.sqrt(squares / max(n, 1))
    # A channel that never moved would divide by zero; leave it unscaled instead.
    std = np.where(std > 1e-6 * np.maximum(np.abs(mean), 1e-6), std, 1.0)
    in_hops = _hop_stats(recordings, hop)
    return ChannelStats(
        mean=_numbers(mean),
        std=_numbers(std),
        low=_numbers(_quantile(low, n)),
        high=_numbers(0.0 - _quantile(high, n)),
        spread=_numbers(_quantile(spread, hops)),
        hop=in_hops,
        longest_run=_longest_run(recordings()) if in_hops is None else None,
    )


def _longest_run(recordings: Iterable[np.ndarray]) -> int:
    """How many samples in a row were the same, every value of them; 1 where none repeated."""
    longest, looked_at = 1, 0
    for samples in recordings:
        if looked_at > ENOUGH:
            break
        looked_at += samples.size
        moves = (samples[1:] != samples[:-1]).any(tuple(range(1, samples.ndim)))
        edges = np.flatnonzero(np.r_[True, moves, True])
        longest = max(longest, int(np.diff(edges).max(initial=1)))
    return longest


def _looked_at(
    recordings: Callable[[], Iterable[np.ndarray]], hop: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Piece by piece the finite values [C, n] and the spreads of whole hops [C, k]."""
    for samples in recordings():
        step = hop * max(1, PIECE // (hop * samples[:1].size or 1))
        for piece in np.split(samples, range(step, len(samples), step)):
            channels = piece.shape[1]
            # Pixels of an image are values of its colour plane: [n, C, pixels].
            flat = piece.reshape(len(piece), channels, -1)
            values = flat[np.isfinite(flat).all((1, 2))].transpose(1, 0, 2).reshape(channels, -1)
            hops = flat[: len(flat) // hop * hop].reshape(-1, hop, channels, flat.shape[2])
            hops = hops[np.isfinite(hops).all((1, 2, 3))]
            yield values, (hops.max((1, 3)) - hops.min((1, 3))).T


def _least(kept: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    """The least values [C, k] so far, as many as the quantile of ``n`` in all wants."""
    k = int(TAIL * max(n - 1, 0)) + 2
    both = np.concatenate([kept, values], 1)
    return np.partition(both, k - 1, axis=1)[:, :k] if both.shape[1] > k else both


def _quantile(least: np.ndarray, n: int) -> np.ndarray:
    """The ``TAIL`` quantile [C] of ``n`` values, of which the least are given; 0 of none."""
    if not n:
        return np.zeros(len(least))
    place = TAIL * (n - 1)
    below = int(place)
    a, b = np.sort(least, 1).astype(np.float64)[:, [below, min(below + 1, n - 1)]].T
    return a + (b - a) * (place - below)


def _hop_stats(recordings: Callable[[], Iterable[np.ndarray]], hop: int) -> HopStats | None:
    """How time series [n, C] moved within hops; None where two hops in a row were never seen."""
    if hop < faults.SHORTEST_HOP:
        return None
    total, n = np.zeros(1), 0
    for hops in _hops(recordings(), hop):
        bends = _bends(hops[_whole(hops)])
        total, n = total + bends.sum((0, 1), dtype=np.float64), n + bends.shape[0] * bends.shape[1]
    usual = total / max(n, 1)
    usual = np.where(usual > 0, usual, 1.0)

    each = [_moves(hops, 1 / usual) for hops in _hops(recordings(), hop)]
    if not each:
        return None
    level, length, roughness, repeats, spikiness, lean = map(
        np.concatenate, zip(*each, strict=True)
    )
    if not len(level):
        return None
    return HopStats(
        level=_ranges(level),
        roughness=_ranges(roughness),
        repeats=_numbers(np.quantile(repeats, 1 - TAIL, axis=0)),
        usual=_numbers(usual),
        length=_range(length),
        spikiness=_range(spikiness),
        lean=_numbers(np.quantile(lean, [1 - TAIL]))[0] if len(lean) else inf,
    )


def _hops(recordings: Iterable[np.ndarray], hop: int) -> Iterator[np.ndarray]:
    """The hops [k, hop, C] of each recording of a time series.

    Of the first recordings alone where there are very many: quantiles are made of them.
    """
    looked_at = 0
    for samples in recordings:
        if samples.ndim > 2 or looked_at > ENOUGH:
            return
        looked_at += samples.size
        yield samples[: len(samples) // hop * hop].reshape(-1, hop, samples.shape[1])


def _moves(hops: np.ndarray, per_usual: np.ndarray) -> tuple[np.ndarray, ...]:
    """Level, length, roughness, repeats, spikiness and lean of one recording's hops [k, hop, C]."""
    whole = _whole(hops)
    pairs = np.concatenate([hops[:-1], hops[1:]], 1)[whole[:-1] & whole[1:]]
    bends = _bends(hops[whole])
    lean = np.empty(0)
    if len(hops) >= RUN_HOPS:
        means = sliding_window_view(faults.level(hops), RUN_HOPS, 0).mean(-1)
        lean = np.linalg.norm(means[np.isfinite(means).all(1)], axis=1)
    return (
        faults.level(pairs),
        faults.length(pairs),
        faults.roughness(bends),
        faults.repeats(faults.steps(hops[whole])),
        faults.spikiness(bends, per_usual),
        lean,
    )


def _whole(hops: np.ndarray) -> np.ndarray:
    """Hops [k] without a NaN."""
    return np.isfinite(hops).all((1, 2))


def _bends(hops: np.ndarray) -> np.ndarray:
    return np.abs(faults.steps(faults.steps(hops)))


def _ranges(values: np.ndarray) -> tuple[Range, ...]:
    return tuple(_range(channel) for channel in values.T)


def _range(values: np.ndarray) -> Range:
    low, high = _numbers(np.quantile(values, (TAIL, 1 - TAIL)))
    return low, high


def _numbers(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(f"{v:.7g}") for v in values)
