"""A server process under measurement, and the sockets to talk to it."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from typing import IO

import zmq


@dataclass(frozen=True)
class Running:
    """A server that is ready.

    Attributes:
        pid: of its process.
        ready_s: when it said so, as `time.perf_counter` counts.
        frames: to send frames to it.
        results: to read results from it.
    """

    pid: int
    ready_s: float
    frames: zmq.Socket[bytes]
    results: zmq.Socket[bytes]


@contextmanager
def running(
    command: list[str], engines: Path, ready: str, log: int | IO[str] = subprocess.DEVNULL
) -> Iterator[Running]:
    """Run ``python COMMAND`` on free ports until the block ends; it says ``ready`` when it is."""
    addresses = [f"tcp://127.0.0.1:{port}" for port in free_ports(2)]
    process = subprocess.Popen(
        [sys.executable, *command, "--engines", str(engines),
         "--frames", addresses[0], "--results", addresses[1]],
        stdout=subprocess.PIPE, stderr=log, text=True,
    )  # fmt: skip
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    frames, results = context.socket(zmq.PUB), context.socket(zmq.SUB)
    results.subscribe(b"")
    try:
        assert process.stdout is not None
        if not process.stdout.readline().startswith(ready):
            raise SystemExit(f"{' '.join(command)} did not start")
        ready_s = time.perf_counter()
        frames.connect(addresses[0])
        results.connect(addresses[1])
        time.sleep(0.3)  # both connections are made in the background
        yield Running(process.pid, ready_s, frames, results)
    finally:
        process.kill()
        process.communicate()
        frames.close(linger=0)
        results.close(linger=0)


def free_ports(n: int) -> list[int]:
    """Ports nobody listens on."""
    with ExitStack() as stack:
        probes = [stack.enter_context(closing(socket())) for _ in range(n)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def rss_mb(pid: int) -> float:
    """Resident memory of a process.

    Raises:
        ProcessLookupError: it is dead.
    """
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    if found is None:
        raise ProcessLookupError(f"process {pid} is dead")
    return int(found[1]) / 1e3
