"""A real server process, and sensors to play to it over real sockets."""

from __future__ import annotations

import json
import signal
import socket as socketlib
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq

from robult_edge import results
from robult_edge.data.replay import Replay
from robult_edge.frames import Frame, encode
from robult_edge.results import Result
from runtime.clock import SystemClock

SPEED = 4.0
HOP_FRAMES = 4
"""Frames per hop that the player sends of each sensor."""
PATIENT = ("--deadline-ms", "500")
"""At four times real time a deadline of 500 ms leaves 125 ms for a busy machine."""
TOKEN = "0123456789abcdef"

Message = list[bytes]
Script = Callable[[str, Frame], list[Frame | Message]]
"""What a sensor really sends in place of an honest frame."""


@dataclass
class Served:
    """A running server and what it has published so far."""

    process: subprocess.Popen[str]
    frames: str
    results: str
    http: str
    socket: zmq.Socket[bytes]
    answers: list[Result] = field(default_factory=list)
    _waited: int = 0
    """How many of them have been waited for, or passed over by waiting."""

    def wait_until_ready(self) -> None:
        """It has said that it serves, and its results are subscribed to."""
        assert self.process.stdout is not None
        ready = self.process.stdout.readline()
        assert ready.startswith("serving"), self.process.communicate()[1]
        self.socket.connect(self.results)

    def read(self, wait_s: float = 0.0) -> None:
        """Take in the results that are here, waiting for the first."""
        while self.socket.poll(wait_s * 1e3):
            self.answers.append(results.decode(self.socket.recv_multipart()))
            wait_s = 0

    def wait_for(self, wanted: Callable[[Result], bool], timeout_s: float = 20.0) -> Result:
        """The first result that is ``wanted`` of all after the one that was last waited for."""
        give_up = time.monotonic() + timeout_s
        while time.monotonic() < give_up:
            for result in self.answers[self._waited :]:
                self._waited += 1
                if wanted(result):
                    return result
            self.read(0.1)
        raise AssertionError(f"nothing like it in {timeout_s} s; last: {self.answers[-1:]}")

    def status(self) -> dict[str, Any]:
        """GET /status."""
        return self.ask("/status")[1]

    def ask(self, path: str, method: str = "GET", token: str = TOKEN) -> tuple[int, dict[str, Any]]:
        """Status code and JSON."""
        request = urllib.request.Request(
            f"http://{self.http}{path}", method=method, headers={"Authorization": f"Bearer {token}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=10)


@contextmanager
def serving(
    engines: Path,
    *options: str,
    speed: float = SPEED,
    python: str = sys.executable,
    main: Sequence[str] = ("-m", "runtime.serve"),
    wait: bool = True,
) -> Iterator[Served]:
    """Serve a bundle in a process of its own, on free ports, from outside the checkout."""
    frames, answers, http = (f"127.0.0.1:{port}" for port in free_ports(3))
    command = [
        python, *main, "--engines", str(engines),
        "--frames", f"tcp://{frames}", "--results", f"tcp://{answers}", "--http", http,
        "--speed", str(speed), *options,
    ]  # fmt: skip
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB)
    socket.subscribe(b"")
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=engines
    )
    served = Served(process, f"tcp://{frames}", f"tcp://{answers}", http, socket)
    try:
        if wait:
            served.wait_until_ready()
        yield served
    finally:
        process.kill()
        process.communicate()
        socket.close(linger=0)


def free_ports(n: int) -> list[int]:
    """Ports nobody listens on."""
    with ExitStack() as stack:
        probes = [stack.enter_context(closing(socketlib.socket())) for _ in range(n)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def honest(_modality: str, frame: Frame) -> list[Frame | Message]:
    """A sensor that sends what it sees."""
    return [frame]


class Player:
    """Plays one replay's sensors to a server, as a rig called ``source``."""

    def __init__(self, served: Served, replay: Replay, source: str = "rig") -> None:
        self.replay, self.source = replay, source
        self._served = served
        self._clock = SystemClock(SPEED)
        self._hop_ns = round(next(iter(replay.modalities.values())).hop_s * 1e9)
        self.start_ns = (self._clock.now_ns() // self._hop_ns + 3) * self._hop_ns
        self._step = 0
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PUB)
        self._socket.connect(served.frames)

    def play(self, hops: float, script: Script = honest) -> None:
        """Send the next ``hops`` of every sensor when they are due, each frame by ``script``."""
        for step in range(self._step, self._step + round(hops * HOP_FRAMES)):
            due_ns = self.start_ns + (step + 1) * self._hop_ns // HOP_FRAMES
            while (wait_ns := due_ns - self._clock.now_ns()) > 0:
                time.sleep(wait_ns / 1e9 / SPEED)
            for name, m in self.replay.modalities.items():
                n = m.hop // HOP_FRAMES
                first = step * n
                samples = self.replay.stretch(name, first, first + n - 1)
                t_ns = self.replay.captured_ns(name, first, self.start_ns)
                for sent in script(name, Frame(name, self.source, step, t_ns, samples)):
                    self._socket.send_multipart(encode(sent) if isinstance(sent, Frame) else sent)
            self._served.read()
        self._step += round(hops * HOP_FRAMES)

    def end_of(self, result: Result, modality: str) -> int:
        """Index of the last sample of the window that ``result`` rests on."""
        t_ns = result.modalities[modality].t_ns
        assert t_ns is not None
        return self.replay.index_at(modality, t_ns, self.start_ns)

    def close(self) -> None:
        """Hang up."""
        self._socket.close(linger=200)


@contextmanager
def playing(served: Served, replay: Replay, source: str = "rig") -> Iterator[Player]:
    """A connected player."""
    player = Player(served, replay, source)
    time.sleep(0.2)  # a PUB's connection is made in the background; frames before it are lost
    try:
        yield player
    finally:
        player.close()
