"""Plain settings of a server."""

from __future__ import annotations

from dataclasses import dataclass

from robult_edge import frames, results
from robult_edge.fusion import Rule


@dataclass(frozen=True)
class Config:
    """What `runtime.serve` can be told.

    Attributes:
        engines: bundle directory, or the parent of its ``engines/``.
        frames: ZeroMQ address to listen on for sensors.
        results: ZeroMQ address to publish results on.
        http: host:port of the control plane; empty for none.
        fusion: late-fusion rule.
        deadline_ms: how long a tick waits after its first window; None: a quarter of the hop, at
            most 50 ms.
        speed: of the clock, to serve replays faster than real time.
        max_sources: rigs served at once.
    """

    engines: str
    frames: str = frames.DEFAULT_ADDRESS
    results: str = results.DEFAULT_ADDRESS
    http: str = "127.0.0.1:8555"
    fusion: Rule = "pool"
    deadline_ms: float | None = None
    speed: float = 1.0
    max_sources: int = 1024

    def patience_ns(self, hop_ns: int) -> int:
        """The deadline in ns of the server's clock."""
        if self.deadline_ms is not None:
            return int(self.deadline_ms * 1e6)
        return min(hop_ns // 4, int(50_000_000 * self.speed))
