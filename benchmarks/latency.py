"""End-to-end latency, last frame sent → result received, against the floor in the same run.

``python -m benchmarks.latency [--sensors 2 3 6] [--quick] [--json PATH]``

The server runs as it ships, all checks on, with the clock sped up so that ticks come quickly; the
times are real. Its ticks and the floor's (benchmarks/floor.py) take turns.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks import untrained
from benchmarks.process import Running, running
from robult_edge import data, results
from robult_edge.bundle import Manifest
from robult_edge.data.replay import Replay, replays
from robult_edge.frames import Frame, encode
from robult_edge.modality import ModalitySpec
from runtime.clock import SystemClock

TICK_REAL_S = 0.02
WARM_UP = 30


def main() -> int:
    """Measure and print; write ``--json`` too."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sensors", type=int, nargs="+", default=[2, 3, 6])
    parser.add_argument("--ticks", type=int, default=1500)
    parser.add_argument("--quick", action="store_true", help="under 45 s")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    ticks = 400 if args.quick else args.ticks
    table = Table(title="last frame sent → result received, µs", title_justify="left")
    for column in ("sensors", "p50", "floor p50", "ratio", "p99", "floor p99", "ratio"):
        table.add_column(column, justify="right")
    figures: dict[str, float] = {}
    for sensors in args.sensors:
        where = Path("build") / "benchmarks" / f"{sensors}-sensors"
        manifest = untrained.make(sensors, where).manifest
        ours, floor = measure(manifest, where, ticks)
        row = [str(sensors)]
        for q in (50, 99):
            mine, least = np.percentile(ours, q) * 1e6, np.percentile(floor, q) * 1e6
            row += [f"{mine:.0f}", f"{least:.0f}", f"{mine / least:.2f}"]
            figures[f"p{q}_ratio_{sensors}_sensors"] = mine / least
            if sensors == 3:
                figures[f"p{q}_ratio"] = mine / least
        table.add_row(*row)
    Console().print(table)
    if args.json:
        args.json.write_text(json.dumps(figures))
    return 0


def measure(manifest: Manifest, engines: Path, ticks: int) -> tuple[np.ndarray, np.ndarray]:
    """Latencies of the server and of the floor, s, over ``ticks`` ticks in turn."""
    speed = manifest.hop_ns / 1e9 / TICK_REAL_S
    serve = ["-m", "runtime.serve", "--http", "", "--speed", str(speed)]
    with (
        running(serve, engines, "serving") as server,
        running(["-m", "benchmarks.floor"], engines, "ready") as bare,
    ):
        clock = SystemClock(speed)
        replay = replays(data.load(manifest.provenance["dataset"]))[0]
        start_ns = (clock.now_ns() // manifest.hop_ns + 5) * manifest.hop_ns
        ours: list[float] = []
        floor: list[float] = []
        for tick in track(range(ticks + WARM_UP), f"{len(manifest.names)} sensors"):
            frames = [hop_frame(m, tick, start_ns, replay) for m in manifest.modalities]
            end_ns = start_ns + (tick + 1) * manifest.hop_ns
            while (wait_ns := end_ns - clock.now_ns()) > 0:
                time.sleep(wait_ns / 1e9 / speed)

            def answers_this_tick(body: list[bytes], end_ns: int = end_ns) -> bool:
                return results.decode(body).t_ns >= end_ns

            ours.append(round_trip(server, frames, answers_this_tick))
            forget(bare)
            floor.append(round_trip(bare, frames, lambda _: True))
    return np.array(ours[WARM_UP:]), np.array(floor[WARM_UP:])


def hop_frame(m: ModalitySpec, tick: int, start_ns: int, replay: Replay) -> list[bytes]:
    """A hop's worth of held-out samples that end just before the tick."""
    t_ns = start_ns + tick * round(m.hop_s * 1e9) + m.period_ns // 2
    samples = replay.stretch(m.name, tick * m.hop, (tick + 1) * m.hop - 1)
    return encode(Frame(m.name, "bench", tick, t_ns, samples))


def round_trip(
    server: Running,
    messages: list[list[bytes]],
    is_answer: Callable[[list[bytes]], bool],
) -> float:
    """Send a tick's frames; s from the last of them to their answer, infinite if none comes."""
    for message in messages[:-1]:
        server.frames.send_multipart(message)
    begun = time.perf_counter()
    server.frames.send_multipart(messages[-1])
    while server.results.poll(round(TICK_REAL_S * 1e3)):
        body = server.results.recv_multipart()
        took = time.perf_counter() - begun
        if is_answer(body):
            return took
    return float("inf")


def forget(server: Running) -> None:
    """Throw away answers that came too late for their round, so that no other takes them."""
    while server.results.poll(0):
        server.results.recv_multipart()


if __name__ == "__main__":
    sys.exit(main())
