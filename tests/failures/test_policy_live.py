"""A policy from its TOML to what a consumer reads, over real sockets."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from robult_edge.bundle import Bundle
from robult_edge.data.replay import Replay
from robult_edge.frames import Frame
from tests.failures.live import PATIENT, Message, playing, serving

POLICY = """
mode = "latest"
required = ["gyro"]
max_memory_mb = 1
"""


def test_mode_latest_required_sensors_and_the_memory_cap_reach_the_wire(
    shipped: Bundle, replay: Replay, tmp_path: Path
) -> None:
    (tmp_path / "deploy.toml").write_text(POLICY)

    def gyro_dies_and_names_are_invented(modality: str, frame: Frame) -> list[Frame | Message]:
        fake = [
            Frame(modality, f"fake-{frame.seq}-{i}", 0, frame.t_ns, frame.samples) for i in range(4)
        ]
        return [*fake, *([frame] if modality == "acc" or frame.seq < 24 else [])]

    with (
        serving(shipped.path, *PATIENT, "--policy", str(tmp_path / "deploy.toml")) as served,
        playing(served, replay) as player,
    ):
        player.play(10, gyro_dies_and_names_are_invented)
        served.read(0.5)
        status = served.status()
    mine = [a for a in served.answers if a.source == "rig"]
    assert [b.seq - a.seq for a, b in pairwise(mine)] == [1] * (len(mine) - 1)
    assert any(a.decision == "ok" for a in mine)
    last = mine[-1]
    assert (last.decision, last.label, last.probabilities) == ("none", None, {})
    assert last.reason.startswith("no decision: required gyro not in; gyro stale: no frames for")
    assert last.alive == ["acc"]
    assert 0 < len(status["sources"]) < 100
    assert "max_memory_mb" in status["last_rejection"]["sources"]
