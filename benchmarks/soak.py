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
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import numpy as np
import zmq
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks import fuzz
from benchmarks.process import free_ports, rss_mb
from robult_edge import bundle, data, frames, results
from robult_edge.bundle import Manifest
from robult_edge.data.inject import KINDS, Fault, Injector
from robult_edge.data.replay import Replay, replays
from robult_edge.frames import Frame, encode, largest_part_bytes
from robult_edge.results import Result
from runtime.clock import SystemClock

ROOT = Path(__file__).parents[1]
WHERE = Path("build") / "benchmarks" / "soak"
QUICK_MINUTES = 0.4
RIGS_HERE = 7
HONEST_S, FAULT_S = 20.0, (1.0, 8.0)
"""Mean time between a sensor's faults; shortest and longest of them."""
FREEZE_EVERY_S, FROZEN_S = 15.0, (1.0, 4.0)
DAMAGED_EVERY_S, INVENTED_EVERY_S, OVERSIZED_EVERY_S = 0.1, 1.0, 20.0
RELOAD_EVERY_S, SCRAPE_EVERY_S = 5.0, 1.0
OVERDUE_HOPS = 5
"""A rig whose newest result is older than this at the end has missed the rest."""
RECEIVED = re.compile(rb"^robult_frames_received_total (\d+)", re.MULTILINE)
MUST_BE_ZERO = ("missed_results", "tracebacks", "control_failures")
SLOPE_MINUTES = 5.0
"""In less time resident memory says nothing of an hour."""


@dataclass
class Seen:
    """What has come of it so far.

    Attributes:
        newest: per rig, its newest result.
        missed: holes in ``seq``.
        latency_us: of results that rest on every sensor, in order.
        rss: (s since the start, MB).
        received: well-formed frames, by the server's own count.
        control_failures: scrapes and reloads that were not answered with 200.
        done: how often each kind of chaos happened.
    """

    newest: dict[str, Result] = field(default_factory=dict)
    missed: int = 0
    latency_us: list[int] = field(default_factory=list)
    rss: list[tuple[float, float]] = field(default_factory=list)
    received: int = 0
    control_failures: int = 0
    done: Counter[str] = field(default_factory=Counter)

    def take(self, result: Result) -> None:
        """Keep count of a result. A rig that had been forgotten begins again at 0."""
        before = self.newest.get(result.source)
        if result.seq:
            self.missed += result.seq - (before.seq + 1 if before else 0)
        self.newest[result.source] = result
        if result.decision == "ok":
            self.latency_us.append(result.latency_us.total)
        self.done["results"] += 1


@dataclass(frozen=True)
class Served:
    """A server under fire; its log goes to a file."""

    process: subprocess.Popen[str]
    frames: str
    results: str
    http: str
    token: str
    log: Path

    def ask(self, path: str, method: str = "GET") -> bytes:
        """The reply of the control plane."""
        request = urllib.request.Request(
            f"http://{self.http}{path}", method=method,
            headers={"Authorization": f"Bearer {self.token}"},
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=60) as reply:
            return bytes(reply.read())


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
    with serving() as served:
        fire(served, manifest, seen, minutes * 60, args.seed)
        log = served.log.read_text()
    figures = summary(seen, log)
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
    return int(any(figures[name] for name in MUST_BE_ZERO))


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


def fire(served: Served, manifest: Manifest, seen: Seen, seconds: float, seed: int) -> None:
    """Play every rig for so long, with all that the seed has in store."""
    random, clock = Random(seed), SystemClock()
    dataset = data.load(manifest.provenance["dataset"])
    plays = replays(dataset, rigs=4)[:RIGS_HERE]
    sensors = [
        (play, name, Injector(schedule(random, name, seconds), spec))
        for play in plays
        for name, spec in play.modalities.items()
    ]
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    sensor, stranger = context.socket(zmq.PUB), context.socket(zmq.PUB)
    sensor.connect(served.frames)
    stranger.connect(served.frames)
    reader = context.socket(zmq.SUB)
    reader.set_hwm(0)
    reader.subscribe(b"")
    reader.connect(served.results)
    over = threading.Event()
    control = threading.Thread(target=tend, args=(served, seen, over, Random(seed)))
    period_ns = manifest.modalities[0].period_ns
    with elsewhere(served, seconds) as others:
        time.sleep(0.5)  # connections are made in the background
        start_ns = clock.now_ns()
        control.start()
        freezing = freezes(random, seconds)
        frozen = False
        try:
            for step in track(range(round(seconds * 1e9 / period_ns)), "under fire"):
                while (wait_ns := start_ns + (step + 1) * period_ns - clock.now_ns()) > 0:
                    time.sleep(wait_ns / 1e9)
                at_s = step * period_ns / 1e9
                for play, name, injector in sensors:
                    send(sensor, seen, play, name, step, start_ns, at_s, injector)
                strange(stranger, seen, manifest, random, clock.now_ns(), step, period_ns / 1e9)
                if freezing and at_s >= freezing[0]:
                    freezing.pop(0)
                    frozen = not frozen
                    os.killpg(others, signal.SIGSTOP if frozen else signal.SIGCONT)
                    seen.done["freezes"] += frozen
                if step % round(1e9 / period_ns) == 0:
                    if served.process.poll() is not None:
                        raise SystemExit(f"the server died of it; see {served.log}")
                    seen.rss.append((at_s, rss_mb(served.process.pid)))
                while reader.poll(0):
                    seen.take(results.decode(reader.recv_multipart()))
        except KeyboardInterrupt:
            pass
        finally:
            over.set()
            control.join()
        end_ns = clock.now_ns()
    time.sleep(0.2)  # what was published is on its way
    while reader.poll(0):
        seen.take(results.decode(reader.recv_multipart()))
    for play in (*plays, *replays(dataset)):
        newest = seen.newest.get(play.source)
        behind = (end_ns - (newest.t_ns if newest else start_ns)) // manifest.hop_ns
        seen.missed += max(0, behind - OVERDUE_HOPS)
    for socket in (sensor, stranger, reader):
        socket.close(linger=0)


