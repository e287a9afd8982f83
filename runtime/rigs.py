"""All sensors of all sources: what came in, what is alive now, and which tick is due."""

from __future__ import annotations

import numpy as np

from robult_edge import faults
from robult_edge.bundle import Manifest
from robult_edge.errors import FrameError
from robult_edge.frames import Frame
from runtime.contradiction import Contradiction
from runtime.stream import Stream

CATCH_UP_TICKS = 64
"""A runtime that slept longer than this many hops skips to the present; ``seq`` shows the hole."""


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
        infer_ns: time spent in branches and head so far.
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
        self.contradiction = Contradiction()
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
