"""A thousand reloads under load: what they miss, what they leak, what they slow.

``python -m benchmarks.reload [--reloads N] [--quick] [--json PATH]``

Three sensors are played to a server, its clock sped up so that ticks come quickly, while it is told
to reload its bundle again and again. Latency is measured before the first reload, after the last,
and meanwhile. RSS is read once reloads have warmed up and again at the end.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
import urllib.request
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks import untrained
from benchmarks.latency import TICK_REAL_S, hop_frame, round_trip
from benchmarks.process import Running, free_ports, rss_mb, running
from robult_edge import results
from robult_edge.bundle import Manifest
from runtime.clock import SystemClock

SENSORS = 3
WARM_UP_TICKS, QUIET_TICKS = 100, 400
PAUSE_S = 0.05
"""Between two reloads, so that there are ticks without one too."""


def main() -> int:
    """Measure and print; write ``--json`` too."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reloads", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="100 reloads; under 45 s")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    reloads = 100 if args.quick else args.reloads
    where = Path("build") / "benchmarks" / f"{SENSORS}-sensors"
    figures = measure(untrained.make(SENSORS, where).manifest, where, reloads)
    table = Table(title=f"{reloads} reloads under load", title_justify="left")
    for column in ("figure", "measured", "what it is"):
        table.add_column(column)
    for name, what in (
        ("missed_results", "holes in seq"),
        ("partial_results", "results without some sensor, though all were sent"),
        ("rss_growth_mb", "resident, from a tenth of the reloads to the last"),
        ("p99_growth", "latency after the last reload, against before the first"),
        ("p99_growth_meanwhile", "latency of ticks while it reloads, against before"),
        ("reload_ms", "from asking to serving, median"),
    ):
        table.add_row(name, f"{figures[name]:.3g}", what)
    Console().print(table)
    if args.json:
        args.json.write_text(json.dumps(figures))
    return 0


def measure(manifest: Manifest, engines: Path, reloads: int) -> dict[str, float]:
    """All figures, from one server."""
    speed = manifest.hop_ns / 1e9 / TICK_REAL_S
    http = f"127.0.0.1:{free_ports(1)[0]}"
    serve = ["-m", "runtime.serve", "--http", http, "--speed", str(speed)]
    with running(serve, engines, "serving") as server:
        load = Load(server, manifest, speed)
        load.play(WARM_UP_TICKS)
        load.partial = 0
        before = load.play(QUIET_TICKS)
        took_ms: list[float] = []
        rss: list[float] = []
        meanwhile: list[float] = []
        over = threading.Event()

        def play_meanwhile() -> None:
            while not over.is_set():
                meanwhile.extend(load.play(1))

        playing = threading.Thread(target=play_meanwhile)
        playing.start()
        for _ in track(range(reloads), "reloading"):
            request = urllib.request.Request(f"http://{http}/reload", method="POST")
            with urllib.request.urlopen(request, timeout=60) as reply:
                took_ms.append(json.load(reply)["took_ms"])
            rss.append(rss_mb(server.pid))
            time.sleep(PAUSE_S)
        over.set()
        playing.join()
        after = load.play(QUIET_TICKS)
    p99 = [float(np.percentile(latencies, 99)) for latencies in (before, after, meanwhile)]
    return {
        "missed_results": load.missed,
        "partial_results": load.partial,
        "rss_growth_mb": rss[-1] - rss[len(rss) // 10],
        "p99_growth": p99[1] / p99[0],
        "p99_growth_meanwhile": p99[2] / p99[0],
        "reload_ms": float(np.median(took_ms)),
    }


class Load:
    """Sensors that send a hop's samples each tick and wait for the answer.

    Attributes:
        missed: holes in ``seq`` so far.
        partial: results that did not rest on every sensor.
    """

    def __init__(self, server: Running, manifest: Manifest, speed: float) -> None:
        self.missed = self.partial = 0
        self._server, self._manifest = server, manifest
        self._clock = SystemClock(speed)
        self._rng = np.random.default_rng(0)
        self._tick, self._seq = 0, -1
        self._start_ns = (self._clock.now_ns() // manifest.hop_ns + 5) * manifest.hop_ns

    def play(self, ticks: int) -> list[float]:
        """Latencies of the next ticks, s."""
        took = []
        for _ in range(ticks):
            sensors = self._manifest.modalities
            frames = [hop_frame(m, self._tick, self._start_ns, self._rng) for m in sensors]
            self._tick += 1
            end_ns = self._start_ns + self._tick * self._manifest.hop_ns
            while (wait_ns := end_ns - self._clock.now_ns()) > 0:
                time.sleep(wait_ns / 1e9 / self._clock.speed)
            answers_this_tick = partial(self._see, end_ns=end_ns)
            took.append(round_trip(self._server, frames, answers_this_tick))
        return took

    def _see(self, body: list[bytes], end_ns: int) -> bool:
        """Keep count of a result; whether it is the answer to the tick that ends at ``end_ns``."""
        result = results.decode(body)
        self.missed += result.seq - self._seq - 1
        self._seq = result.seq
        self.partial += len(result.alive) < len(self._manifest.names)
        return result.t_ns >= end_ns


if __name__ == "__main__":
    sys.exit(main())
