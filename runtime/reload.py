"""Another bundle for a running server: loaded and proven beside the old one, then swapped in."""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from datetime import datetime, timezone
from queue import SimpleQueue
from threading import Lock, Thread
from typing import TYPE_CHECKING

from robult_edge.errors import BundleError, RobultError
from robult_edge.frames import largest_part_bytes
from runtime import enginecache
from runtime.serving import Serving

if TYPE_CHECKING:
    from runtime.server import Server

log = logging.getLogger("robult.reload")

SWAP_S = 10.0
"""The hot thread takes the new bundle in between two turns, at most so much later."""


@dataclass(frozen=True)
class Reload:
    """How a reload went.

    Attributes:
        at: when it was over, ISO 8601, UTC.
        asked_by: ``SIGHUP`` or ``POST /reload``.
        ok: whether the bundle on disk is served now.
        bundle: what is served now.
        error: why the bundle on disk is not; null if it is.
        took_ms: from asking to serving.
    """

    at: str
    asked_by: str
    ok: bool
    bundle: str
    error: str | None
    took_ms: float


class Reloader:
    """Reads the bundle at ``--engines`` again, on a thread of its own, one reload at a time.

    A bundle that is damaged, half-copied, or whose engines are off their golden vectors is refused,
    and the one that is served goes on.

    Attributes:
        last: how the last one went; None before the first.
        counts: reloads by outcome.
    """

    def __init__(self, server: Server) -> None:
        self.last: Reload | None = None
        self.counts = {"ok": 0, "refused": 0}
        self._server = server
        self._one_at_a_time = Lock()
        self._asked: SimpleQueue[tuple[str, Future[Reload]]] = SimpleQueue()
        self._thread: Thread | None = None

    def start(self, asked_by: str) -> Future[Reload] | None:
        """Begin; None if another reload is under way."""
        if not self._one_at_a_time.acquire(blocking=False):
            log.warning("%s: a reload is under way already", asked_by)
            return None
        if self._thread is None:
            self._thread = Thread(target=self._work, name="reload", daemon=True)
            self._thread.start()
        future: Future[Reload] = Future()
        self._asked.put((asked_by, future))
        return future

    def _work(self) -> None:
        """One thread for every reload: malloc keeps what each thread has freed for that thread."""
        while True:
            asked_by, future = self._asked.get()
            self.last = self._reload(asked_by)
            if self.last.ok:
                self.counts["ok"] += 1
                log.info("%s: serving %s", asked_by, self.last.bundle)
            else:
                self.counts["refused"] += 1
                log.warning("%s refused: %s", asked_by, self.last.error)
            self._one_at_a_time.release()
            future.set_result(self.last)

    def _reload(self, asked_by: str) -> Reload:
        begun_s = time.monotonic()
        error = None
        try:
            self._swap()
        except RobultError as refused:
            error = str(refused)
        except Exception as unexpected:  # whatever it is, the old bundle goes on
            log.exception("reload failed")
            error = f"{type(unexpected).__name__}: {unexpected}"
        return Reload(
            at=datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            asked_by=asked_by,
            ok=error is None,
            bundle=self._server.manifest.name,
            error=error,
            took_ms=round((time.monotonic() - begun_s) * 1e3, 1),
        )

    def _swap(self) -> None:
        server = self._server
        config = server.config
        found = enginecache.load(config)
        largest = largest_part_bytes(found.manifest.modalities)
        if largest > server.largest_part_bytes:  # the socket's bound is set when it is bound
            raise BundleError(
                f"{config.engines}: frames of this bundle may have {largest} bytes, more than the "
                f"{server.largest_part_bytes} that this server listens for; restart it"
            )
        new = Serving.prepare(found, config)
        swap = server.between_turns(lambda: server.adopt(new))
        try:
            replaced = swap.result(SWAP_S)
        except FutureTimeout:
            if swap.cancel():
                new.close()
                raise RobultError(
                    f"the loop has not turned for {SWAP_S:g} s; see /livez, and reload again"
                ) from None
            replaced = swap.result()
        replaced.close()
