"""What happens to a server in a soak (benchmarks/soak.py), and what is seen to come of it."""

from __future__ import annotations

import os
import re
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
from random import Random

import numpy as np
import zmq
from rich.progress import track

from benchmarks import fuzz
from benchmarks.process import Running, rss_mb
from robult_edge import data, frames, results
from robult_edge.bundle import Manifest
from robult_edge.data.inject import KINDS, Fault, Injector
from robult_edge.data.replay import Replay, replays
from robult_edge.frames import Frame, encode, largest_part_bytes
from robult_edge.results import Result
from runtime.clock import SystemClock

RIGS_HERE = 7
HONEST_S, FAULT_S = 20.0, (1.0, 8.0)
"""Mean time between a sensor's faults; shortest and longest of them."""
FREEZE_EVERY_S, FROZEN_S = 15.0, (1.0, 4.0)
DAMAGED_EVERY_S, INVENTED_EVERY_S, OVERSIZED_EVERY_S = 0.1, 1.0, 5.0
RELOAD_EVERY_S, SCRAPE_EVERY_S = 3.0, 1.0
OVERDUE_HOPS = 5
"""A rig whose newest result is older than this at the end has missed the rest."""
RECEIVED = re.compile(rb"^robult_frames_received_total (\d+)", re.MULTILINE)


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


class Fire:
    """Everything that happens to the server but what `tend` does.

    Args:
        server: whom to send to.
        others: the process group that is frozen now and then.
        manifest: of the bundle.
        seen: what is kept count in.
        seconds, seed: how long it is to last, and what happens.
    """

    def __init__(
        self,
        server: Running,
        others: int,
        manifest: Manifest,
        seen: Seen,
        seconds: float,
        seed: int,
    ) -> None:
        self._server, self._others, self._manifest, self._seen = server, others, manifest, seen
        self._random, self._clock = Random(seed), SystemClock()
        dataset = data.load(manifest.provenance["dataset"])
        here = replays(dataset, rigs=4)[:RIGS_HERE]
        self._sources = [play.source for play in (*here, *replays(dataset))]
        self._sensors = [
            (play, name, Injector(schedule(self._random, name, seconds), spec))
            for play in here
            for name, spec in play.modalities.items()
        ]
        self._freezes = freezes(self._random, seconds)
        self._frozen = False
        self._stranger: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PUB)
        self._stranger.connect(server.frames.getsockopt_string(zmq.LAST_ENDPOINT))
        self._period_ns = manifest.modalities[0].period_ns
        self._start_ns = self._clock.now_ns()

    def burn(self, seconds: float) -> None:
        """Everything, sample by sample.

        Raises:
            ProcessLookupError: the server is gone.
        """
        a_second = round(1e9 / self._period_ns)
        for step in track(range(round(seconds * a_second)), "under fire"):
            due_ns = self._start_ns + (step + 1) * self._period_ns
            while (wait_ns := due_ns - self._clock.now_ns()) > 0:
                time.sleep(wait_ns / 1e9)
            at_s = step * self._period_ns / 1e9
            for sensor in self._sensors:
                self._send(*sensor, step, at_s)
            self._strange(step)
            self._freeze(at_s)
            self._read()
            if step % a_second == 0:
                self._seen.rss.append((at_s, rss_mb(self._server.pid)))

    def close(self) -> None:
        """Read what is on its way, and count what rigs were owed that are not answered any more."""
        end_ns = self._clock.now_ns()
        time.sleep(0.2)
        self._read()
        for source in self._sources:
            newest = self._seen.newest.get(source)
            behind_ns = end_ns - (newest.t_ns if newest else self._start_ns)
            self._seen.missed += max(0, behind_ns // self._manifest.hop_ns - OVERDUE_HOPS)
        self._stranger.close(linger=0)

    def _send(self, play: Replay, name: str, injector: Injector, step: int, at_s: float) -> None:
        """One sample of a sensor, or what it says in place of it."""
        t_ns = play.captured_ns(name, step, self._start_ns)
        for frame in injector.sent(play.source, play.stretch(name, step, step), t_ns, at_s):
            self._server.frames.send_multipart(encode(frame))

    def _strange(self, step: int) -> None:
        """What comes from nobody."""
        spec, now_ns = self._random.choice(self._manifest.modalities), self._clock.now_ns()
        if self._happens("damaged", DAMAGED_EVERY_S):
            parts = fuzz.honest(self._random, self._manifest, step, now_ns)
            self._stranger.send_multipart(fuzz.damage(self._random, parts))
        if self._happens("invented", INVENTED_EVERY_S):
            source = f"invented-{self._random.randrange(1 << 32)}"
            sample = np.zeros((1, *spec.sample_shape), np.float32)
            self._stranger.send_multipart(encode(Frame(spec.name, source, 0, now_ns, sample)))
        if self._happens("oversized", OVERSIZED_EVERY_S):
            payload = bytes(largest_part_bytes(self._manifest.modalities) + 1)
            self._stranger.send_multipart([frames.topic(spec.name), b"", payload])

    def _happens(self, what: str, every_s: float) -> bool:
        happens = self._random.random() < self._period_ns / 1e9 / every_s
        self._seen.done[what] += happens
        return happens

    def _freeze(self, at_s: float) -> None:
        """Freeze the other processes, or let them go on, when it is time."""
        if self._freezes and at_s >= self._freezes[0]:
            self._freezes.pop(0)
            self._frozen = not self._frozen
            os.killpg(self._others, signal.SIGSTOP if self._frozen else signal.SIGCONT)
            self._seen.done["freezes"] += self._frozen

    def _read(self) -> None:
        while self._server.results.poll(0):
            self._seen.take(results.decode(self._server.results.recv_multipart()))


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


def tend(http: str, token: str, seen: Seen, over: threading.Event, random: Random) -> None:
    """Scrape, and reload at random times, until it is over."""
    while not over.wait(SCRAPE_EVERY_S):
        reload = random.random() < SCRAPE_EVERY_S / RELOAD_EVERY_S
        try:
            scraped = RECEIVED.search(ask(f"http://{http}/metrics", "GET", token))
            seen.received = int(scraped[1]) if scraped else 0
            if reload:
                ask(f"http://{http}/reload", "POST", token)
        except OSError as error:  # refused, too late or not 200
            print(f"control plane: {error}", file=sys.stderr)
            seen.control_failures += 1
        seen.done["scrapes"] += 1
        seen.done["reloads"] += reload


def ask(url: str, method: str, token: str) -> bytes:
    """The reply of the control plane."""
    headers = {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(url, method=method, headers=headers)
    with urllib.request.urlopen(request, timeout=60) as reply:
        return bytes(reply.read())


@contextmanager
def elsewhere(address: str, seconds: float) -> Iterator[int]:
    """Three rigs played by processes of their own, a process per sensor; their process group."""
    process = subprocess.Popen(
        [sys.executable, "-m", "runtime.simulate", "--frames", address,
         "--frame-samples", "1", "--seconds", str(seconds + 60)],
        stdout=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        yield process.pid
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
