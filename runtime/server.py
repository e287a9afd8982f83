"""The server: its sockets, the loop on its hot thread, and the main thread that watches it."""

from __future__ import annotations

import logging
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from math import ceil
from threading import Thread
from typing import Any, TypeVar

import numpy as np
import zmq

from robult_edge import results, subsets
from robult_edge.bundle import Bundle, Manifest
from robult_edge.errors import FrameError, RobultError
from robult_edge.frames import largest_part_bytes
from runtime.builder import Builder
from runtime.clock import Clock, SystemClock
from runtime.config import Config
from runtime.curve import Gate
from runtime.engines import Candidate, Graph
from runtime.exposure import check_socket
from runtime.ingest import Ingest
from runtime.latest import LatestRig
from runtime.metrics import Metrics
from runtime.notify import Notify
from runtime.policy import Policy
from runtime.reload import Reloader
from runtime.rigs import Rig, Rigs
from runtime.serving import Serving
from runtime.tick import Decider
from runtime.watchdog import Relieved, Watchdog

log = logging.getLogger("robult.server")

RECEIVE_HWM = 1000
SEND_HWM = 1000
POLLIN = int(zmq.POLLIN)
DRAIN_MESSAGES = 256
"""Frames taken in one turn at most, so that a flood cannot hold a due tick back."""
LONGEST_WAIT_S = 0.1
WATCH_S = 0.05
"""How often the main thread looks after engines."""

T = TypeVar("T")


