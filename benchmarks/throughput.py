"""Windows per second of many rigs, against bare batched ONNX Runtime at the same batch.

``python -m benchmarks.throughput [--sources 1 16 64 256] [--quick] [--json PATH]``

The server's own turn, all checks on: frames' bytes are handed to it as its socket would hand them,
a hop's worth of held-out samples per frame, so that every sensor is alive and every branch runs;
rings, windows, states, engines, fusion, decision and the sending of results are its own. Senders
are left out: on two cores they would be what is measured. Bare is the same sessions, branches and
fusion head, on ready windows of all sources in one batch, in turns with the server. Each runs on
one thread, whose own processor time is what counts: other load on the machine does not blur it, and
on an idle core it is the time that passes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks import untrained
from robult_edge import data, subsets
from robult_edge.bundle import Bundle, Manifest
from robult_edge.data.replay import Replay, replays
from robult_edge.frames import Frame, encode
from runtime.config import Config
from runtime.server import Server

SENSORS = 3
WARM_UP = 8
ANYWHERE = "tcp://127.0.0.1:*"


class Hand:
    """A clock that is turned by hand, so that ticks come as fast as they are answered."""

    speed = 1.0

    def __init__(self, now_ns: int) -> None:
        self.now = now_ns

    def now_ns(self) -> int:
        return self.now


def main() -> int:
    """Measure and print; write ``--json`` too."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sources", type=int, nargs="+", default=[1, 16, 64, 256])
    parser.add_argument("--windows", type=int, default=30_000, help="per count of sources")
    parser.add_argument("--quick", action="store_true", help="under 45 s")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    windows = 6_000 if args.quick else args.windows
    loaded = untrained.make(SENSORS, Path("build") / "benchmarks" / f"{SENSORS}-sensors")
    table = Table(title=f"windows per second of one core, {SENSORS} sensors", title_justify="left")
    for column in ("sources", "server", "bare", "ratio", "µs per window", "bare"):
        table.add_column(column, justify="right")
    figures: dict[str, float] = {}
    for sources in args.sources:
        per_tick = sources * SENSORS
        ours, bare = measure(loaded, sources, max(20, windows // per_tick))
        figures[f"batched_ratio_{sources}"] = bare / ours
        table.add_row(
            str(sources), f"{per_tick / ours:.0f}", f"{per_tick / bare:.0f}",
            f"{bare / ours:.2f}", f"{ours / per_tick * 1e6:.0f}", f"{bare / per_tick * 1e6:.0f}",
        )  # fmt: skip
    Console().print(table)
    if args.json:
        args.json.write_text(json.dumps(figures))
    return 0


def measure(bundle: Bundle, sources: int, ticks: int) -> tuple[float, float]:
    """Median processor s per tick of the server and of the bare sessions."""
    manifest = bundle.manifest
    hop_ns = manifest.hop_ns
    clock = Hand((time.time_ns() // hop_ns + 1) * hop_ns)
    start_ns = clock.now
    held_out = replays(data.load(manifest.provenance["dataset"]))
    config = Config(str(bundle.path), frames=ANYWHERE, results=ANYWHERE)
    windows = [np.zeros((sources, *m.window_shape), np.float32) for m in manifest.modalities]
    alive = np.ones((sources, SENSORS), bool)
    everything = subsets.name(subsets.full(SENSORS), manifest.names)
    ours, bare = [], []
    with closing(Server(config, bundle, clock)) as server:
        *branches, head = (g.backend.run for g in server.serving.engines.graphs if g.backend)
        for tick in track(range(ticks + WARM_UP), f"{sources} sources"):
            messages = _messages(manifest, sources, tick, start_ns, held_out)
            clock.now = start_ns + (tick + 1) * hop_ns
            before, begun = server.metrics.answers[everything], time.thread_time()
            server.handle(messages)
            ours.append(time.thread_time() - begun)
            assert tick < WARM_UP or server.metrics.answers[everything] == before + sources
            begun = time.thread_time()
            h = [run(x)[1].copy() for run, x in zip(branches, windows, strict=True)]
            head(np.stack(h, 1), alive)
            bare.append(time.thread_time() - begun)
    return float(np.median(ours[WARM_UP:])), float(np.median(bare[WARM_UP:]))


def _messages(
    manifest: Manifest, sources: int, tick: int, start_ns: int, held_out: tuple[Replay, ...]
) -> list[list[bytes]]:
    """A frame of a hop's samples from every sensor of every source; each plays another stretch."""
    messages = []
    for m in manifest.modalities:
        t_ns = start_ns + tick * round(m.hop_s * 1e9) + m.period_ns // 2
        for s in range(sources):
            replay, hop = held_out[s % len(held_out)], tick + s // len(held_out)
            samples = replay.stretch(m.name, hop * m.hop, (hop + 1) * m.hop - 1)
            messages.append(encode(Frame(m.name, f"rig-{s}", tick, t_ns, samples)))
    return messages


if __name__ == "__main__":
    sys.exit(main())
