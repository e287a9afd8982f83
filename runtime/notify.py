"""Telling systemd how the server fares: ``sd_notify`` over ``$NOTIFY_SOCKET``, silent without one.

The watchdog is fed by the loop that answers, so that a loop which hangs is started again.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

from runtime.clock import Clock

log = logging.getLogger("robult.notify")


class Notify:
    """Speaks to the service manager that started this process, if one did.

    Args:
        clock: the time.
        environment: with ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID``, as systemd
            sets them (sd_notify(3), sd_watchdog_enabled(3)).
    """

    def __init__(self, clock: Clock, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        mine = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        watchdog_us = int(environment.get("WATCHDOG_USEC", 0)) if mine else 0
        self._every_ns = int(watchdog_us * 1e3 / 2 * clock.speed)
        self._due_ns = 0
        self._clock = clock

    def say(self, *assignments: str) -> None:
        """Send e.g. ``"READY=1", "STATUS=serving"``; never waits, never raises."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
                out.setblocking(False)
                out.sendto("\n".join(assignments).encode(), self._address)
        except OSError as error:  # serving does not depend on who watches
            log.warning("$NOTIFY_SOCKET: %s", error)

    def turned(self) -> None:
        """The loop has turned: feed the watchdog if half its interval is over."""
        if self._every_ns and (now_ns := self._clock.now_ns()) >= self._due_ns:
            self._due_ns = now_ns + self._every_ns
            self.say("WATCHDOG=1")
