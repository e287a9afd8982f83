"""Telling a lying sensor from an honest one, from its training statistics. Pure functions.

A check looks at the newest samples of one sensor and answers with a reason that a technician
understands, or None. Which sizes of which fault it can see is what ``benchmarks/faults.py`` prints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import hypot, inf

import numpy as np

from robult_edge import native
from robult_edge.modality import RUN_HOPS, HopStats, ModalitySpec, Range

RANGE_MARGIN, BLOW_MARGIN = 1.0, 4.0
"""Values may leave the training range by this many times its width; further, for a blow is no lie,
where the training statistics say how the signal moves within hops."""
FLAT_SHARE = 0.02
"""A channel is flat when it moves less than this share of its stillest training hop."""
LEVEL_MARGIN, LENGTH_MARGIN, ROUGHNESS_MARGIN, SPIKINESS_MARGIN = 0.25, 0.5, 0.25, 0.2
"""How far beyond its training range each quantity may go, in widths of that range (of its
logarithm but for the level). Set on leave-one-subject-out folds of `watch`: people differ."""
NEARLY_FLAT = 0.8
"""A channel that repeats this share of a hop's samples has just gone flat."""
LEAST_SHIFT = 0.3
"""A level may always be this many spreads outside: sensors of one make differ by as much."""
LEAN_MARGIN = 0.4
"""By how much of itself the longest mean of a long run may be exceeded."""
REPEATS_MARGIN = 0.2
"""By how much the share of repeated samples may exceed the most of training."""
SLACK = 1e-3
"""What a quantity that never varied in training may vary by, of itself."""
SHORTEST_HOP = 12
"""Samples; within fewer, how a signal moves is not judged."""
SPIKES = 6
"""Second differences that must stand out at once: one lone spike, as sensors have, makes three."""


@dataclass(frozen=True)
class Limits:
    """What a sensor's samples must keep to, per channel.

    Plain floats: for the few channels of a sensor, Python compares them faster than NumPy.
    """

    spec: ModalitySpec
    low: tuple[float, ...]
    high: tuple[float, ...]
    stillest: tuple[float, ...]
    hop: HopLimits | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "for_native", _packed(self))

    for_native: tuple[np.ndarray, np.ndarray] = field(init=False)


@dataclass(frozen=True)
class HopLimits:
    """What the quantities of `HopStats` must keep to; ``per_usual`` [C] is 1 / ``usual``."""

    stats: HopStats
    level: tuple[Range, ...]
    roughness: tuple[Range, ...]
    repeats: tuple[float, ...]
    length: Range
    spikiness: float
    lean: float
    per_usual: np.ndarray


def limits(spec: ModalitySpec, margin: float = 1.0) -> Limits:
    """The limits that follow from a modality's training statistics; without, any finite value.

    Args:
        spec: of the sensor.
        margin: share of the margins of motion and level to allow; 0 for a sensor that is in doubt.
    """
    channels, stats = len(spec.channels), spec.stats
    if stats is None:
        largest = float(np.finfo(np.float32).max)
        return Limits(spec, (-largest,) * channels, (largest,) * channels, (0.0,) * channels)
    low, high = np.asarray(stats.low), np.asarray(stats.high)
    beyond = BLOW_MARGIN if stats.hop else RANGE_MARGIN
    beyond = beyond * np.maximum(high - low, 1e-6 * np.abs(high) + 1e-12)
    stillest = FLAT_SHARE * np.asarray(stats.spread)
    return Limits(
        spec,
        tuple((low - beyond).tolist()),
        tuple((high + beyond).tolist()),
        tuple(stillest.tolist()),
        _hop_limits(stats.hop, stats.std, margin) if stats.hop else None,
    )


def _hop_limits(stats: HopStats, std: tuple[float, ...], margin: float) -> HopLimits:
    return HopLimits(
        stats=stats,
        level=tuple(
            _wider(low, high, max(margin * LEVEL_MARGIN * (high - low), LEAST_SHIFT * spread))
            for (low, high), spread in zip(stats.level, std, strict=True)
        ),
        roughness=tuple(
            _wider_log(low, high, margin * ROUGHNESS_MARGIN) for low, high in stats.roughness
        ),
        repeats=tuple(r + margin * REPEATS_MARGIN for r in stats.repeats),
        length=_wider_log(*stats.length, margin * LENGTH_MARGIN),
        spikiness=_wider_log(*stats.spikiness, margin * SPIKINESS_MARGIN)[1],
        lean=stats.lean * (1 + margin * LEAN_MARGIN + SLACK),
        per_usual=np.asarray(1 / np.asarray(stats.usual), np.float32),
    )


