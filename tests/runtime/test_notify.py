"""runtime.notify: systemd hears that the server is ready, turns its loop, and drains."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from robult_edge.bundle import Bundle
from runtime.notify import Notify
from tests.failures.live import serving


class Clock:
    """Turned by hand."""

    def __init__(self, speed: float = 1.0) -> None:
        self.speed, self.ns = speed, 0

    def now_ns(self) -> int:
        return self.ns


class Manager:
    """systemd's end of the socket."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.settimeout(10)

    def heard(self) -> list[str]:
        """The next datagram's lines, which somebody sends within ten seconds."""
        return self.socket.recv(4096).decode().splitlines()

    def nothing(self) -> bool:
        self.socket.setblocking(False)
        try:
            self.socket.recv(4096)
        except BlockingIOError:
            return True
        return False


@pytest.fixture
def address(tmp_path: Path) -> str:
    return str(tmp_path / "notify")


@pytest.fixture
def manager(address: str) -> Iterator[Manager]:
    listening = Manager(address)
    yield listening
    listening.socket.close()


def test_what_is_said_is_one_datagram(manager: Manager, address: str) -> None:
    Notify(Clock(), {"NOTIFY_SOCKET": address}).say("READY=1", "STATUS=serving watch")
    assert manager.heard() == ["READY=1", "STATUS=serving watch"]


@pytest.mark.parametrize("speed", [1.0, 4.0])
def test_the_watchdog_is_fed_at_half_its_interval_of_real_time(
    speed: float, manager: Manager, address: str
) -> None:
    clock = Clock(speed)
    notify = Notify(clock, {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "10000000"})
    fed_s = []
    for tenth in range(201):
        clock.ns = int(tenth * 1e8 * speed)
        notify.turned()
        manager.socket.setblocking(False)
        try:
            assert manager.heard() == ["WATCHDOG=1"]
        except BlockingIOError:
            continue
        fed_s.append(tenth / 10)
    assert fed_s == [0, 5, 10, 15, 20]


@pytest.mark.parametrize(
    "watchdog",
    [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": str(os.getpid() + 1)}],
)
def test_a_watchdog_that_is_off_or_another_processs_is_not_fed(
    watchdog: dict[str, str], manager: Manager, address: str
) -> None:
    Notify(Clock(), {"NOTIFY_SOCKET": address} | watchdog).turned()
    assert manager.nothing()


@pytest.mark.skipif(not Path("/proc/net/unix").exists(), reason="abstract sockets are Linux's")
def test_abstract_sockets_are_understood() -> None:
    name = f"robult-notify-{os.getpid()}"
    manager = Manager(f"\0{name}")
    Notify(Clock(), {"NOTIFY_SOCKET": f"@{name}"}).say("READY=1")
    assert manager.heard() == ["READY=1"]
    manager.socket.close()


def test_a_manager_that_is_away_is_logged_and_harmless(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    Notify(Clock(), {"NOTIFY_SOCKET": address}).say("READY=1")
    assert "$NOTIFY_SOCKET" in caplog.text


def test_a_manager_that_does_not_read_is_not_waited_for(manager: Manager, address: str) -> None:
    notify = Notify(Clock(), {"NOTIFY_SOCKET": address})
    for _ in range(10_000):
        notify.say("WATCHDOG=1")
    assert manager.heard() == ["WATCHDOG=1"]


def test_without_a_manager_nothing_happens(caplog: pytest.LogCaptureFixture) -> None:
    notify = Notify(Clock(), {})
    notify.say("READY=1")
    notify.turned()
    assert not caplog.text


def test_a_server_tells_its_manager_of_its_life(
    shipped: Bundle, manager: Manager, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.setenv("WATCHDOG_USEC", "400000")
    with serving(shipped.path) as served:
        name = shipped.manifest.name
        assert manager.heard() == ["READY=1", f"STATUS=serving {name}"]
        assert [manager.heard() for _ in range(3)] == [["WATCHDOG=1"]] * 3
        assert served.stop() == 0
    while (line := manager.heard()) == ["WATCHDOG=1"]:
        pass
    assert line == ["STOPPING=1", "STATUS=draining"]
    assert manager.nothing()
