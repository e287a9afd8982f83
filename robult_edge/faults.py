"""Telling a lying sensor from an honest one, from its training statistics. Pure functions.

A check looks at the newest samples of one sensor and answers with a reason that a technician
understands, or None.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robult_edge.modality import ModalitySpec

RANGE_MARGIN = 1.0
"""Values may leave the training range by this many times its width."""
FLAT_SHARE = 0.02
"""A channel is flat when it moves less than this share of its stillest training hop."""


@dataclass(frozen=True)
class Limits:
    """What a sensor's samples must keep to, per channel.

    Plain floats: for the few channels of a sensor, Python compares them faster than NumPy.
    """

    spec: ModalitySpec
    low: tuple[float, ...]
    high: tuple[float, ...]
    stillest: tuple[float, ...]


def limits(spec: ModalitySpec) -> Limits:
    """The limits that follow from a modality's training statistics; without, any finite value."""
    channels, stats = len(spec.channels), spec.stats
    if stats is None:
        largest = float(np.finfo(np.float32).max)
        return Limits(spec, (-largest,) * channels, (largest,) * channels, (0.0,) * channels)
    low, high = np.asarray(stats.low), np.asarray(stats.high)
    margin = RANGE_MARGIN * np.maximum(high - low, 1e-6 * np.abs(high) + 1e-12)
    stillest = FLAT_SHARE * np.asarray(stats.spread)
    return Limits(
        spec,
        tuple((low - margin).tolist()),
        tuple((high + margin).tolist()),
        tuple(stillest.tolist()),
    )


def check(samples: np.ndarray, limits: Limits) -> str | None:
    """Why ``samples`` [n, *sample_shape] cannot be believed; None when they can.

    Flatness is judged only on a hop's worth of samples or more: fewer may stand still by chance.
    """
    n = len(samples)
    if samples.ndim > 2:
        samples = samples.swapaxes(0, 1).reshape(samples.shape[1], -1).T
    top, bottom = samples.max(0).tolist(), samples.min(0).tolist()
    # NaN compares false, so that one comparison catches NaN, Inf and range.
    for t, b, high, low in zip(top, bottom, limits.high, limits.low, strict=True):
        if not (t <= high and b >= low):
            return _not_finite(samples) or _out_of_range(top, bottom, limits)
    if n >= limits.spec.hop > 1:
        for t, b, stillest in zip(top, bottom, limits.stillest, strict=True):
            if t - b < stillest:
                return _flat(top, bottom, limits)
    return None


def _not_finite(samples: np.ndarray) -> str | None:
    bad = ~np.isfinite(samples)
    if not bad.any():
        return None
    what = "NaN" if np.isnan(samples).any() else "infinite"
    return f"{max(1, round(100 * bad.mean()))} % {what}"


def _out_of_range(top: list[float], bottom: list[float], limits: Limits) -> str:
    assert limits.spec.stats is not None
    low, high = np.asarray(limits.spec.stats.low), np.asarray(limits.spec.stats.high)
    # How far each channel reaches from the middle of its training range, in half widths.
    middle, half = (low + high) / 2, np.maximum((high - low) / 2, 1e-12)
    reach = np.maximum(np.abs(top - middle), np.abs(bottom - middle)) / half
    worst = int(np.argmax(reach))
    return f"channel {limits.spec.channels[worst]} at {reach[worst]:.3g}× its training range"


def _flat(top: list[float], bottom: list[float], limits: Limits) -> str:
    rows = zip(limits.spec.channels, top, bottom, limits.stillest, strict=True)
    still = [channel for channel, t, b, least in rows if t - b < least]
    return f"channel {', '.join(still)} flat"