def _packed(limits: Limits) -> tuple[np.ndarray, np.ndarray]:
    """The same for native/checks.hpp: float64 numbers, and ``per_usual``."""
    hop, nothing = limits.hop, (0.0,) * len(limits.low)
    numbers: tuple[float, ...] = (0.0,) * 4
    rows: tuple[tuple[float, ...], ...] = (nothing,) * 5
    if hop is not None:
        numbers = (*hop.length, hop.spikiness, hop.lean)
        rows = (*zip(*hop.level, strict=True), *zip(*hop.roughness, strict=True), hop.repeats)
    each = np.array([limits.low, limits.high, limits.stillest, *rows], np.float64)
    head = (limits.spec.hop, hop is not None, *numbers)
    per_usual = np.array(nothing, np.float32) if hop is None else hop.per_usual
    return np.concatenate([np.array(head, np.float64), each.ravel()]), per_usual


def _wider(low: float, high: float, extra: float) -> Range:
    extra += SLACK * max(abs(low), abs(high))
    return low - extra, high + extra


def _wider_log(low: float, high: float, margin: float) -> Range:
    """Wider on a logarithmic scale; without bounds for what was always 0 in training."""
    if high <= 0:
        return 0.0, inf
    factor = (high / max(low, 1e-3 * high)) ** margin + SLACK
    return low / factor, high * factor


def check_newest(samples: np.ndarray, fresh: int, honest: int, limits: Limits) -> str | None:
    """All checks of a sensor's newest ``samples`` [n, *sample_shape], n ≥ both counts.

    Args:
        samples: up to the newest.
        fresh: how many of them have not been checked before.
        honest: how many can be believed: where they lie and how they lean is judged of these.
        limits: the sensor's.
    """
    if native.clean(samples, fresh, honest, *limits.for_native):
        return None
    reason = check(samples[len(samples) - fresh :], limits)
    for hops, further in ((2, check_level), (RUN_HOPS, check_run)):
        n = hops * limits.spec.hop
        if reason is None and honest >= n:
            reason = further(samples[len(samples) - n :], limits)
    return reason


def check(samples: np.ndarray, limits: Limits) -> str | None:
    """Why ``samples`` [n, *sample_shape] cannot be believed; None when they can.

    How they move is judged only on a hop's worth of samples or more: fewer may stand still by
    chance.
    """
    n, hop = len(samples), limits.spec.hop
    if samples.ndim > 2:
        samples = samples.swapaxes(0, 1).reshape(samples.shape[1], -1).T
    top, bottom = native.extremes(samples) or (
        np.maximum.reduce(samples).tolist(),
        np.minimum.reduce(samples).tolist(),
    )
    # NaN compares false, so that one comparison catches NaN, Inf and range.
    for t, b, high, low in zip(top, bottom, limits.high, limits.low, strict=True):
        if not (t <= high and b >= low):
            return _not_finite(samples) or _out_of_range(top, bottom, limits)
    if n >= hop > 1:
        for t, b, stillest in zip(top, bottom, limits.stillest, strict=True):
            if t - b < stillest:
                return _flat(top, bottom, limits)
    if limits.hop is not None:
        for end in range(n, hop - 1, -hop):
            reason = _check_motion(samples[end - hop : end], limits, limits.hop)
            if reason is not None:
                return reason
    return None


def check_level(samples: np.ndarray, limits: Limits) -> str | None:
    """As `check`, of where two hops' worth of ``samples`` [2 · hop, C] lie: bias and unit.

    They must have passed `check`.
    """
    if limits.hop is None:
        return None
    levels = native.level(samples) or level(samples).tolist()
    for i, (at, (low, high)) in enumerate(zip(levels, limits.hop.level, strict=True)):
        if not low <= at <= high:
            assert limits.spec.stats is not None
            off = (at - limits.spec.stats.mean[i]) / limits.spec.stats.std[i]
            return f"channel {limits.spec.channels[i]} shifted by {off:+.2g} times its spread"
    low, high = limits.hop.length
    if (size := native.length(samples)) is None:
        size = float(length(samples))
    if not low <= size <= high:
        least, most = limits.hop.stats.length
        if size > high:
            return f"values {size / most:.2g}× the largest of training: wrong scale or unit?"
        return f"values {size / least:.2g}× the smallest of training: wrong scale or unit?"
    return None


def check_run(samples: np.ndarray, limits: Limits) -> str | None:
    """As `check`, of a long run of ``samples`` [RUN_HOPS · hop, C]: a small bias that stays.

    What moves comes back, and gravity is one g: over a long run the mean sample is short.
    They must have passed `check`.
    """
    if limits.hop is None:
        return None
    lean = hypot(*(native.level(samples) or level(samples).tolist()))
    if lean <= limits.hop.lean:
        return None
    return f"values lean {lean / limits.hop.stats.lean:.2g}× the most of training: an offset?"


def _check_motion(samples: np.ndarray, limits: Limits, hop: HopLimits) -> str | None:
    """How one hop [hop, C] moves: noise, spikes, a gain that is lost, samples that repeat."""
    same_shares, roughs, spiky = native.motion(samples, hop.per_usual) or motion(
        samples, hop.per_usual
    )
    rows = zip(same_shares, hop.repeats, roughs, hop.roughness, strict=True)
    for i, (same, most_same, rough, (least, most)) in enumerate(rows):
        if same > most_same:
            return _repeating(samples[:, i], same, limits, i)
        if rough > most:
            usual = rough / hop.stats.usual[i]
            return f"channel {limits.spec.channels[i]}: noise {usual:.2g}× its usual"
        if rough < least:
            share = rough / hop.stats.roughness[i][0]
            return f"channel {limits.spec.channels[i]} {share:.2g}× as lively as ever in training"
    if spiky > hop.spikiness:
        bends = np.abs(steps(steps(samples)))
        return f"spikes {float(np.max(bends * hop.per_usual)):.0f}× its usual roughness"
    return None


