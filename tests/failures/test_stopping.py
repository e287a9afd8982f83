"""SIGTERM drains: what was received is answered, and the exit is clean."""

from __future__ import annotations

import subprocess
import sys

from robult_edge.bundle import Bundle
from robult_edge.data.replay import Replay
from tests.failures.live import PATIENT, playing, serving


def test_sigterm_drains_and_exits_with_zero(shipped: Bundle, replay: Replay) -> None:
    with serving(shipped.path, *PATIENT) as served, playing(served, replay) as player:
        player.play(6)
        before = len(served.answers)
        assert served.stop() == 0
        served.read(0.5)
        assert served.process.stderr is not None
        log = served.process.stderr.read()
    assert len(served.answers) >= before > 0
    assert f"drained; {len(served.answers)} results published" in log


def test_two_servers_on_one_address_is_one_sentence(shipped: Bundle) -> None:
    with serving(shipped.path) as served:
        done = subprocess.run(
            [sys.executable, "-m", "runtime.serve", "--engines", str(shipped.path),
             "--frames", served.frames, "--http", ""],
            capture_output=True, text=True, timeout=30,
        )  # fmt: skip
    assert done.returncode == 2
    assert f"cannot listen on {served.frames}" in done.stderr
    said = [line for line in done.stderr.splitlines() if "robult.engines" not in line]
    assert len(said) == 1
