"""``python -m runtime.serve --engines export/``: answer from whichever sensors are alive."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

import msgspec

from robult_edge.errors import RobultError
from robult_edge.task import OUTPUTS
from runtime import enginecache, policy
from runtime.config import Config
from runtime.http import ControlPlane
from runtime.policy import Policy
from runtime.server import Server

SWITCH_S = 1e-4
"""A thread that renders or reloads gives way to the hot one after so long; Python's own is 5 ms."""


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM; 2 when the policy, the bundle or an address is unusable."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    try:
        config = parse(argv)
        control = ControlPlane(config) if config.http else None
        server = Server(config, enginecache.load(config))
    except RobultError as error:
        print(f"runtime.serve: {error}", file=sys.stderr)
        return 2
    if control:
        control.server = server
    manifest = server.manifest
    print(
        f"serving {manifest.name}: {' + '.join(manifest.names)} → "
        f"{len(manifest.classes)} {OUTPUTS[manifest.task]}, "
        f"a result every {manifest.hop_ns / 1e9:g} s; frames {server.frames_address}, "
        f"results {server.results_address}, http {control.address if control else 'off'}",
        flush=True,
    )
    sys.setswitchinterval(SWITCH_S)
    server.notify.say("READY=1", f"STATUS=serving {manifest.name}")
    server.run()
    if control:
        control.close()
    return 0


def parse(argv: Sequence[str] | None = None) -> Config:
    """The command line as settings; it has precedence over the policy, which has over defaults.

    Raises:
        PolicyError: the policy cannot be read.
    """
    default = Config(engines="")
    parser = argparse.ArgumentParser(prog="python -m runtime.serve", description=__doc__)
    parser.add_argument(
        "--engines", required=True, metavar="DIR", help="the bundle, or the parent of its engines/"
    )
    parser.add_argument(
        "--engine-cache",
        metavar="DIR",
        help="keep TensorRT engines that are built here in a folder of the runtime's own, not in "
        "the bundle: for one that is signed, or cannot be written",
    )
    parser.add_argument(
        "--frames", default=default.frames, help="where sensors send to (default: %(default)s)"
    )
    parser.add_argument(
        "--results", default=default.results, help="where results go out (default: %(default)s)"
    )
    parser.add_argument(
        "--http",
        default=default.http,
        metavar="HOST:PORT",
        help="control plane; '' for none (default: %(default)s)",
    )
    parser.add_argument("--fusion", choices=("pool", "mean"), default=default.fusion)
    parser.add_argument(
        "--speed", type=float, default=1.0, help="the clock's, to serve a replay at this speed"
    )
    parser.add_argument(
        "--policy", metavar="TOML", help="what the deployment demands: see runtime/policy.py"
    )
    instead = parser.add_argument_group("in place of what the policy says")
    instead.add_argument(
        "--deadline-ms",
        type=float,
        help="wait for other sensors (default: a quarter of the hop, at most 50)",
    )
    instead.add_argument("--max-sources", type=int, help="rigs served at once (default: 1024)")
    instead.add_argument("--curve-keys", metavar="DIR", help="made by python -m runtime.keys")
    security = parser.add_argument_group("security: see docs/SECURITY.md")
    security.add_argument("--bundle-key", metavar="FILE", help="refuse what it has not signed")
    security.add_argument("--http-token-file", metavar="FILE", help="what POST must carry")
    security.add_argument(
        "--insecure", action="store_true", help="listen beyond loopback without keys"
    )
    args = vars(parser.parse_args(argv))
    file = args.pop("policy")
    written = Policy() if file is None else policy.load(file)
    asked = {field: args.pop(field) for field in ("deadline_ms", "max_sources", "curve_keys")}
    given = {field: value for field, value in asked.items() if value is not None}
    return Config(**args, policy=msgspec.structs.replace(written, **given))


if __name__ == "__main__":
    sys.exit(main())
