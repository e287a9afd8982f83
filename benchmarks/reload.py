"""A thousand reloads under load: what they miss, what they leak, what they slow.

``python -m benchmarks.reload [--reloads N] [--quick] [--json PATH]``

Three sensors are played to a server, its clock sped up so that ticks come quickly, while it is told
to reload its bundle again and again. Its latency is taken as a ratio to the floor's
(benchmarks/floor.py) before the first reload, after the last, and meanwhile; its RSS once reloads
have warmed up, and after the last.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks import untrained
from benchmarks.latency import TICK_REAL_S, forget, hop_frame, round_trip
from benchmarks.process import Running, free_ports, rss_mb, running
from robult_edge import data, results
from robult_edge.bundle import Manifest
from robult_edge.data.replay import replays
from runtime.clock import SystemClock

SENSORS = 3
WARM_UP_TICKS, QUICK_TICKS, TICKS = 100, 400, 1500
PAUSE_S = 0.05
"""Between two reloads, so that there are ticks without one too."""

Pair = tuple[float, float]


def main() -> int:
    """Measure and print; write ``--json`` too."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reloads", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="100 reloads; under 45 s")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    reloads, ticks = (100, QUICK_TICKS) if args.quick else (args.reloads, TICKS)
    where = Path("build") / "benchmarks" / f"{SENSORS}-sensors"
    figures = measure(untrained.make(SENSORS, where).manifest, where, reloads, ticks)
    table = Table(title=f"{reloads} reloads under load", title_justify="left")
    for column in ("figure", "measured", "what it is"):
        table.add_column(column)
    for name, what in (
        ("missed_results", "holes in seq"),
        ("partial_results", "results with a sensor not alive, though all were sent"),
        ("rss_growth_mb", "resident, from a tenth of the reloads to the last"),
        ("p50_growth", "median to the floor's after the last reload, against before"),
        ("p99_growth", "p99 to the floor's after the last reload, against before"),
        ("p99_growth_meanwhile", "the same while it reloads"),
        ("reload_ms", "from asking to serving, median"),
    ):
        table.add_row(name, f"{figures[name]:.3g}", what)
    Console().print(table)
    if args.json:
        args.json.write_text(json.dumps(figures))
    return 0


def measure(manifest: Manifest, engines: Path, reloads: int, ticks: int) -> dict[str, float]:
    """All figures, from one server; ``ticks`` before the first reload and after the last."""
    speed = manifest.hop_ns / 1e9 / TICK_REAL_S
    http = f"127.0.0.1:{free_ports(1)[0]}"
    token = secrets.token_hex(16)
    token_file = engines / "http-token"
    token_file.write_text(token)
    serve = ["-m", "runtime.serve", "--http", http, "--http-token-file", str(token_file),
             "--speed", str(speed)]  # fmt: skip
    ask = {"Authorization": f"Bearer {token}"}
    with (
        running(serve, engines, "serving") as server,
        running(["-m", "benchmarks.floor"], engines, "ready") as floor,
    ):
        load = Load(server, floor, manifest, speed)
        for _ in track(range(WARM_UP_TICKS), "warming up"):
            load.tick()
        load.partial = 0
        before = [load.tick() for _ in track(range(ticks), "before")]
        took_ms: list[float] = []
        rss: list[float] = []
        meanwhile: list[Pair] = []
        over = threading.Event()

        def play_meanwhile() -> None:
            while not over.is_set():
                meanwhile.append(load.tick())

        playing = threading.Thread(target=play_meanwhile)
        playing.start()
        for _ in track(range(reloads), "reloading"):
            request = urllib.request.Request(f"http://{http}/reload", headers=ask, method="POST")
            with urllib.request.urlopen(request, timeout=60) as reply:
                took_ms.append(json.load(reply)["took_ms"])
            rss.append(rss_mb(server.pid))
            time.sleep(PAUSE_S)
        over.set()
        playing.join()
        after = [load.tick() for _ in track(range(ticks), "after")]
    return {
        "missed_results": load.missed,
        "partial_results": load.partial,
        "rss_growth_mb": rss[-1] - rss[len(rss) // 10],
        "p50_growth": ratio(after, 50) / ratio(before, 50),
        "p99_growth": ratio(after, 99) / ratio(before, 99),
        "p99_growth_meanwhile": ratio(meanwhile, 99) / ratio(before, 99),
        "reload_ms": float(np.median(took_ms)),
    }


def ratio(pairs: list[Pair], q: float) -> float:
    """The server's q-th percentile against the floor's, over the same stretch of time."""
    ours, floor = np.percentile(np.array(pairs), q, axis=0, method="lower")
    return float(ours / floor)


class Load:
    """Sensors that send a hop's samples each tick, to the server and to the floor in turn.

    Attributes:
        missed: holes in ``seq`` so far.
        partial: results for which some sensor was not alive.
    """

    def __init__(self, server: Running, floor: Running, manifest: Manifest, speed: float) -> None:
        self.missed = self.partial = 0
        self._server, self._floor, self._manifest = server, floor, manifest
        self._clock = SystemClock(speed)
        self._replay = replays(data.load(manifest.provenance["dataset"]))[0]
        self._tick, self._seq = 0, -1
        self._start_ns = (self._clock.now_ns() // manifest.hop_ns + 5) * manifest.hop_ns

    def tick(self) -> Pair:
        """Latencies of the next tick, s: the server's and the floor's."""
        sensors = self._manifest.modalities
        frames = [hop_frame(m, self._tick, self._start_ns, self._replay) for m in sensors]
        self._tick += 1
        end_ns = self._start_ns + self._tick * self._manifest.hop_ns
        while (wait_ns := end_ns - self._clock.now_ns()) > 0:
            time.sleep(wait_ns / 1e9 / self._clock.speed)
        ours = round_trip(self._server, frames, lambda body: self._see(body, end_ns))
        forget(self._floor)
        return ours, round_trip(self._floor, frames, lambda _: True)

    def _see(self, body: list[bytes], end_ns: int) -> bool:
        """Keep count of a result; whether it is the answer to the tick that ends at ``end_ns``."""
        result = results.decode(body)
        self.missed += result.seq - self._seq - 1
        self._seq = result.seq
        self.partial += any(part.state != "alive" for part in result.modalities.values())
        return result.t_ns >= end_ns


if __name__ == "__main__":
    sys.exit(main())
