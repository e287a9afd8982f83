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
    """What a sensor's samples must keep to, per channel [C] float32, broadcast over pixels."""

    spec: ModalitySpec
    low: np.ndarray
    high: np.ndarray
    stillest: np.ndarray


def limits(spec: ModalitySpec) -> Limits:
    """The limits that follow from a modality's training statistics; none known, none set."""
    channels = len(spec.channels)
    if spec.stats is None:
        open_ended = np.full(channels, np.inf, np.float32)
        return Limits(spec, -open_ended, open_ended, np.zeros(channels, np.float32))
    low = np.asarray(spec.stats.low, np.float32)
    high = np.asarray(spec.stats.high, np.float32)
    margin = RANGE_MARGIN * np.maximum(high - low, 1e-6 * np.abs(high) + 1e-12)
    stillest = FLAT_SHARE * np.asarray(spec.stats.spread, np.float32)
    return Limits(spec, low - margin, high + margin, stillest)


def check(samples: np.ndarray, limits: Limits) -> str | None:
    """Why ``samples`` [n, *sample_shape] cannot be believed; None when they can.

    Flatness is judged only on a hop's worth of samples or more: fewer may stand still by chance.
    """
    if samples.ndim > 2:
        samples = samples.swapaxes(0, 1).reshape(samples.shape[1], -1).T
    top, bottom = samples.max(0), samples.min(0)
    # NaN compares false, so that one comparison per side catches NaN, Inf and range.
    if not ((top <= limits.high) & (bottom >= limits.low)).all():
        return _not_finite(samples) or _out_of_range(top, bottom, limits)
    if len(samples) >= limits.spec.hop > 1 and (top - bottom < limits.stillest).any():
        return _flat(top - bottom, limits)
    return None


def _not_finite(samples: np.ndarray) -> str | None:
    bad = ~np.isfinite(samples)
    if not bad.any():
        return None
    what = "NaN" if np.isnan(samples).any() else "infinite"
    return f"{max(1, round(100 * bad.mean()))} % {what}"


def _out_of_range(top: np.ndarray, bottom: np.ndarray, limits: Limits) -> str:
    assert limits.spec.stats is not None
    low, high = np.asarray(limits.spec.stats.low), np.asarray(limits.spec.stats.high)
    # How far each channel reaches from the middle of its training range, in half widths.
    middle, half = (low + high) / 2, np.maximum((high - low) / 2, 1e-12)
    reach = np.maximum(np.abs(top - middle), np.abs(bottom - middle)) / half
    worst = int(np.argmax(reach))
    return f"channel {limits.spec.channels[worst]} at {reach[worst]:.3g}× its training range"


def _flat(spread: np.ndarray, limits: Limits) -> str:
    still = [c for c, s, least in zip(limits.spec.channels, spread, limits.stillest, strict=True)
             if s < least]  # fmt: skip
    return f"channel {', '.join(still)} flat"
