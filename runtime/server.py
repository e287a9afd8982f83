"""The server: sockets and the one hot thread live here and nowhere else."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from math import ceil
from typing import Any

import numpy as np
import zmq

from robult_edge import results
from robult_edge.bundle import Bundle, Manifest
from robult_edge.errors import FrameError, RobultError
from robult_edge.frames import largest_part_bytes
from runtime.clock import Clock, SystemClock
from runtime.config import Config
from runtime.curve import Gate
from runtime.engines import Engines
from runtime.exposure import check_socket
from runtime.ingest import Ingest
from runtime.latest import LatestRig
from runtime.notify import Notify
from runtime.policy import Policy, Timing
from runtime.rigs import Rig, Rigs, memory_bytes
from runtime.tick import Decider

log = logging.getLogger("robult.server")

RECEIVE_HWM = 1000
SEND_HWM = 1000
POLLIN = int(zmq.POLLIN)
DRAIN_MESSAGES = 256
"""Frames taken in one turn at most, so that a flood cannot hold a due tick back."""
LONGEST_WAIT_S = 0.1


class Server:
    """Serves one bundle: frames in over SUB, results out over PUB.

    Args:
        config: plain settings.
        bundle: loaded and checked.
        clock: the time.

    Raises:
        RobultError: a branch runs nowhere, or an address cannot be bound.
    """

    def __init__(self, config: Config, bundle: Bundle, clock: Clock | None = None) -> None:
        self.config = config
        self.manifest = bundle.manifest
        self.clock = clock or SystemClock(config.speed)
        self.engines = Engines(bundle)
        self.decider = Decider(
            self.manifest, config.fusion if self.engines.has_head else "mean", config.policy
        )
        self.ingest = Ingest(self.manifest.modalities)
        timing = config.policy.timing(self.manifest.hop_ns, self.clock.speed)
        self.rigs = _rigs(self.manifest, config.policy, timing)
        self.published = 0
        self.stopping = False
        self.notify = Notify(self.clock, os.environ)
        self._started_ns = self.clock.now_ns()
        self._patience_ns = timing.patience_ns
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._frames = context.socket(zmq.SUB)
        self._frames.setsockopt(zmq.RCVHWM, RECEIVE_HWM)
        # ZeroMQ cuts the connection of a longer one, before it is read.
        self._frames.setsockopt(zmq.MAXMSGSIZE, largest_part_bytes(self.manifest.modalities))
        self._frames.setsockopt(zmq.SUBSCRIBE, b"")
        self._results = context.socket(zmq.PUB)
        self._results.setsockopt(zmq.SNDHWM, SEND_HWM)
        self._results.setsockopt(zmq.LINGER, 500)
        keys = config.policy.curve_keys
        self._gate = Gate(context, keys) if keys else None
        self.frames_address = self._bind(self._frames, config.frames, "--frames")
        self.results_address = self._bind(self._results, config.results, "--results")

    def run(self) -> None:
        """Serve until told to stop, then answer what has been received and close."""
        with _signals(self):
            while not self.stopping:
                self.turn(self._wait_s())
            self.drain()
        self.close()

    def turn(self, wait_s: float = 0.0) -> None:
        """One turn: wait for frames, take them in, answer every tick that is due."""
        self._receive(wait_s)
        self._answer()
        self.notify.turned()

    def handle(self, messages: Iterable[list[bytes]]) -> None:
        """A turn with messages that did not come over the socket."""
        for parts in messages:
            self._take(parts)
        self._answer()

    def drain(self) -> None:
        """Take in what waits at the socket, and answer what it completes."""
        self.notify.say("STOPPING=1", "STATUS=draining")
        while self._receive():
            self._answer()
        log.info("drained; %d results published", self.published)

    def close(self) -> None:
        """Close sockets and free engines."""
        self._frames.close(linger=0)
        self._results.close()
        if self._gate:
            self._gate.close()
        self.engines.close()

    def status(self) -> dict[str, Any]:
        """What an operator asks: engines, sensors, and what was refused. Safe from any thread."""
        now_ns = self.clock.now_ns()
        return {
            "bundle": self.manifest.name,
            "fusion": self.decider.rule,
            "engines": self.engines.choices,
            "uptime_s": round((now_ns - self._started_ns) / 1e9 / self.clock.speed, 1),
            "results_published": self.published,
            "sources_forgotten": self.rigs.forgotten,
            "frames_received": self.ingest.received,
            "frames_rejected": dict(self.ingest.rejected),
            "last_rejection": dict(self.ingest.last_error),
            "sources": {
                source: {
                    stream.spec.name: {
                        "state": stream.liveness.state,
                        "reason": stream.liveness.reason,
                        "frames": dict(stream.counts),
                    }
                    for stream in rig.streams
                }
                for source, rig in list(self.rigs.rigs.items())
            },
        }

    def _bind(self, socket: zmq.Socket[bytes], address: str, flag: str) -> str:
        if self._gate:
            self._gate.guard(socket)
        check_socket(address, flag, self.config.policy.curve_keys, self.config.insecure)
        try:
            socket.bind(address)
        except zmq.ZMQError as error:
            raise RobultError(
                f"cannot listen on {address} ({error}); is it in use? mend: {flag} ADDRESS"
            ) from None
        return socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def _wait_s(self) -> float:
        due_ns = self.rigs.next_due_ns()
        if due_ns is None:
            return LONGEST_WAIT_S
        return min(LONGEST_WAIT_S, (due_ns - self.clock.now_ns()) / 1e9 / self.clock.speed)

    def _receive(self, wait_s: float = 0.0) -> bool:
        """Wait for a frame, and take in all that are here; whether there were any."""
        socket = self._frames
        socket.setsockopt(zmq.RCVTIMEO, max(0, ceil(wait_s * 1e3)))
        try:
            self._take(socket.recv_multipart())
        except zmq.Again:
            return False
        for _ in range(DRAIN_MESSAGES):
            if not socket.get(zmq.EVENTS) & POLLIN:  # type: ignore[operator]
                break
            self._take(socket.recv_multipart())
        return True

    def _take(self, parts: list[bytes]) -> None:
        frame = self.ingest.read(parts)
        if frame is None:
            return
        try:
            self.rigs.place(frame, self.clock.now_ns())
        except FrameError as error:
            self.ingest.refuse(error)

    def _answer(self) -> None:
        """Run what has become complete and publish every tick that is due."""
        waiting = self.rigs.waiting(self.clock.now_ns())
        while waiting:
            now_ns = self.clock.now_ns()
            self._infer(waiting, now_ns)
            waiting = [rig for rig in waiting if rig.is_due(self.clock.now_ns())]
            for rig in waiting:
                rig.close(self.clock.now_ns())
            for rig, head in zip(waiting, self._heads(waiting), strict=True):
                self._publish(rig, head)
                rig.next_tick(self.clock.now_ns())

    def _infer(self, rigs: list[Rig], now_ns: int) -> None:
        """Run the branches on every window that has become complete, all sources in one batch."""
        batches: dict[int, list[tuple[Rig, np.ndarray]]] = {}
        for rig in rigs:
            for i, window in rig.windows(now_ns, self._patience_ns):
                batches.setdefault(i, []).append((rig, window))
        for i, batch in batches.items():
            begun_ns = self.clock.now_ns()
            try:
                logits, h = self.engines.branch(i, _stack([window for _, window in batch]))
            except Exception as error:  # an engine may fail in any way; the other branches go on
                log.exception("branch %s failed", self.manifest.names[i])
                for rig, _ in batch:
                    rig.streams[i].liveness.lie(f"engine failed: {error}")
                continue
            took_ns = self.clock.now_ns() - begun_ns
            for b, (rig, _) in enumerate(batch):
                tick = rig.tick
                tick.logits[i], tick.h[i] = logits[b], h[b]
                tick.mask |= 1 << i
                tick.infer_ns += took_ns

    def _heads(self, rigs: list[Rig]) -> list[np.ndarray | None]:
        """Logits [K] of the fusion head per rig, all in one batch; None where it has no say."""
        wanted = [self.decider.head_wants(rig.tick.mask) for rig in rigs]
        asking = [(i, uses) for i, uses in enumerate(wanted) if uses is not None]
        heads: list[np.ndarray | None] = [None] * len(rigs)
        if asking:
            begun_ns = self.clock.now_ns()
            h = _stack([rigs[i].tick.h for i, _ in asking])
            logits = self.engines.head(h, _stack([uses for _, uses in asking]))
            took_ns = self.clock.now_ns() - begun_ns
            for (i, _), said in zip(asking, logits, strict=True):
                heads[i] = said
                rigs[i].tick.infer_ns += took_ns
        return heads

    def _publish(self, rig: Rig, head: np.ndarray | None) -> None:
        result = self.decider.decide(rig, head, self.clock)
        self._results.send_multipart(results.encode(result), copy=True)
        self.published += 1


def _stack(arrays: list[np.ndarray]) -> np.ndarray:
    """One batch of them; without a copy if it is one of one."""
    return arrays[0][None] if len(arrays) == 1 else np.stack(arrays)


def _rigs(manifest: Manifest, policy: Policy, timing: Timing) -> Rigs:
    most = int(policy.max_memory_mb * 1e6) // memory_bytes(manifest)
    make: Callable[..., Rig] = Rig
    if policy.mode == "latest":
        make = partial(LatestRig, max_age_ns=timing.max_age_ns)
    return Rigs(manifest, max(1, min(policy.max_sources, most)), timing.idle_ns, make)


@contextmanager
def _signals(server: Server) -> Iterator[None]:
    """Stop gracefully on SIGTERM or Ctrl-C; a second one acts as it always did."""

    def stop(number: int, _frame: object) -> None:
        log.info("%s: draining", signal.Signals(number).name)
        server.stopping = True
        for each, handler in before.items():
            signal.signal(each, handler)

    before = {each: signal.signal(each, stop) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
