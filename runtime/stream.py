"""One sensor of one source: frames in, a clean window or the reason for none out."""

from __future__ import annotations

from collections import Counter

import numpy as np

from robult_edge import faults
from robult_edge.frames import Frame
from robult_edge.modality import RUN_HOPS, ModalitySpec
from runtime.liveness import Liveness
from runtime.transport import Transport
from runtime.windows import ClockMap, SampleRing

CLOCK_JITTER_SAMPLES = 2
"""Stamps may be this far off; beyond, the sender's clock has been set."""
DRIFT_TOLERANCE = 0.02
"""A sender's clock that gains or loses more is a lie; less is made good (`ClockMap`)."""
PROBATION_WINDOWS = 8
"""A sensor that lies again this soon after its return is out for a window longer, twice that the
next time, and so on; for as many at most."""


class Stream:
    """A sensor's ring, clock and state.

    Attributes:
        counts: what became of its frames, by `runtime.windows.Placed`; ``lost`` ones left a hole
            in ``seq``, a ``late window`` missed its tick.
        span_ns: time that one of its frames covers.
    """

    def __init__(self, spec: ModalitySpec, limits: faults.Limits) -> None:
        self.spec = spec
        self.ring = SampleRing(spec)
        self.clock = ClockMap()
        self.liveness = Liveness(spec)
        self.counts: Counter[str] = Counter()
        self.span_ns = 0
        self._limits = limits
        self._run = RUN_HOPS * spec.hop
        self._strict = faults.limits(spec, margin=0.0)
        self._in_doubt = False
        self._transport = Transport(limits)
        self._last_seq = -1
        self._last_t_ns = 0
        self._checked_to = -1
        self._lied_to = -1
        self._back_at = -1
        self._quarantine = 0
        self._gap: str | None = None

    def place(self, frame: Frame, now_ns: int) -> None:
        """Take a checked frame in."""
        ring, newest = self.ring, self.ring.newest
        self.liveness.silence(now_ns)
        sender_is_new = self.liveness.state == "stale" and frame.seq <= self._last_seq
        if self._steps_back(frame) or (sender_is_new and ring.index_at(frame.t_ns) <= newest):
            placed = ring.restart(frame)
        else:
            placed = ring.place(frame)
            if placed == "gap" and self._steps_ahead(now_ns):
                placed = "clock step"
        self.counts[placed] += 1
        if placed == "late":  # these samples were not there when their hop was checked
            self._checked_to = min(self._checked_to, ring.index_at(frame.t_ns) - 1)
        if placed in ("late", "duplicate"):
            return
        self._transport.observe(frame, placed == "fresh" and frame.seq == self._last_seq + 1)
        if frame.seq > self._last_seq + 1 and self._last_seq >= 0:
            self.counts["lost"] += frame.seq - self._last_seq - 1
        self._last_seq, self._last_t_ns = frame.seq, frame.t_ns
        if placed == "clock step":
            self.clock.reset()
        if placed != "fresh":
            self._gap = placed
        self.span_ns = len(frame.samples) * self.spec.period_ns
        self.clock.observe(ring.time_of(ring.newest), now_ns)
        self.liveness.fresh(now_ns)
        if abs(self.clock.drift) > DRIFT_TOLERANCE:
            pace = "slow" if self.clock.drift > 0 else "fast"
            self.distrust(f"its clock runs {abs(self.clock.drift):.1%} {pace}")

    def distrust(self, reason: str) -> None:
        """Take the sensor out: nothing that it has sent so far can be believed."""
        end = self.ring.newest
        if self.liveness.alive:
            again = (
                self._back_at >= 0 and end - self._back_at < PROBATION_WINDOWS * self.spec.window
            )
            self._quarantine = max(self.spec.window, 2 * self._quarantine) if again else 0
            self._quarantine = min(self._quarantine, PROBATION_WINDOWS * self.spec.window)
        self._lied_to = end + self._quarantine
        self._in_doubt = True
        self.liveness.lie(reason)

    def due_index(self, tick_ns: int) -> int | None:
        """Index of the last sample of the window that ends at ``tick_ns``; None until it is in."""
        index = self.ring.index_at(tick_ns - self.clock.offset_ns)
        return index if index <= self.ring.newest else None

    def awaited(self, tick_ns: int, now_ns: int) -> bool:
        """Whether the tick that ends at ``tick_ns`` is to wait for this sensor.

        For one that is alive, and for one whose frames come and whose window may be whole by then:
        else a sensor whose frames are always the last to come could never come back.
        """
        if self.liveness.alive:
            return True
        if not self.liveness.heard(now_ns):
            return False
        first = self.ring.index_at(tick_ns - self.clock.offset_ns) - self.spec.window + 1
        return first >= self.ring.oldest_solid and first > self._lied_to

    def clean_window(self, end: int) -> np.ndarray | None:
        """The window that ends with sample ``end``, if it is whole and plausible."""
        if not self._believable(end):
            return None
        if not self.ring.has_window(end) or end - self.spec.window < self._lied_to:
            self._say_broken(end)
            return None
        if self.liveness.state == "faulty":
            self._back_at = end
        self.liveness.clean_window()
        self._in_doubt = False
        self._gap = None
        return self.ring.window(end)

    def say_returning(self, now_ns: int) -> None:
        """Say how much of a clean window has come from a sensor that is on its way back."""
        if not self.liveness.alive and self.liveness.heard(now_ns):
            self._say_broken(self.ring.newest)

    def _steps_back(self, frame: Frame) -> bool:
        """Whether a later frame claims to be older than the one before it."""
        if frame.t_ns >= self._last_t_ns:
            return False
        few = len(frame.samples) <= CLOCK_JITTER_SAMPLES
        jitter_ns = CLOCK_JITTER_SAMPLES * self.spec.period_ns if few else 0
        return 0 <= self._last_seq < frame.seq and frame.t_ns < self._last_t_ns - jitter_ns

    def _steps_ahead(self, now_ns: int) -> bool:
        """Whether the newest sample claims to have been captured well after it was received."""
        early_ns = self.clock.offset_ns - (now_ns - self.ring.time_of(self.ring.newest))
        return early_ns > self.span_ns + CLOCK_JITTER_SAMPLES * self.spec.period_ns

    def _believable(self, end: int) -> bool:
        """Check what has not been checked of the window, and at least one hop of it."""
        solid_from = self.ring.oldest_solid
        window_from = max(solid_from, end - self.spec.window + 1)
        first = max(window_from, min(self._checked_to + 1, end - self.spec.hop + 1))
        if first > end:
            return True
        limits = self._strict if self._in_doubt else self._limits
        honest_from = max(solid_from, self._lied_to + 1, end - self._run + 1)
        reason = self._transport.lie or faults.check_newest(
            self.ring.samples(min(first, honest_from), end),
            end - first + 1,
            end - honest_from + 1,
            limits,
        )
        self._checked_to = end
        if reason is None:
            return True
        self.distrust(reason)
        return False

    def _say_broken(self, end: int) -> None:
        clean_from = max(self.ring.oldest_solid, self._lied_to + 1)
        filled = (end - clean_from + 1) / self.spec.window
        self.liveness.broken_window(min(1.0, max(0.0, filled)), self._gap)
