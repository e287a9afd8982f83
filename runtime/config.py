"""Plain settings of a server."""

from __future__ import annotations

from dataclasses import dataclass, field

from robult_edge import frames, results
from robult_edge.fusion import Rule
from runtime.policy import Policy


@dataclass(frozen=True)
class Config:
    """What `runtime.serve` can be told.

    Attributes:
        engines: bundle directory, or the parent of its ``engines/``.
        frames: ZeroMQ address to listen on for sensors.
        results: ZeroMQ address to publish results on.
        http: host:port of the control plane; empty for none.
        fusion: late-fusion rule.
        speed: of the clock, to serve replays faster than real time.
        policy: what the deployment demands; what the command line says is already in it.
        bundle_key: public key that the bundle must be signed for; None: unsigned ones are served.
        engine_cache: folder of engines that are built here; None: they are put into the bundle.
        http_token_file: holds the token that POST must carry; None: POST is refused.
        insecure: listen beyond loopback without keys.
    """

    engines: str
    frames: str = frames.DEFAULT_ADDRESS
    results: str = results.DEFAULT_ADDRESS
    http: str = "127.0.0.1:8555"
    fusion: Rule = "pool"
    speed: float = 1.0
    policy: Policy = field(default_factory=Policy)
    bundle_key: str | None = None
    engine_cache: str | None = None
    http_token_file: str | None = None
    insecure: bool = False
