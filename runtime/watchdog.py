"""A limit on how long an engine may take, at no cost to the thread that runs it.

The hot thread runs engines itself, and leaves a note while it does. Whoever watches takes away a
note that has lain too long, and lets another thread carry on; the one that hangs finds its note
gone, if it ever comes back, and unwinds. Only one of the two can have the note: popping a list is
atomic.

What this cannot end is an engine that hangs while it holds the interpreter's lock: then nothing
runs, `/livez` included, and it takes a restart from outside.
"""

from __future__ import annotations

from collections import Counter
from math import isfinite
from threading import Thread
from typing import Any

import numpy as np

from runtime.clock import Clock
from runtime.engines import Graph
from runtime.fused import Fused


class Relieved(BaseException):
    """Another thread has taken over from this one: unwind, and touch nothing."""


class Watchdog:
    """Runs graphs, and knows which run has taken too long.

    Attributes:
        failures: engines taken out, by graph.
    """

    def __init__(self, clock: Clock) -> None:
        self.failures: Counter[str] = Counter()
        self._clock = clock
        self._note: list[tuple[Graph | Fused, int]] = []

    def run(self, graph: Graph | Fused, begun_ns: int, *inputs: Any) -> tuple[np.ndarray, ...]:
        """What a graph answers; nothing while it is out, or if it fails now and so is taken out.

        Raises:
            Relieved: it took so long that another thread has taken over.
        """
        if graph.backend is None:
            return ()
        note = self._note = [(graph, begun_ns)]
        error = None
        try:
            outputs = graph.backend.run(*inputs)
            if not isfinite(np.vdot(outputs[0], outputs[0])):
                error = "it answered NaN or infinity"
        except Exception as raised:  # an engine may fail in any way
            error = f"{raised or type(raised).__name__}"
        try:
            note.pop()
        except IndexError:
            raise Relieved from None
        if error is None:
            return outputs
        self._fail(graph, error)
        return ()

    def relieve(self, hot: Thread) -> bool:
        """Whether ``hot`` hangs in an engine: then that is out, and another must carry on."""
        note, now_ns = self._note, self._clock.now_ns()
        try:
            graph, begun_ns = note[0]
            if now_ns - begun_ns <= graph.limit_ns * self._clock.speed:
                return False
            note.pop()
        except IndexError:  # nothing runs, or it has just come back
            return False
        self._fail(graph, f"no answer within {graph.limit_ns // 1_000_000} ms", stuck=hot)
        return True

    def _fail(self, graph: Graph | Fused, reason: str, stuck: Thread | None = None) -> None:
        self.failures[graph.name] += 1
        graph.fail(reason, self._clock.now_ns(), stuck)
