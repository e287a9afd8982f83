"""Against LitServe serving the same branches, by the same late fusion, to the same frames.

``python -m benchmarks.peers [--quick] [--json PATH]``

Both serve the shipped bundle by the rule ``mean`` on one worker, and take turns at having the
machine to themselves: LitServe spins while it waits for a batch. The runtime is sent a hop's
samples per sensor, cuts the windows and checks them, as it ships. LitServe has no rings: it is
posted ready windows (benchmarks/litserved.py), one request per rig on a connection that stays open,
over a bare socket, and what cutting them costs the client is not counted.

Latency is one rig's, from the last message sent to the answer, LitServe not batching. Throughput is
of 64 rigs at once, from the first message sent to the last answer, LitServe batching up to 64.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.process import Running, running
from robult_edge import bundle, data, results
from robult_edge.data.replay import Replay, replays
from robult_edge.frames import Frame, encode
from runtime.clock import SystemClock

ENGINES = Path(__file__).parents[1] / "export"
RIGS = 64
LATENCY_TICK_S, BURST_TICK_S = 0.03, 0.1
STRETCHES = 2
WARM_UP = 10
PATIENCE_S = 2.0
START_S = 60.0

Times = tuple[float, float]
"""From the first message sent, and from the last, to the last answer, s."""


def main() -> int:
    """Measure and print; write ``--json`` too."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under 45 s")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    figures = {}
    if find_spec("litserve"):
        figures = compare(*((250, 30) if args.quick else (1500, 200)))
    else:
        print("LitServe is not installed; mend: pip install 'robult-edge[bench]'")
    if args.json:
        args.json.write_text(json.dumps(figures))
    return 0


def compare(ticks: int, bursts: int) -> dict[str, float]:
    """Both measurements, printed, and their ratios."""
    alone = in_turns(1, ticks, LATENCY_TICK_S, "one rig")
    together = in_turns(RIGS, bursts, BURST_TICK_S, f"{RIGS} rigs")
    windows = RIGS * len(bundle.load(ENGINES).manifest.names)
    table = Table(title="one rig, and 64 rigs at once", title_justify="left")
    for column in ("", "robult-edge", "LitServe", "ratio"):
        table.add_column(column, justify="right")
    figures = {}
    for name, label, (ours, theirs) in (
        ("litserve_p50_ratio", "p50, µs", np.percentile(alone[:, :, 1], 50, axis=0) * 1e6),
        ("litserve_p99_ratio", "p99, µs", np.percentile(alone[:, :, 1], 99, axis=0) * 1e6),
        ("litserve_throughput_ratio", "windows/s", windows / np.median(together[:, :, 0], axis=0)),
    ):
        figures[name] = float(ours / theirs)
        table.add_row(label, f"{ours:.0f}", f"{theirs:.0f}", f"{ours / theirs:.2f}")
    Console().print(table)
    return figures


