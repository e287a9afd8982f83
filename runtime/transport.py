"""Lies that no single hop shows: frames that repeat themselves, samples at a wrong rate."""

from __future__ import annotations

import numpy as np

from robult_edge.faults import Limits
from robult_edge.frames import Frame

RATE_TOLERANCE = 0.08
"""A rate this far off is a lie; the clock map and the ring's mending take what is less."""
RUN_MARGIN = 2
"""Where training tells how many samples in a row may be the same: so many times as many."""
RATE_SPAN_S = 0.5
"""The shortest time over which a rate is measured: stamps jitter by milliseconds."""


class Transport:
    """What a sensor's frames have in common with the ones before.

    Attributes:
        lie: what is wrong with them, in a technician's words; None when nothing is.
    """

    def __init__(self, limits: Limits) -> None:
        spec = limits.spec
        self.lie: str | None = None
        self._rate_hz = spec.rate_hz
        self._hop = spec.hop
        self._span = max(spec.hop, round(RATE_SPAN_S * spec.rate_hz))
        self._judges_hops = (
            spec.hop > 1 and spec.size is None and any(s > 0 for s in limits.stillest)
        )
        self._longest_run = _longest_run(limits, self._judges_hops)
        self._before = b""
        self._same = 0
        self._since_ns = 0
        self._counted = 0
        self._wrong_rate: str | None = None

    def observe(self, frame: Frame, follows: bool) -> None:
        """Learn from a new frame; ``follows`` when it is the next one and leaves no gap."""
        self._measure_rate(frame, follows)
        self.lie = self._frozen(frame) or self._wrong_rate

    def _frozen(self, frame: Frame) -> str | None:
        """Whether too many samples have been one payload over and over."""
        if self._longest_run is None:
            return None
        payload = frame.samples.tobytes()  # compared faster than arrays
        self._same = self._same + 1 if payload == self._before else 0
        self._before = payload
        if self._same * len(frame.samples) < self._longest_run:
            return None
        # One value all along, or NaN, is told better by the check of the hop.
        still = self._judges_hops and (frame.samples == frame.samples[0]).all()
        if still or not np.isfinite(frame.samples).all():
            return None
        return f"payload frozen: {self._same + 1} frames the same"

    def _measure_rate(self, frame: Frame, follows: bool) -> None:
        """Samples per second by the sender's own stamps, over no less than a hop."""
        if follows and self._counted >= self._span:
            rate_hz = self._counted / max(1e-9, (frame.t_ns - self._since_ns) / 1e9)
            wrong = abs(rate_hz / self._rate_hz - 1) > RATE_TOLERANCE
            self._wrong_rate = (
                f"samples arrive at {rate_hz:.3g} Hz instead of {self._rate_hz:g}"
                if wrong
                else None
            )
            self._counted = 0
        if not follows:
            self._counted, self._wrong_rate = 0, None
        if not self._counted:
            self._since_ns = frame.t_ns
        self._counted += len(frame.samples)


def _longest_run(limits: Limits, judges_hops: bool) -> int | None:
    """How many samples may be one payload over and over; None if any number may."""
    spec = limits.spec
    if judges_hops:
        return spec.hop
    if spec.stats is None or spec.stats.longest_run is None:
        return None
    return RUN_MARGIN * spec.stats.longest_run
