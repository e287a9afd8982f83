"""Frames into a ring, windows out of it.

Samples are kept by index: sample j of a sensor was captured at ``epoch_ns + j · period`` on the
sender's clock. So a late frame finds its place, a duplicate finds it taken, and a lost one leaves a
hole that shows.
"""

from __future__ import annotations

from math import floor
from typing import Literal

import numpy as np

from robult_edge.frames import Frame
from robult_edge.modality import ModalitySpec

SNAP = 0.75
"""A frame this close (in samples) to where the last one ended follows it: jitter, not a gap."""
MEND_SHARE = 0.04
"""Holes up to this share of a window are bridged by a straight line; longer ones restart it."""

Placed = Literal["fresh", "late", "duplicate", "gap", "clock step"]
"""What became of a frame: ``late`` filled a hole; ``gap`` and ``clock step`` (the sender's clock
went back) are fresh, but the window starts anew."""


class SampleRing:
    """The newest samples of one sensor.

    Attributes:
        newest: index of the newest sample, −1 before the first.
        solid_from: every sample in [solid_from, newest] is there, or was bridged.
    """

    def __init__(self, spec: ModalitySpec) -> None:
        self.spec = spec
        self.capacity = spec.capacity
        self.newest = -1
        self.solid_from = 0
        self.epoch_ns = 0
        self._period_ns = 1e9 / spec.rate_hz
        self._mend = int(MEND_SHARE * spec.window)
        # Every sample is written twice, a capacity apart, so that any window is one slice.
        self._samples = np.zeros((2 * self.capacity, *spec.sample_shape), np.float32)
        self._filled = np.zeros(2 * self.capacity, bool)

    def place(self, frame: Frame) -> Placed:
        """Write a frame's samples where they belong in time."""
        expected = self.newest + 1
        offset = (frame.t_ns - self.epoch_ns) / self._period_ns if self.newest >= 0 else 0.0
        if abs(offset - expected) <= SNAP:
            first: int = expected
            self._set_epoch(frame.t_ns, first)
        else:
            first = round(offset)
        if first > expected + self.capacity:
            self._restart(frame)
            return "gap"
        if first < expected - self.capacity:
            self._restart(frame)
            return "clock step"
        if first + len(frame.samples) <= expected:
            return self._fill_hole(first, frame.samples)
        if first < expected:
            self._write(expected, frame.samples[expected - first :])
            return "fresh"
        hole = first - expected
        if hole:
            self._bridge(expected, first, frame.samples[0])
        self._write(first, frame.samples)
        if hole > self._mend:
            self.solid_from = first
            return "gap"
        return "fresh"

    def restart(self, frame: Frame) -> Placed:
        """Take ``frame`` as the first of a sender whose clock went back."""
        self._restart(frame)
        return "clock step"

    def has_window(self, end: int) -> bool:
        """Whether the window whose last sample is ``end`` is whole."""
        return end - self.spec.window + 1 >= self.oldest_solid

    @property
    def oldest_solid(self) -> int:
        """The oldest sample that is kept with no hole between it and the newest."""
        return max(self.solid_from, self.newest - self.capacity + 1)

    def window(self, end: int) -> np.ndarray:
        """The window [*window_shape] whose last sample is ``end``: a view, to be used at once."""
        samples = self.samples(end - self.spec.window + 1, end)
        return samples[0] if self.spec.size else samples.T

    def samples(self, first: int, last: int) -> np.ndarray:
        """Samples ``first`` to ``last``, both included, [n, *sample_shape]: a view."""
        at = first % self.capacity
        return self._samples[at : at + last - first + 1]

    def index_at(self, t_ns: int) -> int:
        """Index of the last sample captured at or before ``t_ns`` on the sender's clock."""
        return floor((t_ns - self.epoch_ns) / self._period_ns)

    def time_of(self, index: int) -> int:
        """When sample ``index`` was captured, ns on the sender's clock."""
        return self.epoch_ns + round(index * self._period_ns)

    def _set_epoch(self, t_ns: int, index: int) -> None:
        self.epoch_ns = t_ns - round(index * self._period_ns)

    def _restart(self, frame: Frame) -> None:
        # Indices only ever rise: what held the old ones stays valid, and nothing old is reused.
        first = self.newest + 1 + self.capacity
        self._set_epoch(frame.t_ns, first)
        self._filled[:] = False
        self.solid_from = first
        self._write(first, frame.samples)

    def _write(self, first: int, samples: np.ndarray) -> None:
        n, at = len(samples), first % self.capacity
        last = at + n
        self._samples[at:last] = samples
        self._filled[at:last] = True
        if last <= self.capacity:
            self._samples[at + self.capacity : last + self.capacity] = samples
            self._filled[at + self.capacity : last + self.capacity] = True
        else:
            wrap = self.capacity - at
            self._samples[at + self.capacity :] = samples[:wrap]
            self._filled[at + self.capacity :] = True
            self._samples[: n - wrap] = samples[wrap:]
            self._filled[: n - wrap] = True
        self.newest = max(self.newest, first + n - 1)

    def _bridge(self, first: int, then: int, following: np.ndarray) -> None:
        """Draw a line over the hole [first, then); the samples stay marked as not filled."""
        hole = then - first
        where = np.arange(first, then) % self.capacity
        if 0 < hole <= self._mend and first > 0:
            share = np.arange(1, hole + 1, dtype=np.float32) / (hole + 1)
            before = self.samples(first - 1, first - 1)[0]
            line = before + np.multiply.outer(share, following - before)
            self._samples[where] = line
            self._samples[where + self.capacity] = line
        self._filled[where] = False
        self._filled[where + self.capacity] = False

    def _fill_hole(self, first: int, samples: np.ndarray) -> Placed:
        where = np.arange(first, first + len(samples)) % self.capacity
        open_ = ~self._filled[where] & (np.arange(len(where)) + first > self.newest - self.capacity)
        if not open_.any():
            return "duplicate"
        for at in (where[open_], where[open_] + self.capacity):
            self._samples[at] = samples[open_]
            self._filled[at] = True
        self.solid_from = self._solid_from()
        return "late"

    def _solid_from(self) -> int:
        """Where the run of samples that ends with the newest begins, short holes bridged anew."""
        oldest = max(0, self.newest - self.capacity + 1)
        at = oldest % self.capacity
        missing = np.flatnonzero(~self._filled[at : at + self.newest - oldest + 1]) + oldest
        solid_from = oldest
        for hole in np.split(missing, np.flatnonzero(np.diff(missing) > 1) + 1):
            if not len(hole):
                continue
            first, then = int(hole[0]), int(hole[-1]) + 1
            if len(hole) > self._mend or first == oldest:
                solid_from = then
            else:
                self._bridge(first, then, self.samples(then, then)[0])
        return solid_from


