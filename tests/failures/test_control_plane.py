"""The probes of a real server that is still loading, or whose loop stands still."""

from __future__ import annotations

import time
import urllib.error
from pathlib import Path
from typing import Any

import pytest

from robult_edge.bundle import Bundle
from robult_edge.data.replay import Replay
from tests.failures.live import Served, playing, serving

STUCK = """
import sys, threading
from pathlib import Path
from runtime import serve, tick

decide = tick.Decider.decide
def stuck(self, rig, *rest):
    if Path({flag!r}).exists():
        threading.Event().wait()
    return decide(self, rig, *rest)

tick.Decider.decide = stuck
sys.exit(serve.main(sys.argv[1:]))
"""

SLOW = """
import sys, time
from pathlib import Path
from runtime import engines, serve
from runtime.backends.onnxruntime import OnnxRuntimeBackend

class Slow(OnnxRuntimeBackend):
    def __init__(self, path):
        while not Path({flag!r}).exists():
            time.sleep(0.01)
        super().__init__(path)

engines.BACKENDS = {{"slow": Slow}}
sys.exit(serve.main(sys.argv[1:]))
"""


def test_probes_answer_while_the_engines_load(
    shipped: Bundle, replay: Replay, tmp_path: Path
) -> None:
    flag = tmp_path / "load"
    main = ("-c", SLOW.format(flag=str(flag)))
    with serving(shipped.path, main=main, wait=False) as served:
        reason = f"loading {shipped.path}"
        assert first_answer(served, "/startupz") == (503, {"started": False, "reason": reason})
        assert served.ask("/livez") == (200, {"alive": True, "reason": reason})
        assert served.ask("/readyz") == (503, {"ready": False, "reason": reason})
        assert served.ask("/status")[0] == 503
        assert served.process.poll() is None
        flag.touch()
        served.wait_until_ready()
        with playing(served, replay) as player:
            player.play(5)
            assert served.ask("/startupz")[0] == 200
            assert served.ask("/readyz")[0] == 200


def test_a_bundle_that_cannot_be_loaded_ends_the_process_and_its_probes(tmp_path: Path) -> None:
    with serving(tmp_path, wait=False) as served:
        assert served.process.wait(timeout=20) == 2
        with pytest.raises(urllib.error.URLError):
            served.ask("/livez")


def first_answer(served: Served, path: str) -> tuple[int, dict[str, Any]]:
    """The reply to the first request that reaches it."""
    give_up = time.monotonic() + 20
    while True:
        try:
            return served.ask(path)
        except urllib.error.URLError:
            assert time.monotonic() < give_up
            time.sleep(0.02)


def test_livez_fails_when_the_loop_stands_still_and_the_rest_still_answers(
    shipped: Bundle, replay: Replay, tmp_path: Path
) -> None:
    """It hangs outside any engine, which nothing but a restart mends: so livez must say it."""
    flag = tmp_path / "stuck"
    main = ("-c", STUCK.format(flag=str(flag)))
    with serving(shipped.path, main=main) as served, playing(served, replay) as player:
        player.play(5)
        assert served.ask("/startupz")[0] == 200
        assert served.ask("/livez")[0] == 200
        assert served.ask("/readyz") == (
            200, {"ready": True, "reason": f"serving {shipped.manifest.name}"},
        )  # fmt: skip
        flag.touch()
        give_up = time.monotonic() + 20
        while served.ask("/livez")[0] == 200 and time.monotonic() < give_up:
            time.sleep(0.05)
        code, body = served.ask("/livez")
        assert code == 503
        assert body["reason"].startswith("the loop has not turned for")
        assert served.ask("/readyz")[0] == 503
        served.read(0.5)
        assert served.status()["results_published"] == len(served.answers)