def schedule(random: Random, modality: str, seconds: float) -> list[Fault]:
    """A sensor's faults, of any kind and its usual size, one after the other."""
    faults, at_s = [], random.expovariate(1 / HONEST_S)
    while at_s < seconds:
        kind, stop_s = random.choice(list(KINDS)), at_s + random.uniform(*FAULT_S)
        faults.append(Fault(modality, kind, at_s, stop_s, KINDS[kind][0] or 0.0))
        at_s = stop_s + random.expovariate(1 / HONEST_S)
    return faults


def freezes(random: Random, seconds: float) -> list[float]:
    """When the other processes are frozen, let go on, frozen again, and so on."""
    found, at_s = [], random.expovariate(1 / FREEZE_EVERY_S)
    while at_s < seconds:
        found += [at_s, at_s + random.uniform(*FROZEN_S)]
        at_s = found[-1] + random.expovariate(1 / FREEZE_EVERY_S)
    return found


def send(
    socket: zmq.Socket[bytes], seen: Seen, play: Replay, name: str, step: int, start_ns: int,
    at_s: float, injector: Injector,
) -> None:  # fmt: skip
    """One sample of a sensor, or what it says in place of it."""
    samples = play.stretch(name, step, step)
    t_ns = play.captured_ns(name, step, start_ns)
    for frame in injector.sent(play.source, samples, t_ns, at_s):
        socket.send_multipart(encode(frame))
        seen.done["frames_here"] += 1


def strange(
    socket: zmq.Socket[bytes], seen: Seen, manifest: Manifest, random: Random, now_ns: int,
    step: int, took_s: float,
) -> None:  # fmt: skip
    """What comes from nobody."""
    if random.random() < took_s / DAMAGED_EVERY_S:
        socket.send_multipart(fuzz.damage(random, fuzz.honest(random, manifest, step, now_ns)))
        seen.done["damaged"] += 1
    spec = random.choice(manifest.modalities)
    if random.random() < took_s / INVENTED_EVERY_S:
        sample = np.zeros((1, *spec.sample_shape), np.float32)
        name = f"invented-{random.randrange(1 << 32)}"
        socket.send_multipart(encode(Frame(spec.name, name, 0, now_ns, sample)))
        seen.done["invented"] += 1
    if random.random() < took_s / OVERSIZED_EVERY_S:
        payload = bytes(largest_part_bytes(manifest.modalities) + 1)
        socket.send_multipart([frames.topic(spec.name), b"", payload])
        seen.done["oversized"] += 1


def tend(served: Served, seen: Seen, over: threading.Event, random: Random) -> None:
    """Scrape, and reload at random times, until it is over."""
    while not over.wait(SCRAPE_EVERY_S):
        reload = random.random() < SCRAPE_EVERY_S / RELOAD_EVERY_S
        try:
            scraped = RECEIVED.search(served.ask("/metrics"))
            seen.received = int(scraped[1]) if scraped else 0
            if reload:
                served.ask("/reload", "POST")
        except OSError as error:  # refused, too late or not 200
            print(f"control plane: {error}", file=sys.stderr)
            seen.control_failures += 1
        seen.done["scrapes"] += 1
        seen.done["reloads"] += reload


@contextmanager
def serving() -> Iterator[Served]:
    """The shipped bundle in a process of its own, on free ports."""
    WHERE.mkdir(parents=True, exist_ok=True)
    ports = [f"127.0.0.1:{port}" for port in free_ports(3)]
    token, token_file, log = secrets.token_hex(16), WHERE / "http-token", WHERE / "server.log"
    token_file.write_text(token)
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "runtime.serve", "--engines", str(ROOT / "export"),
             "--frames", f"tcp://{ports[0]}", "--results", f"tcp://{ports[1]}",
             "--http", ports[2], "--http-token-file", str(token_file)],
            stdout=subprocess.PIPE, stderr=stderr, text=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            if not process.stdout.readline().startswith("serving"):
                raise SystemExit(f"the server did not start; see {log}")
            yield Served(process, f"tcp://{ports[0]}", f"tcp://{ports[1]}", ports[2], token, log)
        finally:
            process.kill()
            process.communicate()


@contextmanager
def elsewhere(served: Served, seconds: float) -> Iterator[int]:
    """Three rigs played by processes of their own, a process per sensor; their process group."""
    process = subprocess.Popen(
        [sys.executable, "-m", "runtime.simulate", "--frames", served.frames,
         "--frame-samples", "1", "--seconds", str(seconds + 60)],
        stdout=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        yield process.pid
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


if __name__ == "__main__":
    sys.exit(main())
