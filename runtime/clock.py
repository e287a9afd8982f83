"""The one clock: it is passed in everywhere, so that a test can turn it by hand."""

from __future__ import annotations

import time
from typing import Protocol

DAY_NS = 86_400_000_000_000


class Clock(Protocol):
    """Nanoseconds since 1970 that never step back.

    ``speed`` is how many of them pass per nanosecond of real time: 1 but in fast replays.
    """

    speed: float

    def now_ns(self) -> int: ...


class SystemClock:
    """The machine's monotonic clock, set once to the time of day.

    Args:
        speed: run this many times faster than real time, to replay a recording so fast. Clocks of
            one speed agree in every process: they all left real time at the last midnight, UTC.
    """

    def __init__(self, speed: float = 1.0) -> None:
        self.speed = speed
        now_ns = time.time_ns()
        self._origin_ns = time.monotonic_ns()
        midnight_ns = now_ns - now_ns % DAY_NS
        self._start_ns = midnight_ns + int((now_ns - midnight_ns) * speed)

    def now_ns(self) -> int:
        """The time now."""
        passed = time.monotonic_ns() - self._origin_ns
        return self._start_ns + (passed if self.speed == 1 else int(passed * self.speed))