class Server:
    """Serves one bundle: frames in over SUB, results out over PUB.

    Two threads: the hot one turns the loop; the main one watches it, lets another carry on where
    an engine hangs, and has broken engines mended on threads of their own.

    Args:
        config: plain settings.
        bundle: loaded and checked.
        clock: the time.

    Raises:
        RobultError: a branch runs nowhere, or an address cannot be bound.
    """

    def __init__(self, config: Config, bundle: Bundle, clock: Clock | None = None) -> None:
        self.config = config
        self.clock = clock or SystemClock(config.speed)
        self.serving = Serving.prepare(bundle, config)
        self.ingest = Ingest(self.manifest.modalities)
        self.rigs = _rigs(self.serving, config.policy)
        self.metrics = Metrics()
        self.reloader = Reloader(self)
        self.builder = Builder(self)
        self.stopping = False
        self.notify = Notify(self.clock, os.environ)
        self.turned_ns = 0
        self.started_ns = self.clock.now_ns()
        self.watchdog = Watchdog(self.clock)
        self._pending: dict[int, list[tuple[Rig, np.ndarray]]] = {}
        self._inbox: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._died: BaseException | None = None
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._frames = context.socket(zmq.SUB)
        self._frames.setsockopt(zmq.RCVHWM, RECEIVE_HWM)
        # ZeroMQ cuts the connection of a longer one, before it is read.
        self.largest_part_bytes = largest_part_bytes(self.manifest.modalities)
        self._frames.setsockopt(zmq.MAXMSGSIZE, self.largest_part_bytes)
        self._frames.setsockopt(zmq.SUBSCRIBE, b"")
        self._results = context.socket(zmq.PUB)
        self._results.setsockopt(zmq.SNDHWM, SEND_HWM)
        self._results.setsockopt(zmq.LINGER, 500)
        keys = config.policy.curve_keys
        self._gate = Gate(context, keys) if keys else None
        self.frames_address = self._bind(self._frames, config.frames, "--frames")
        self.results_address = self._bind(self._results, config.results, "--results")

    @property
    def manifest(self) -> Manifest:
        """Of the bundle that is served."""
        return self.serving.manifest

    def run(self) -> None:
        """Serve until told to stop, then answer what has been received and close."""
        with _signals(self):
            self.builder.start()
            self.supervise()
        self.close()

    def supervise(self) -> None:
        """Have the loop turned on a thread, and look after its engines until it has drained."""
        hot = self._carry_on()
        while hot.is_alive():
            hot.join(WATCH_S)
            if self.watchdog.relieve(hot):
                hot = self._carry_on()
            self.mend()
        if self._died is not None:
            raise self._died

    def turn(self, wait_s: float = 0.0) -> None:
        """One turn: wait for frames, take them in, answer every tick that is due."""
        while self._inbox:
            _settle(*self._inbox.popleft())
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
        log.info("drained; %d results published", self.metrics.published)

    def close(self) -> None:
        """Close sockets, end what is being built, and free engines."""
        self.builder.stop()
        self._frames.close(linger=0)
        self._results.close()
        if self._gate:
            self._gate.close()
        self.serving.close()

    def between_turns(self, act: Callable[[], T]) -> Future[T]:
        """Have ``act`` done on the hot thread, while it is at nothing else."""
        future: Future[T] = Future()
        self._inbox.append((future, act))
        return future

    def adopt(self, serving: Serving) -> Serving:
        """Serve another bundle from this turn on; the one before. On the hot thread only."""
        before = self.serving
        self.rigs.adopt(serving.manifest, serving.max_sources, self.clock.now_ns())
        self.ingest.adopt(serving.manifest.modalities)
        self.serving = serving
        self._pending.clear()
        return before

    def mend(self) -> list[Thread]:
        """Start to try every engine that is due to be tried, each on a thread of its own."""
        threads = []
        for graph, candidate in self.serving.engines.due(self.clock.now_ns()):
            name = f"mend {graph.name}"
            candidate.thread = Thread(
                target=self._try_again, args=(graph, candidate), name=name, daemon=True
            )
            candidate.thread.start()
            threads.append(candidate.thread)
        return threads

    def _try_again(self, graph: Graph, candidate: Candidate) -> None:
        try:
            backend = graph.prove(candidate)
        except Exception as error:  # any backend may fail in any way
            candidate.bar(str(error), self.clock.now_ns())
            log.warning("%s is not back on %s: %s", graph.name, candidate.label, error)
            return
        now_ns = self.clock.now_ns()
        replaced = self.between_turns(lambda: graph.install(candidate, backend, now_ns)).result()
        log.info("%s runs on %s", graph.name, graph.choice)
        if replaced is not None:
            replaced.close()
        fused = self.serving.fused
        made = fused.make()
        self.between_turns(lambda: fused.install(made)).result()

    def _carry_on(self) -> Thread:
        """A thread that turns the loop from where it stands."""
        thread = Thread(target=self._loop, name="hot", daemon=True)
        thread.start()
        return thread

    def _pick_up(self) -> None:
        """Answer what a relieved thread left, which has been looked at and is no news any more."""
        for rig in self.rigs.rigs.values():
            rig.has_news = True
        self._answer()

    def _loop(self) -> None:
        try:
            self._pick_up()
            while not self.stopping:
                self.turn(self._wait_s())
            self.drain()
        except Relieved:
            log.warning("a hung engine came back")
        except BaseException as error:
            self._died = error

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
        self.turned_ns = self.clock.now_ns()
        while waiting:
            self._infer(waiting, self.clock.now_ns())
            waiting = [rig for rig in waiting if rig.is_due(self.clock.now_ns())]
            self._fuse(waiting)
            for rig in waiting:
                rig.close(self.clock.now_ns())
            self._fuse([rig for rig in waiting if self.serving.doubt.leave_out(rig)])
            for rig, (decider, head) in zip(waiting, self._heads(waiting), strict=True):
                self._publish(rig, decider, head)
                rig.next_tick(self.clock.now_ns())
            waiting = [rig for rig in waiting if rig.may_be_behind(self.clock.now_ns())]

    def _infer(self, rigs: list[Rig], now_ns: int) -> None:
        """Run the branches on every window that has become complete, all sources in one batch.

        Where the device answers a tick in one go, windows are held until it is due.
        """
        hold = self.serving.fused.ready
        for rig in rigs:
            for i, window in rig.windows(now_ns, self.serving.timing.patience_ns):
                if hold:
                    rig.tick.hold(i, window)
                else:
                    self._pending.setdefault(i, []).append((rig, window))
        self._run_branches()

    def _run_branches(self) -> None:
        """Run what is pending, which stays so until then: another thread can carry on."""
        while self._pending:
            i, batch = next(iter(self._pending.items()))
            graph = self.serving.engines.branches[i]
            begun_ns = self.clock.now_ns()
            windows = _stack([window for _, window in batch])
            outputs = self.watchdog.run(graph, begun_ns, windows)
            del self._pending[i]
            if not outputs:
                for rig, _ in batch:
                    rig.streams[i].liveness.lie(graph.trouble)
                continue
            logits, h = outputs
            took_ns = self.clock.now_ns() - begun_ns
            for b, (rig, _) in enumerate(batch):
                tick = rig.tick
                tick.logits[i], tick.h[i] = logits[b], h[b]
                tick.windows[i] = windows[b].copy()  # it may lie in the ring
                tick.mask |= 1 << i
                tick.infer_ns += took_ns

    def _fuse(self, rigs: list[Rig]) -> None:
        """Answer on the device what was held for it, rigs of one alive subset in one batch.

        What it leaves, the branches are run on.
        """
        holding = [rig for rig in rigs if rig.tick.held]
        if not holding:
            return
        by_subset: dict[int, list[Rig]] = {}
        for rig in holding:
            if subsets.mask_of(rig.tick.held) == rig.tick.mask:
                by_subset.setdefault(rig.tick.mask, []).append(rig)
        for mask, some in by_subset.items():
            begun_ns = self.clock.now_ns()
            windows = [_stack([r.tick.windows[i] for r in some]) for i in subsets.members(mask)]
            answers = self.watchdog.run(self.serving.fused, begun_ns, mask, *windows)
            if not answers:
                continue
            took_ns = self.clock.now_ns() - begun_ns
            p, own = (each.tolist() for each in answers)
            for b, rig in enumerate(some):
                rig.tick.fused = (p[b], own[b])
                rig.tick.held.clear()
                rig.tick.infer_ns += took_ns
        for rig in holding:
            for i in rig.tick.held:
                self._pending.setdefault(i, []).append((rig, rig.tick.windows[i]))
                rig.tick.mask &= ~(1 << i)
            rig.tick.held.clear()
        self._run_branches()

    def _heads(self, rigs: list[Rig]) -> list[tuple[Decider, np.ndarray | None]]:
        """Per rig, the rule that answers its tick, and logits [K] of the fusion head.

        All in one batch; None where it has no say, or where it is out and the rule is ``mean``.
        """
        deciders = self.serving.deciders
        decider = deciders[self.config.fusion]
        wanted = [None if rig.tick.fused else decider.head_wants(rig.tick.mask) for rig in rigs]
        asking = [(i, uses) for i, uses in enumerate(wanted) if uses is not None]
        heads: list[tuple[Decider, np.ndarray | None]] = [(decider, None)] * len(rigs)
        if asking:
            begun_ns = self.clock.now_ns()
            h, alive = _stack([rigs[i].tick.h for i, _ in asking]), _stack([a for _, a in asking])
            outputs = self.watchdog.run(self.serving.engines.head, begun_ns, h, alive)
            took_ns = self.clock.now_ns() - begun_ns
            for b, (i, _) in enumerate(asking):
                heads[i] = (decider, outputs[0][b]) if outputs else (deciders["mean"], None)
                rigs[i].tick.infer_ns += took_ns
        return heads

    def _publish(self, rig: Rig, decider: Decider, head: np.ndarray | None) -> None:
        result = decider.decide(rig, head, self.clock)
        topic, body = results.encode(result)
        self._results.send(topic, zmq.SNDMORE)
        self._results.send(body)
        rig.latest = result
        self.metrics.observe(self.serving.subset_names[rig.tick.mask], result.latency_us)