class ClockMap:
    """Maps a sender's clock to the runtime's by the least (receive − capture) seen of late.

    The least delay is the one with the least queueing in it. Two half-spans are kept, so that a
    drifting clock is followed within `SPAN_NS`; one that drifts by more than `LEAST_DRIFT`, at
    once.

    Attributes:
        drift: by how much of real time the sender's clock falls behind (above 0) or gains, if it
            did so over the last two half-spans alike; else 0.
    """

    SPAN_NS = 10_000_000_000
    LEAST_DRIFT = 0.002
    """Within a span, less makes no more difference than queues do."""
    UNKNOWN = 1 << 63

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget: the sender's clock is a new one."""
        self._now = self._before = (self.UNKNOWN, 0)
        self._turn_ns = self._received_ns = 0
        self._pace = self.drift = 0.0

    def observe(self, captured_ns: int, received_ns: int) -> None:
        """Learn from a frame whose last sample was captured and received at these times."""
        if received_ns >= self._turn_ns:
            self._measure_drift()
            self._before, self._now = self._now, (self.UNKNOWN, received_ns)
            self._turn_ns = received_ns + self.SPAN_NS // 2
        self._now = min(self._now, (received_ns - captured_ns, received_ns))
        self._received_ns = received_ns

    def _measure_drift(self) -> None:
        """From one half-span's least delay to the next one's; queues come and go, drift stays."""
        (least_before, before_ns), (least_now, now_ns) = self._before, self._now
        last, self._pace = self._pace, 0.0
        if max(least_before, least_now) < self.UNKNOWN:
            self._pace = (least_now - least_before) / (now_ns - before_ns)
        drift = min(last, self._pace, key=abs) if last * self._pace > 0 else 0.0
        self.drift = drift if abs(drift) > self.LEAST_DRIFT else 0.0

    @property
    def offset_ns(self) -> int:
        """What to add to the sender's time to have the runtime's."""
        if not self.drift:
            return min(self._now, self._before)[0]
        return min(
            least + round(self.drift * (self._received_ns - at_ns))
            for least, at_ns in (self._now, self._before)
        )
