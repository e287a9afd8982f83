"""All sensors of all sources: what came in, what is alive now, and which tick is due."""

from __future__ import annotations

from collections import Counter

import numpy as np

from robult_edge import faults
from robult_edge.bundle import Manifest
from robult_edge.errors import FrameError
from robult_edge.frames import Frame
from robult_edge.modality import ModalitySpec
from runtime.liveness import Liveness
from runtime.windows import ClockMap, SampleRing

CATCH_UP_TICKS = 64
"""A runtime that slept longer than this many hops skips to the present; ``seq`` shows the hole."""


class Stream:
    """One sensor of one source: its ring, its clock, its state, and what became of its frames."""

    def __init__(self, spec: ModalitySpec, limits: faults.Limits) -> None:
        self.spec = spec
        self.ring = SampleRing(spec)
        self.clock = ClockMap()
        self.liveness = Liveness(spec)
        self.counts: Counter[str] = Counter()
        self.span_ns = 0
        self._limits = limits
        self._last_seq = -1
        self._checked_to = -1
        self._lied_to = -1
        self._gap: str | None = None

    def place(self, frame: Frame, now_ns: int) -> None:
        """Take a checked frame in."""
        ring, newest = self.ring, self.ring.newest
        self.liveness.silence(now_ns)
        sender_is_new = self.liveness.state == "stale" and frame.seq <= self._last_seq
        if sender_is_new and ring.index_at(frame.t_ns) <= newest:
            placed = ring.restart(frame)
        else:
            placed = ring.place(frame)
        self.counts[placed] += 1
        if placed == "late":  # these samples were not there when their hop was checked
            self._checked_to = min(self._checked_to, ring.index_at(frame.t_ns) - 1)
        if placed in ("late", "duplicate"):
            return
        if frame.seq > self._last_seq + 1 and self._last_seq >= 0:
            self.counts["lost"] += frame.seq - self._last_seq - 1
        self._last_seq = frame.seq
        if placed == "clock step":
            self.clock.reset()
        if placed != "fresh":
            self._gap = placed
        self.span_ns = len(frame.samples) * self.spec.period_ns
        self.clock.observe(ring.time_of(ring.newest), now_ns)
        self.liveness.fresh(now_ns)

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
        self.liveness.clean_window()
        self._gap = None
        return self.ring.window(end)

    def say_returning(self, now_ns: int) -> None:
        """Say how much of a clean window has come from a sensor that is on its way back."""
        if not self.liveness.alive and self.liveness.heard(now_ns):
            self._say_broken(self.ring.newest)

    def _believable(self, end: int) -> bool:
        """Check what has not been checked of the window, and at least one hop of it."""
        window_from = max(self.ring.oldest_solid, end - self.spec.window + 1)
        first = max(window_from, min(self._checked_to + 1, end - self.spec.hop + 1))
        if first > end:
            return True
        reason = faults.check(self.ring.samples(first, end), self._limits)
        self._checked_to = end
        if reason is None:
            return True
        self._lied_to = end
        self.liveness.lie(reason)
        return False

    def _say_broken(self, end: int) -> None:
        clean_from = max(self.ring.oldest_solid, self._lied_to + 1)
        filled = (end - clean_from + 1) / self.spec.window
        self.liveness.broken_window(min(1.0, max(0.0, filled)), self._gap)


class Tick:
    """What has come together for one answer of one source.

    Attributes:
        end_ns: where its windows end, on the runtime's clock.
        opened_ns: when its first window was complete; None before.
        deadline_ns: when the answer goes out at the latest; set once, when it opens.
        logits, h: [M, K] and [M, d] float32 of the branches that are in.
        ends_ns: per modality, capture time of its window's last sample on the sensor's clock.
        settled: per modality, whether its window was seen (used or refused).
    newest_ns: when its last window was complete.
    infer_ns: time spent in branches so far.
    mask: the branches that are in.
    """

    def __init__(self, end_ns: int, modalities: int, classes: int, width: int) -> None:
        self.end_ns = end_ns
        self.opened_ns: int | None = None
        self.deadline_ns = 0
        self.newest_ns = 0
        self.infer_ns = 0
        self.mask = 0
        self.logits = np.zeros((modalities, classes), np.float32)
        self.h = np.zeros((modalities, width), np.float32)
        self.ends_ns: list[int | None] = [None] * modalities
        self.settled = [False] * modalities


