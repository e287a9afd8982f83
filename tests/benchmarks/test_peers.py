"""benchmarks.peers: what is compared answers alike."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import peers
from robult_edge.bundle import Bundle
from robult_edge.data.replay import Replay
from tests.failures.live import PATIENT, playing, serving


def test_litserve_alone_and_in_batches_answers_the_windows_as_the_runtime_does(
    shipped: Bundle, replay: Replay
) -> None:
    pytest.importorskip("litserve", reason="pip install 'robult-edge[bench]'")
    with (
        serving(shipped.path, *PATIENT, "--fusion", "mean") as served,
        playing(served, replay) as player,
    ):
        player.play(9)
        served.read(0.5)
        answers = [a for a in served.answers if tuple(a.alive) == shipped.manifest.names]
    assert answers, "nothing to compare"
    requests = [
        peers.post(b"".join(replay.window(n, player.end_of(a, n)).tobytes() for n in a.alive))
        for a in answers
    ]
    for batch in (1, len(requests)):
        with peers.litserve(shipped.path, batch, len(requests)) as connections:
            for connection, request in zip(connections, requests, strict=True):
                connection.sendall(request)
            bodies = [peers.answer(connection) for connection in connections]
        got = [np.frombuffer(body, np.float32) for body in bodies]
        wanted = [[a.probabilities[c] for c in shipped.manifest.classes] for a in answers]
        np.testing.assert_allclose(got, wanted, atol=2e-5)


def test_frames_and_windows_are_of_the_same_samples(replay: Replay) -> None:
    sent = np.frombuffer(peers.windows(replay, tick=7), np.float32)
    messages = [m for tick in range(4, 8) for m in peers.hop_frames(replay, 1, tick, 0)]
    names = list(replay.modalities)
    parts = np.split(sent, len(names))
    for i, (name, part) in enumerate(zip(names, parts, strict=True)):
        m = replay.modalities[name]
        hops = [np.frombuffer(payload, np.float32) for *_, payload in messages[i :: len(names)]]
        samples = np.concatenate(hops).reshape(m.window, *m.sample_shape)
        np.testing.assert_array_equal(part.reshape(m.window_shape), samples.T)


def test_without_litserve_it_says_so_and_measures_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from benchmarks import peers; peers.find_spec = lambda name: None; "
        "sys.exit(peers.main())"
    )
    written = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, "-c", code, "--quick", "--json", str(written)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "pip install 'robult-edge[bench]'" in done.stdout
    assert json.loads(written.read_text()) == {}
