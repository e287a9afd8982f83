"""What an operator asks of a server: how it is, and everything about it. From any thread."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from robult_edge import native
from runtime.rigs import Rig

if TYPE_CHECKING:
    from runtime.server import Server

STILL_HOPS, STILL_S = 3, 1.0
"""The loop stands still if it has not turned for so many hops, and for at least so long."""


def startup(server: Server) -> str | None:
    """Why it has not started; None once its loop has turned."""
    return None if server.turned_ns else "the loop has not turned yet"


def standstill(server: Server) -> str | None:
    """Why it is not alive; None while its loop turns."""
    since_ns = server.turned_ns or server.started_ns
    still_s = (server.clock.now_ns() - since_ns) / 1e9 / server.clock.speed
    hop_s = server.manifest.hop_ns / 1e9 / server.clock.speed
    if still_s <= max(STILL_HOPS * hop_s, STILL_S):
        return None
    return f"the loop has not turned for {still_s:.1f} s"


def unready(server: Server) -> str | None:
    """Why it cannot answer; None while it can, be it with some sensors out."""
    if server.stopping:
        return "draining"
    if all(graph.backend is None for graph in server.serving.engines.branches):
        return "no branch has an engine that works"
    return startup(server) or standstill(server)


def ready(server: Server) -> str:
    """What a server that can answer has to say."""
    out = [f"{g.name} {g.trouble}" for g in server.serving.engines.graphs if g.backend is None]
    return "; ".join([f"serving {server.manifest.name}", *out])


def status(server: Server, sources: int | None = None) -> dict[str, Any]:
    """Everything. See docs/PROTOCOL.md for the keys.

    Args:
        server: whom to look at.
        sources: how many rigs to show; all if None.
    """
    engines, metrics = server.serving.engines, server.metrics
    now_ns, rigs = server.clock.now_ns(), list(server.rigs.rigs.items())
    return {
        "bundle": server.manifest.name,
        "fusion": server.config.fusion if engines.head.backend else "mean",
        "engines": {graph.name: graph.choice for graph in engines.graphs},
        "fusion_on_device": server.serving.fused.choice,
        "builder": server.builder.said,
        "native": native.missing or "built",
        "reload": server.reloader.last,
        "uptime_s": round((now_ns - server.started_ns) / 1e9 / server.clock.speed, 1),
        "results_published": metrics.published,
        "latency_us": list(metrics.recent_us),
        "sources_forgotten": server.rigs.forgotten,
        "frames_received": server.ingest.received,
        "frames_rejected": dict(server.ingest.rejected),
        "last_rejection": dict(server.ingest.last_error),
        "rigs": len(rigs),
        "sources": {
            source: {
                stream.spec.name: {
                    "state": stream.liveness.state,
                    "reason": stream.liveness.reason,
                    "frames": dict(stream.counts),
                }
                for stream in rig.streams
            }
            for source, rig in islice(rigs, sources)
        },
        "answers": {source: _answer(rig) for source, rig in islice(rigs, sources)},
    }


def _answer(rig: Rig) -> dict[str, Any] | None:
    """What is worth showing of a rig's newest result."""
    result = rig.latest
    if result is None:
        return None
    return {
        "seq": result.seq,
        "label": result.label,
        "probability": result.probabilities[result.label] if result.label is not None else None,
        "prediction_set": result.prediction_set,
        "alive": result.alive,
        "expected": result.expected,
        "conflict": result.conflict,
        "decision": result.decision,
        "reason": result.reason,
        "modalities": {name: part.state for name, part in result.modalities.items()},
    }
