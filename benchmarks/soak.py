"""A server under fire for as long as you like: what it misses, leaks, slows down by, and throws.

``python -m benchmarks.soak [--minutes N] [--seed N] [--quick] [--json PATH]``

The shipped bundle is served as it ships. Ten rigs play held-out recordings to it in real time, each
sample a frame of its own: 1,000 frames a second. Seven play here, and their sensors stop, return
and lie by the seed's schedule; three are processes that are frozen and let go on. Meanwhile come
damaged frames, invented rigs, oversized messages, reloads and scrapes. Ctrl-C ends it early, with
its figures.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import threading
from pathlib import Path
from random import Random

import numpy as np
import zmq
from rich.console import Console
from rich.table import Table

from benchmarks.fire import Fire, Seen, elsewhere, tend
from benchmarks.process import free_ports, running
from robult_edge import bundle
from robult_edge.bundle import Manifest

ROOT = Path(__file__).parents[1]
WHERE = Path("build") / "benchmarks" / "soak"
QUICK_MINUTES = 0.4
MUST_BE_ZERO = ("missed_results", "tracebacks", "control_failures")
SLOPE_MINUTES = 5.0
"""In less time resident memory says nothing of an hour."""


def main() -> int:
    """Soak and print; write ``--json`` too. 1 when a figure of `MUST_BE_ZERO` is not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="under 45 s")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    minutes = QUICK_MINUTES if args.quick else args.minutes
    manifest, seen = bundle.load(ROOT / "export").manifest, Seen()
    log = soak(manifest, seen, minutes * 60, args.seed)
    figures = summary(seen, log.read_text())
    table = Table(title=f"soak, seed {args.seed}", title_justify="left")
    table.add_column("figure")
    table.add_column("measured", justify="right")
    for name, value in figures.items():
        table.add_row(name, f"{value:,.4g}" if value % 1 else f"{value:,.0f}")
    Console().print(table)
    if "rss_slope_mb_per_h" not in figures:
        print(f"a slope per hour takes {SLOPE_MINUTES:g} minutes: --minutes {SLOPE_MINUTES:g}")
    if args.json:
        args.json.write_text(json.dumps(figures))
    broken = [name for name in MUST_BE_ZERO if figures[name]]
    if broken:
        print(f"must be 0: {', '.join(broken)}; the server's log is {log}")
    return int(bool(broken))


def summary(seen: Seen, log: str) -> dict[str, float]:
    """All figures."""
    at_s, mb = np.array(seen.rss).T
    late = at_s >= at_s[-1] / 2
    thirds = np.array_split(np.array(seen.latency_us), 3)
    figures = {
        "minutes": at_s[-1] / 60,
        "missed_results": seen.missed,
        "p99_drift": np.percentile(thirds[-1], 99) / np.percentile(thirds[0], 99),
        "tracebacks": log.count("Traceback (most recent call last)"),
        "control_failures": seen.control_failures,
        "frames_received": seen.received,
        "rss_mb": mb[-1],
        **dict(sorted(seen.done.items())),
    }
    if at_s[-1] >= SLOPE_MINUTES * 60:
        figures["rss_slope_mb_per_h"] = np.polyfit(at_s[late] / 3600, mb[late], 1)[0]
    return {name: float(value) for name, value in figures.items()}


def soak(manifest: Manifest, seen: Seen, seconds: float, seed: int) -> Path:
    """Serve the shipped bundle under fire for so long; the server's log."""
    WHERE.mkdir(parents=True, exist_ok=True)
    log, token_file, token = WHERE / "server.log", WHERE / "http-token", secrets.token_hex(16)
    token_file.write_text(token)
    http = f"127.0.0.1:{free_ports(1)[0]}"
    serve = ["-m", "runtime.serve", "--http", http, "--http-token-file", str(token_file)]
    over = threading.Event()
    tending = threading.Thread(target=tend, args=(http, token, seen, over, Random(seed)))
    with (
        log.open("w") as stderr,
        running(serve, ROOT / "export", "serving", stderr) as server,
        elsewhere(server.frames.getsockopt_string(zmq.LAST_ENDPOINT), seconds) as others,
    ):
        fire = Fire(server, others, manifest, seen, seconds, seed)
        tending.start()
        try:
            fire.burn(seconds)
        except KeyboardInterrupt:
            pass
        except ProcessLookupError:
            raise SystemExit(f"the server died of it; see {log}") from None
        finally:
            over.set()
            tending.join()
            fire.close()
    return log


if __name__ == "__main__":
    sys.exit(main())
