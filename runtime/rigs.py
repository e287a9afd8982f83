"""All sensors of all sources: what came in, what is alive now, and which tick is due."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from math import prod

import numpy as np

from robult_edge import faults
from robult_edge.bundle import Manifest
from robult_edge.errors import FrameError
from robult_edge.frames import Frame
from robult_edge.modality import ModalitySpec
from robult_edge.results import Result
from runtime.contradiction import Contradiction
from runtime.stream import Stream

FRAMES_PER_SAMPLE = 4
"""A sensor may send this many frames for every sample that it takes."""
BURST_NS = 10_000_000_000
"""And what it may send in this time all at once, after the network stood still;"""
BURST_FRAMES = 64
"""a slow one, this many."""
CATCH_UP_TICKS = 64
"""A runtime that slept longer than this many hops skips to the present; ``seq`` shows the hole."""


class Tick:
    """What has come together for one answer of one source.

    Attributes:
        end_ns: where its windows end, on the runtime's clock.
        opened_ns: when its first window was complete; None before.
        logits, h: [M, K] and [M, d] float32 of the branches that are in.
        ends_ns: per modality, capture time of its window's last sample on the sensor's clock.
        settled: per modality, whether its window was seen (used or refused).
        newest_ns: when its last window was complete.
        infer_ns: time spent in branches and head so far.
        mask: the branches that are in.
        held: modalities whose windows wait for the device to answer all of them in one go.
        fused: what it made of them, [K] and [M][K]: see `runtime.tick.Decider.probabilities`.
        windows: per modality, the window that its branch answers to.
        doubts: why a branch that had been in is left out, by modality.
    """

    def __init__(self, end_ns: int, modalities: int, classes: int, width: int) -> None:
        self.end_ns = end_ns
        self.opened_ns: int | None = None
        self.newest_ns = 0
        self.infer_ns = 0
        self.mask = 0
        self.logits = np.zeros((modalities, classes), np.float32)
        self.h = np.zeros((modalities, width), np.float32)
        self.ends_ns: list[int | None] = [None] * modalities
        self.windows: dict[int, np.ndarray] = {}
        self.doubts: dict[int, str] = {}
        self.settled = [False] * modalities
        self.held: set[int] = set()
        self.fused: tuple[list[float], list[list[float]]] | None = None

    def hold(self, i: int, window: np.ndarray) -> None:
        """Keep a window until the tick is answered; its ring goes on meanwhile."""
        self.windows[i] = window.copy()
        self.held.add(i)
        self.mask |= 1 << i


class Rig:
    """One source: its sensors and the tick it is at.

    Attributes:
        seq: of the answer to come.
        latest: the newest answer, for whoever looks at it.
        left_out: why a sensor that is alive may have no part in an answer.
        due_ns: when the tick must be answered, whatever has come.
        has_news: a frame came since the rig was last looked at.
        heard_ns: when its newest frame came.
        ever_alive: whether it has had an answer.
    """

    left_out = "late for this tick"

    def __init__(
        self, source: str, manifest: Manifest, limits: tuple[faults.Limits, ...], now_ns: int
    ) -> None:
        self.source = source
        self.seq = 0
        self.latest: Result | None = None
        self.hop_ns = manifest.hop_ns
        self.streams = tuple(
            Stream(m, limit) for m, limit in zip(manifest.modalities, limits, strict=True)
        )
        self.contradiction = Contradiction()
        self._shape = (len(manifest.modalities), len(manifest.classes), manifest.width)
        self.tick = Tick(now_ns - now_ns % self.hop_ns + self.hop_ns, *self._shape)
        self.plan()
        self.has_news = False
        self.heard_ns = now_ns
        self.ever_alive = False
        self._paid_ns = [0] * len(self.streams)  # until when a sensor's frames so far are paid for
        self._set_prices(manifest)

    def place(self, i: int, frame: Frame, now_ns: int) -> None:
        """Give a frame to its sensor, the ``i``-th.

        Raises:
            FrameError: it sends more frames than it can have samples for.
        """
        paid_ns = max(self._paid_ns[i], now_ns) + self._cost_ns[i]
        if paid_ns > now_ns + self._burst_ns[i]:
            raise FrameError(
                "rate",
                f"{frame.modality} of source {self.source!r} sends more than "
                f"{FRAMES_PER_SAMPLE} frames per sample",
            )
        self._paid_ns[i] = paid_ns
        stream = self.streams[i]
        span_ns = stream.span_ns
        stream.place(frame, now_ns)
        self.has_news, self.heard_ns = True, now_ns
        if stream.span_ns != span_ns:
            self.plan()

    def _set_prices(self, manifest: Manifest) -> None:
        """Set what one more frame costs each sensor, and how much of that it may owe."""
        self._cost_ns = [m.period_ns // FRAMES_PER_SAMPLE for m in manifest.modalities]
        self._burst_ns = [max(BURST_NS, BURST_FRAMES * cost_ns) for cost_ns in self._cost_ns]

    def plan(self) -> None:
        """Set how long after its end a tick without windows is due."""
        self._longest_period_ns = max(s.spec.period_ns for s in self.streams)
        slowest_ns = max(s.span_ns for s in self.streams)
        self._slack_ns = max(self.hop_ns, slowest_ns + slowest_ns // 2)
        if self.tick.opened_ns is None:
            self.due_ns = self.tick.end_ns + self._slack_ns

    def adopt(
        self, manifest: Manifest, limits: tuple[faults.Limits, ...], now_ns: int
    ) -> list[Stream]:
        """Go on under another bundle; the streams that ended.

        ``seq`` goes on, and so do sensors whose spec is unchanged, with all they hold. What the old
        branches said of the tick at hand is dropped, and its windows are taken from the rings
        again: an answer rests on one bundle. Its deadline stands.
        """
        paid_ns = dict(zip(self.streams, self._paid_ns, strict=True))
        named = {stream.spec.name: stream for stream in paid_ns}
        kept = [named.get(m.name) for m in manifest.modalities]
        self.streams = tuple(
            stream if stream is not None and stream.spec == m else Stream(m, limit)
            for stream, m, limit in zip(kept, manifest.modalities, limits, strict=True)
        )
        self._paid_ns = [paid_ns.get(stream, 0) for stream in self.streams]
        self._set_prices(manifest)
        self._shape = (len(manifest.modalities), len(manifest.classes), manifest.width)
        tick = self.tick
        if manifest.hop_ns == self.hop_ns:
            self.tick = Tick(tick.end_ns, *self._shape)
            self.tick.opened_ns, self.tick.newest_ns = tick.opened_ns, tick.newest_ns
        else:
            self.hop_ns = manifest.hop_ns
            self.tick = Tick(now_ns - now_ns % self.hop_ns + self.hop_ns, *self._shape)
        self.plan()
        self.has_news = True
        return [stream for stream in paid_ns if stream not in self.streams]

    def next_tick(self, now_ns: int) -> None:
        """Go on to the next tick; after a long sleep, to the present."""
        behind = max(0, (now_ns - self.tick.end_ns) // self.hop_ns)
        step = 1 if behind <= CATCH_UP_TICKS else behind
        self.seq += step
        self.tick = Tick(self.tick.end_ns + step * self.hop_ns, *self._shape)
        self.due_ns = self.tick.end_ns + self._slack_ns

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
            self.due_ns = max(now_ns, self.tick.end_ns + slowest_ns) + patience_ns

    def may_be_behind(self, now_ns: int) -> bool:
        """Whether windows of this tick can be here already.

        No sample is mapped to a time after it was received, and a window is complete with the last
        sample before the tick's end.
        """
        return self.tick.end_ns <= now_ns + self._longest_period_ns

    def is_due(self, now_ns: int) -> bool:
        """Whether the tick is to be answered now: all alive are in, or the time is up."""
        return self.complete(now_ns) or now_ns >= self.due_ns

    def complete(self, now_ns: int) -> bool:
        """Whether every sensor that is awaited has had its say."""
        return self.tick.opened_ns is not None and all(
            settled or not stream.awaited(self.tick.end_ns, now_ns)
            for settled, stream in zip(self.tick.settled, self.streams, strict=True)
        )

    def close(self, now_ns: int) -> None:
        """Look at the clock before the tick is answered: who is silent, and who is late."""
        self.ever_alive |= self.tick.mask > 0
        for stream, settled in zip(self.streams, self.tick.settled, strict=True):
            stream.liveness.silence(now_ns)
            if stream.liveness.alive and not settled:
                stream.counts["late window"] += 1
        self.tick.settled = [True] * len(self.streams)  # another thread may close it again

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
    """All sources. One place creates and forgets them, and keeps their number bounded.

    A served source loses its place to nobody: it has to be silent for ``idle_ns``. One that never
    had an answer loses it sooner, once it has been silent for as long as its first answer may
    take, so that names that somebody made up do not fill the house.

    Args:
        manifest: of the bundle.
        max_sources: kept at once.
        idle_ns: silence after which a source is forgotten.
        rig: makes a source's rig, as `Rig` does.

    Attributes:
        forgotten: how many sources were.
        ended: per modality, what became of the frames of streams that are no more.
        moves: rises as streams go over to ``ended``, and is odd meanwhile.
    """

    def __init__(
        self,
        manifest: Manifest,
        max_sources: int,
        idle_ns: int = 1 << 62,
        rig: Callable[[str, Manifest, tuple[faults.Limits, ...], int], Rig] = Rig,
    ) -> None:
        self.rigs: dict[str, Rig] = {}
        self.forgotten = self.moves = 0
        self.ended: dict[str, Counter[str]] = {}
        self._least_idle_ns = idle_ns
        self._make = rig
        self.adopt(manifest, max_sources, 0)

    def adopt(self, manifest: Manifest, max_sources: int, now_ns: int) -> None:
        """Serve another bundle; see `Rig.adopt`."""
        self._manifest = manifest
        self._max_sources = max_sources
        self._trial_ns = max(_trial_ns(m) for m in manifest.modalities)
        self._idle_ns = max(self._least_idle_ns, self._trial_ns)
        self._index = {name: i for i, name in enumerate(manifest.names)}
        self._limits = tuple(faults.limits(m) for m in manifest.modalities)
        self.moves += 1
        for rig in self.rigs.values():
            self._end(rig.adopt(manifest, self._limits, now_ns))
        self.moves += 1

    def place(self, frame: Frame, now_ns: int) -> Rig:
        """Give a frame to its sensor.

        Raises:
            FrameError: one source too many, or more frames than the sensor has samples for.
        """
        rig = self.rigs.get(frame.source)
        if rig is None:
            if len(self.rigs) >= self._max_sources:
                raise FrameError(
                    "sources",
                    f"source {frame.source!r} refused: {len(self.rigs)} are served; "
                    "serve more with --max-sources, or a larger max_memory_mb in the policy",
                )
            rig = self._make(frame.source, self._manifest, self._limits, now_ns)
            self.rigs[frame.source] = rig
        rig.place(self._index[frame.modality], frame, now_ns)
        return rig

    def waiting(self, now_ns: int) -> list[Rig]:
        """The rigs to look at: those with news, and those whose answer is due.

        A due source that has been silent for too long is forgotten in place of being answered.
        """
        found = [rig for rig in self.rigs.values() if rig.has_news or rig.due_ns <= now_ns]
        for rig in found:
            rig.has_news = False
            least_ns = self._idle_ns if rig.ever_alive else self._trial_ns
            if now_ns - rig.heard_ns > least_ns:
                self.moves += 1
                del self.rigs[rig.source]
                self._end(rig.streams)
                self.forgotten += 1
                self.moves += 1
        return [rig for rig in found if rig.source in self.rigs]

    def next_due_ns(self) -> int | None:
        """When the next answer is due, whatever comes; None without sources."""
        return min((rig.due_ns for rig in self.rigs.values()), default=None)

    def _end(self, streams: Iterable[Stream]) -> None:
        for stream in streams:
            self.ended.setdefault(stream.spec.name, Counter()).update(stream.counts)


def memory_bytes(manifest: Manifest) -> int:
    """What the samples of one source take at most."""
    return sum(2 * m.capacity * (4 * prod(m.sample_shape) + 1) for m in manifest.modalities)


def _trial_ns(m: ModalitySpec) -> int:
    """How long a sensor may take to its first window, and be silent meanwhile."""
    return round(1e9 * (m.window / m.rate_hz + m.hop_s + m.timeout_s))