def in_turns(rigs: int, ticks: int, tick_s: float, what: str) -> np.ndarray:
    """`Times` [ticks, 2, 2] of the runtime and of LitServe, by turns with the machine to itself.

    Args:
        rigs: that send all at once, and are answered together where that can be.
        ticks: that count.
        tick_s: real time between two of them.
        what: to call it.
    """
    replay = replays(data.load("watch"))[0]
    stretches = []
    for stretch in range(1, STRETCHES + 1):
        each = range(ticks // STRETCHES + WARM_UP)
        ours = our_times(replay, rigs, track(each, f"{what}, robult-edge {stretch}"), tick_s)
        theirs = their_times(replay, rigs, track(each, f"{what}, LitServe {stretch}"), tick_s)
        stretches.append(np.stack([ours, theirs], axis=1)[WARM_UP:])
    return np.concatenate(stretches)


def our_times(replay: Replay, rigs: int, ticks: Iterable[int], tick_s: float) -> list[Times]:
    """What the runtime takes, tick by tick."""
    hop_ns = bundle.load(ENGINES).manifest.hop_ns
    speed = hop_ns / 1e9 / tick_s
    serve = ["-m", "runtime.serve", "--http", "", "--fusion", "mean", "--speed", str(speed)]
    times = []
    with running(serve, ENGINES, "serving") as server:
        clock = SystemClock(speed)
        start_ns = (clock.now_ns() // hop_ns + 5) * hop_ns
        for tick in ticks:
            frames = hop_frames(replay, rigs, tick, start_ns)
            end_ns = start_ns + (tick + 1) * hop_ns
            # Half a hop late: the clocks of two processes on a busy machine agree no better.
            while (wait_ns := end_ns + hop_ns // 2 - clock.now_ns()) > 0:
                time.sleep(wait_ns / 1e9 / speed)
            awaited = rigs if tick >= WARM_UP else 0  # the first window takes several hops
            times.append(ask_us(server, frames, end_ns, awaited))
    return times


def their_times(replay: Replay, rigs: int, ticks: Iterable[int], tick_s: float) -> list[Times]:
    """What LitServe takes, tick by tick."""
    times = []
    with litserve(ENGINES, batch=rigs, clients=rigs) as connections:
        start_s = time.perf_counter()
        for tick in ticks:
            request = post(windows(replay, tick))
            time.sleep(max(0.0, start_s + tick * tick_s - time.perf_counter()))
            times.append(ask_them(connections, request))
    return times


def hop_frames(replay: Replay, rigs: int, tick: int, start_ns: int) -> list[list[bytes]]:
    """A hop's samples of every sensor, from every rig."""
    messages = []
    for rig in range(rigs):
        for name, m in replay.modalities.items():
            first = tick * m.hop
            samples = replay.stretch(name, first, first + m.hop - 1)
            t_ns = replay.captured_ns(name, first, start_ns)
            messages.append(encode(Frame(name, f"rig-{rig}", tick, t_ns, samples)))
    return messages


def windows(replay: Replay, tick: int) -> bytes:
    """The windows of every sensor that end with that hop."""
    ends = {name: (tick + 1) * m.hop - 1 for name, m in replay.modalities.items()}
    return b"".join(replay.window(name, end).tobytes() for name, end in ends.items())


def ask_us(server: Running, messages: list[list[bytes]], end_ns: int, rigs: int) -> Times:
    """Send a tick's frames, and wait until so many rigs have their answers."""
    first = time.perf_counter()
    for message in messages[:-1]:
        server.frames.send_multipart(message)
    last = time.perf_counter()
    server.frames.send_multipart(messages[-1])
    while rigs:
        if not server.results.poll(round(PATIENCE_S * 1e3)):
            raise SystemExit(f"{rigs} rigs without an answer for {PATIENCE_S:g} s")
        rigs -= results.decode(server.results.recv_multipart()).t_ns >= end_ns
    done = time.perf_counter()
    return done - first, done - last


def ask_them(connections: list[socket.socket], request: bytes) -> Times:
    """Post a tick's windows of every rig, and wait until every one has its answer."""
    first = last = time.perf_counter()
    for connection in connections:
        last = time.perf_counter()
        connection.sendall(request)
    for connection in connections:
        answer(connection)
    done = time.perf_counter()
    return done - first, done - last


def post(body: bytes) -> bytes:
    """A request for the answer to ``body``."""
    head = (
        f"POST /predict HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/octet-stream\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def answer(connection: socket.socket) -> bytes:
    """The body of the next answer.

    Raises:
        ConnectionError: it is not a good one, or there is none.
    """
    head, got = b"", connection.recv(65536)
    while got and b"\r\n\r\n" not in head + got:
        head, got = head + got, connection.recv(65536)
    head, _, body = (head + got).partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.I)
    if length is None or not head.startswith(b"HTTP/1.1 200"):
        raise ConnectionError(f"LitServe answered {head[:200]!r}")
    while len(body) < int(length[1]):
        body += connection.recv(65536)
    return body


@contextmanager
def litserve(engines: Path, batch: int, clients: int) -> Iterator[list[socket.socket]]:
    """Open connections to LitServe, which serves ``engines`` until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = probe.getsockname()
    with TemporaryDirectory() as scratch, ExitStack() as stack:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.litserved", "--engines", str(engines),
             "--port", str(address[1]), "--batch", str(batch)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=os.environ | {"TMPDIR": scratch}, start_new_session=True,
        )  # fmt: skip
        # Its workers are processes too, and live on without it.
        stack.callback(process.wait)
        stack.callback(os.killpg, process.pid, signal.SIGKILL)
        give_up = time.monotonic() + START_S
        while not healthy(address):
            if process.poll() is not None or time.monotonic() > give_up:
                raise SystemExit("LitServe did not start; mend: python -m benchmarks.litserved")
            time.sleep(0.1)
        yield [
            stack.enter_context(socket.create_connection(address, timeout=PATIENCE_S))
            for _ in range(clients)
        ]


def healthy(address: tuple[str, int]) -> bool:
    """Whether LitServe's workers are ready."""
    try:
        with socket.create_connection(address, timeout=PATIENCE_S) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return answer(connection) == b"ok"
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
