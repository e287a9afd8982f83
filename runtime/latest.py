"""Mode ``latest``: every new window gives a result, with the other sensors' newest beside it."""

from __future__ import annotations

import numpy as np

from robult_edge import faults
from robult_edge.bundle import Manifest
from runtime.policy import Policy
from runtime.rigs import Rig, Tick
from runtime.stream import Stream


class LatestRig(Rig):
    """A source that waits for nobody.

    Each sensor's windows end on the hop grid, but each sensor is at its own place of it. Windows
    that are taken in together share a result. Where no window came for a hop, a result says so:
    an old answer is never given again.

    Args:
        policy: says how long ago a window may have ended that an answer rests on.
    """

    left_out = "no new window, or none young enough"

    def __init__(
        self,
        source: str,
        manifest: Manifest,
        limits: tuple[faults.Limits, ...],
        now_ns: int,
        policy: Policy,
    ) -> None:
        super().__init__(source, manifest, limits, now_ns)
        self._policy = policy
        self._max_age_ns = policy.timing(manifest.hop_ns).max_age_ns
        self._answered_ns = 0
        # Per sensor, where its next window ends, and where the one in hand does.
        self._next_ns = [self.tick.end_ns] * len(self.streams)
        self._held_ns = [0] * len(self.streams)

    def adopt(
        self, manifest: Manifest, limits: tuple[faults.Limits, ...], now_ns: int
    ) -> list[Stream]:
        """See `Rig.adopt`; windows in hand are taken again, and give no result of their own."""
        at = dict(zip(self.streams, zip(self._next_ns, self._held_ns, strict=True), strict=True))
        ended = super().adopt(manifest, limits, now_ns)
        self._max_age_ns = self._policy.timing(manifest.hop_ns).max_age_ns
        places = [at.get(stream, (self.tick.end_ns, 0)) for stream in self.streams]
        self._held_ns = [held_ns for _, held_ns in places]
        self._next_ns = [
            held_ns if held_ns and stream.liveness.alive else next_ns
            for stream, (next_ns, held_ns) in zip(self.streams, places, strict=True)
        ]
        return ended

    def may_be_behind(self, now_ns: int) -> bool:
        """Whether any sensor's next window can be here already."""
        return min(self._next_ns) <= now_ns + self._longest_period_ns

    def complete(self, now_ns: int) -> bool:
        """Whether a new window is in."""
        return self.tick.opened_ns is not None

    def windows(self, now_ns: int, patience_ns: int) -> list[tuple[int, np.ndarray]]:
        """Each sensor's next window, where it has become complete."""
        tick, found, hop_ns = self.tick, [], self.hop_ns
        for i, stream in enumerate(self.streams):
            if stream.ring.newest < 0:
                continue
            too_old = (now_ns - self._max_age_ns - self._next_ns[i]) // hop_ns
            end_ns = self._next_ns[i] + max(0, too_old) * hop_ns
            if end_ns == self._held_ns[i] and stream.due_index(end_ns + hop_ns) is not None:
                end_ns += hop_ns  # after a reload: there is a newer one than that in hand
            self._next_ns[i] = end_ns
            end = stream.due_index(end_ns)
            if end is None:
                stream.say_returning(now_ns)
                continue
            self._next_ns[i] += hop_ns
            window = stream.clean_window(end)
            if window is not None:
                if end_ns > self._held_ns[i]:
                    latest_ns = self._answered_ns if tick.opened_ns is None else tick.end_ns
                    tick.end_ns = max(latest_ns, end_ns)
                    self.open(now_ns, patience_ns)
                    tick.newest_ns = now_ns
                tick.ends_ns[i] = stream.ring.time_of(end)
                self._held_ns[i] = end_ns
                found.append((i, window))
        return found

    def close(self, now_ns: int) -> None:
        """Keep of the windows in hand those that an answer may rest on."""
        tick, oldest_ns = self.tick, now_ns - self._max_age_ns
        tick.mask = 0
        for i, stream in enumerate(self.streams):
            stream.liveness.silence(now_ns)
            young = self._held_ns[i] >= oldest_ns and tick.opened_ns is not None
            if stream.liveness.alive and young:
                tick.mask |= 1 << i
        self.ever_alive |= tick.mask > 0

    def next_tick(self, now_ns: int) -> None:
        """Go on, with every window in hand; after a long sleep, at the present."""
        before, hop_ns = self.tick, self.hop_ns
        self.seq += 1
        self._answered_ns = before.end_ns
        self.tick = Tick(max(before.end_ns + hop_ns, now_ns - now_ns % hop_ns), *self._shape)
        self.tick.logits, self.tick.h, self.tick.ends_ns = before.logits, before.h, before.ends_ns
        self.tick.windows = before.windows
        self.due_ns = self.tick.end_ns + self._slack_ns
