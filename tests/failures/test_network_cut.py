"""A cable that is pulled and plugged in again: the sensor behind it lives in a network of its own.

Namespaces take root and iproute2; elsewhere this is skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise

import pytest

from robult_edge.bundle import Bundle
from runtime.clock import SystemClock
from tests.failures.live import PATIENT, SPEED, free_ports, serving

HERE, THERE = "169.254.77.1", "169.254.77.2"


@dataclass(frozen=True)
class Cable:
    """Between this network and the namespace, which has nothing else.

    Attributes:
        namespace: its name.
        end: the interface at this end.
    """

    namespace: str
    end: str

    def pull(self) -> None:
        """Nothing passes, and nobody is told but by silence."""
        ip("link", "set", self.end, "down")

    def plug_in(self) -> None:
        """As before."""
        ip("link", "set", self.end, "up")


@pytest.fixture
def cable() -> Iterator[Cable]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces take root and the command ip (iproute2)")
    namespace, end = f"robult-{os.getpid()}", f"rob{os.getpid()}"
    try:
        ip("netns", "add", namespace)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespace can be made here: {error.stderr.strip()}")
    try:
        ip("link", "add", end, "type", "veth", "peer", "eth0", "netns", namespace)
        ip("address", "add", f"{HERE}/30", "dev", end)
        ip("link", "set", end, "up")
        ip("-n", namespace, "address", "add", f"{THERE}/30", "dev", "eth0")
        ip("-n", namespace, "link", "set", "eth0", "up")
        yield Cable(namespace, end)
    finally:
        ip("netns", "delete", namespace)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@contextmanager
def sensor(name: str, address: str, start_ns: int, *within: str) -> Iterator[None]:
    """A sensor's process, run by the command ``within``."""
    process = subprocess.Popen(
        [*within, sys.executable, "-m", "runtime.simulate", "--sensor", name, "--frames", address,
         "--start-ns", str(start_ns), "--seconds", "1000", "--speed", str(SPEED)]
    )  # fmt: skip
    try:
        yield
    finally:
        process.kill()
        process.wait()


def test_a_sensor_behind_a_cut_cable_is_left_out_and_comes_back_and_no_result_is_missed(
    shipped: Bundle, cable: Cable
) -> None:
    (port,) = free_ports(1)
    everywhere = ("--frames", f"tcp://0.0.0.0:{port}", "--insecure")
    with serving(shipped.path, *PATIENT, *everywhere) as served, ExitStack() as sensors:
        start_ns = SystemClock(SPEED).now_ns()
        sensors.enter_context(sensor("acc", f"tcp://127.0.0.1:{port}", start_ns))
        inside = ("ip", "netns", "exec", cable.namespace)
        sensors.enter_context(sensor("gyro", f"tcp://{HERE}:{port}", start_ns, *inside))
        served.wait_for(lambda r: r.alive == ["acc", "gyro"])
        cable.pull()
        alone = served.wait_for(lambda r: r.modalities["gyro"].state == "stale")
        assert alone.alive == ["acc"]
        assert alone.decision == "degraded"
        cable.plug_in()
        served.wait_for(lambda r: r.source == alone.source and r.alive == ["acc", "gyro"])
    mine = [a for a in served.answers if a.source == alone.source]
    assert all(b.seq == a.seq + 1 for a, b in pairwise(mine))