def motion(
    samples: np.ndarray, per_usual: np.ndarray
) -> tuple[Sequence[float], Sequence[float], float]:
    """`repeats` and `roughness` per channel, and `spikiness`, of one hop [hop, C]."""
    step = steps(samples)
    bends = np.abs(steps(step))
    return (
        repeats(step).tolist(),
        roughness(bends).tolist(),
        float(spikiness(bends, per_usual)),
    )


def steps(samples: np.ndarray) -> np.ndarray:
    """Differences from sample to sample, [..., n − 1, C]; of these again: how the signal bends."""
    return samples[..., 1:, :] - samples[..., :-1, :]


def repeats(step: np.ndarray) -> np.ndarray:
    """Share of samples that equal the one before, [..., C], of `steps` [..., n, C]."""
    return np.add.reduce(step == 0, -2) / step.shape[-2]


def roughness(bends: np.ndarray) -> np.ndarray:
    """(Mean root)² of second differences [..., n, C], [..., C].

    Noise bends every sample, an honest blow only a few: the root keeps those few from counting
    for all.
    """
    return np.square(np.add.reduce(np.sqrt(bends), -2) / bends.shape[-2])


def spikiness(bends: np.ndarray, per_usual: np.ndarray) -> np.ndarray:
    """The `SPIKES`-th largest second difference [...], of [..., n, C] in units of their usual."""
    worst = np.maximum.reduce(bends * per_usual, -1)
    return np.partition(worst, -SPIKES, -1)[..., -SPIKES]


def level(samples: np.ndarray) -> np.ndarray:
    """Mean of samples [..., n, C] per channel, [..., C]."""
    return np.add.reduce(samples, -2) / samples.shape[-2]


def length(samples: np.ndarray) -> np.ndarray:
    """Mean length of the sample vectors [..., n, C], [...].

    Gravity fixes it for an accelerometer, however it is held: a scale or a unit shows at once.
    """
    return (
        np.add.reduce(np.sqrt(np.einsum("...c,...c->...", samples, samples)), -1)
        / (samples.shape[-2])
    )


def _not_finite(samples: np.ndarray) -> str | None:
    bad = ~np.isfinite(samples)
    if not bad.any():
        return None
    what = "NaN" if np.isnan(samples).any() else "infinite"
    return f"{max(1, round(100 * bad.mean()))} % {what}"


def _out_of_range(top: Sequence[float], bottom: Sequence[float], limits: Limits) -> str:
    assert limits.spec.stats is not None
    low, high = np.asarray(limits.spec.stats.low), np.asarray(limits.spec.stats.high)
    # How far each channel reaches from the middle of its training range, in half widths.
    middle, half = (low + high) / 2, np.maximum((high - low) / 2, 1e-12)
    reach = np.maximum(np.abs(top - middle), np.abs(bottom - middle)) / half
    worst = int(np.argmax(reach))
    return f"channel {limits.spec.channels[worst]} at {reach[worst]:.3g}× its training range"


def _flat(top: Sequence[float], bottom: Sequence[float], limits: Limits) -> str:
    rows = zip(top, bottom, limits.stillest, strict=True)
    still = [i for i, (t, b, least) in enumerate(rows) if t - b < least]
    names = ", ".join(limits.spec.channels[i] for i in still)
    rail = _rail(bottom[still[0]], top[still[0]], limits, still[0])
    return (
        f"channel {names} stuck at its {rail}"
        if rail and len(still) == 1
        else (f"channel {names} flat")
    )


def _repeating(samples: np.ndarray, share: float, limits: Limits, i: int) -> str:
    """Channel ``i`` of a hop in which so many ``samples`` [hop] equal the one before."""
    channel = limits.spec.channels[i]
    if share > NEARLY_FLAT:
        return f"channel {channel} flat"
    for end in (float(samples.max()), float(samples.min())):
        if np.count_nonzero(samples == end) > share * len(samples) / 2:
            rail = _rail(end, end, limits, i)
            return f"channel {channel} cut off at " + (f"its {rail}" if rail else f"{end:.3g}")
    return f"channel {channel} repeats {round(100 * share)} % of its samples"


def _rail(bottom: float, top: float, limits: Limits, i: int) -> str | None:
    """Which end of its training range a channel lies at that moves between these two."""
    assert limits.spec.stats is not None
    if bottom >= limits.spec.stats.high[i] > limits.spec.stats.low[i]:
        return "upper rail"
    if top <= limits.spec.stats.low[i] < limits.spec.stats.high[i]:
        return "lower rail"
    return None