def _stack(arrays: list[np.ndarray]) -> np.ndarray:
    """One batch of them; without a copy if it is one of one."""
    if len(arrays) == 1:
        return arrays[0][None]
    return np.array(arrays)  # several times faster than np.stack


def _rigs(serving: Serving, policy: Policy) -> Rigs:
    make = partial(LatestRig, policy=policy) if policy.mode == "latest" else Rig
    return Rigs(serving.manifest, serving.max_sources, serving.timing.idle_ns, make)


def _settle(future: Future[T], act: Callable[[], T]) -> None:
    """Do ``act`` unless nobody waits for it any more."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(act())
    except Exception as error:  # whoever asked is told; the loop goes on
        future.set_exception(error)


@contextmanager
def _signals(server: Server) -> Iterator[None]:
    """Reload on SIGHUP; stop gracefully on SIGTERM or Ctrl-C, a second one acts as ever."""

    def stop(number: int, _frame: object) -> None:
        log.info("%s: draining", signal.Signals(number).name)
        server.stopping = True
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, before[each])

    def reload(_number: int, _frame: object) -> None:
        server.reloader.start("SIGHUP")

    before = {each: signal.signal(each, stop) for each in (signal.SIGTERM, signal.SIGINT)}
    before[signal.SIGHUP] = signal.signal(signal.SIGHUP, reload)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
