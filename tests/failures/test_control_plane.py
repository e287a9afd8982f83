"""The probes of a real server whose loop stands still."""

from __future__ import annotations

import time
from pathlib import Path

from robult_edge.bundle import Bundle
from robult_edge.data.replay import Replay
from tests.failures.live import playing, serving

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