class Rig:
    """One source: its sensors and the tick it is at."""

    def __init__(
        self, source: str, manifest: Manifest, limits: tuple[faults.Limits, ...], now_ns: int
    ) -> None:
        self.source = source
        self.seq = 0
        self.hop_ns = manifest.hop_ns
        self.streams = tuple(
            Stream(m, limit) for m, limit in zip(manifest.modalities, limits, strict=True)
        )
        self._shape = (len(manifest.modalities), len(manifest.classes), manifest.width)
        self.tick = Tick(now_ns - now_ns % self.hop_ns + self.hop_ns, *self._shape)

    def next_tick(self, now_ns: int) -> None:
        """Go on to the next tick; after a long sleep, to the present."""
        behind = max(0, (now_ns - self.tick.end_ns) // self.hop_ns)
        step = 1 if behind <= CATCH_UP_TICKS else behind
        self.seq += step
        self.tick = Tick(self.tick.end_ns + step * self.hop_ns, *self._shape)

    def open(self, now_ns: int, patience_ns: int) -> None:
        """The tick's first window is complete: set its deadline, once.

        A sensor that sends every 200 ms cannot be due sooner, so the deadline counts from when the
        slowest sensor awaited was to send, if that is later than now.
        """
        if self.tick.opened_ns is None:
            end_ns = self.tick.end_ns
            slowest_ns = max(
                (s.span_ns for s in self.streams if s.awaited(end_ns, now_ns)), default=0
            )
            self.tick.opened_ns = now_ns
            self.tick.deadline_ns = max(now_ns, self.tick.end_ns + slowest_ns) + patience_ns

    @property
    def due_ns(self) -> int:
        """When the tick must be answered, whatever has come."""
        if self.tick.opened_ns is not None:
            return self.tick.deadline_ns
        slowest_ns = max(s.span_ns for s in self.streams)
        return self.tick.end_ns + max(self.hop_ns, slowest_ns + slowest_ns // 2)

    def is_due(self, now_ns: int) -> bool:
        """Whether the tick is to be answered now: all alive are in, or the time is up."""
        return self.complete(now_ns) or now_ns >= self.due_ns

    def complete(self, now_ns: int) -> bool:
        """Whether every sensor that is awaited has had its say."""
        return self.tick.opened_ns is not None and all(
            settled or not stream.awaited(self.tick.end_ns, now_ns)
            for settled, stream in zip(self.tick.settled, self.streams, strict=True)
        )

    def windows(self, now_ns: int, patience_ns: int) -> list[tuple[int, np.ndarray]]:
        """Windows of this tick that have become complete: (modality index, window view)."""
        tick, found = self.tick, []
        for i, stream in enumerate(self.streams):
            if tick.settled[i] or stream.ring.newest < 0:
                continue
            end = stream.due_index(tick.end_ns)
            if end is None:
                stream.say_returning(now_ns)
                continue
            tick.settled[i] = True
            window = stream.clean_window(end)
            if window is not None:
                self.open(now_ns, patience_ns)
                tick.newest_ns = now_ns
                tick.ends_ns[i] = stream.ring.time_of(end)
                found.append((i, window))
        return found


class Rigs:
    """All sources. One place creates them, and keeps their number bounded."""

    def __init__(self, manifest: Manifest, max_sources: int) -> None:
        self.rigs: dict[str, Rig] = {}
        self._manifest = manifest
        self._max_sources = max_sources
        self._index = {name: i for i, name in enumerate(manifest.names)}
        self._limits = tuple(faults.limits(m) for m in manifest.modalities)

    def place(self, frame: Frame, now_ns: int) -> Rig:
        """Give a frame to its sensor.

        Raises:
            FrameError: one source too many.
        """
        rig = self.rigs.get(frame.source)
        if rig is None:
            if len(self.rigs) >= self._max_sources:
                raise FrameError(
                    "sources",
                    f"source {frame.source!r} refused: {len(self.rigs)} are served; "
                    "serve more with --max-sources",
                )
            rig = Rig(frame.source, self._manifest, self._limits, now_ns)
            self.rigs[frame.source] = rig
        rig.streams[self._index[frame.modality]].place(frame, now_ns)
        return rig

    def next_due_ns(self) -> int | None:
        """When the next answer is due, whatever comes; None without sources."""
        return min((rig.due_ns for rig in self.rigs.values()), default=None)
