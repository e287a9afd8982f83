"""What the runtime answers live is what export measured offline, to the same windows."""

from __future__ import annotations

import numpy as np

from export.onnx import Graph
from robult_edge import fusion, subsets
from robult_edge.bundle import Bundle
from robult_edge.data.replay import Replay
from robult_edge.frames import Frame
from robult_edge.results import Result
from tests.failures.live import PATIENT, Message, Player, playing, serving


def offline(bundle: Bundle, replay: Replay, player: Player, result: Result) -> np.ndarray:
    """The fused distribution of a result's windows, computed from the recordings."""
    manifest = bundle.manifest
    names, m = manifest.names, len(manifest.names)
    mask = subsets.mask_of(names.index(n) for n in result.alive)
    entry = manifest.entry("pool", mask)
    y = np.zeros((m + 1, len(manifest.classes)))
    h = np.zeros((1, m, manifest.width), np.float32)
    for name in result.alive:
        i = names.index(name)
        window = replay.window(name, player.end_of(result, name))
        graph = Graph(bundle.file(manifest.branches[i].onnx))
        logits, latent = graph(np.ascontiguousarray(window[None]))
        y[i], h[0, i] = logits[0] / manifest.branches[i].temperature, latent[0]
    uses = np.array([[name in entry.uses for name in names]])
    y[m] = Graph(bundle.file(manifest.head.onnx))(h, uses)[0][0] / manifest.head.temperature
    return fusion.pool(y, np.array([*entry.weights, entry.head_weight]))


def test_live_answers_equal_the_offline_evaluation_of_the_same_windows(
    shipped: Bundle, replay: Replay
) -> None:
    """With all alive, then each sensor alone."""

    def dies(dead: str):
        def script(modality: str, frame: Frame) -> list[Frame | Message]:
            return [] if modality == dead else [frame]

        return script

    with serving(shipped.path, *PATIENT) as served, playing(served, replay) as player:
        player.play(8)
        player.play(5, dies("gyro"))
        player.play(7)
        player.play(5, dies("acc"))
        served.read(0.5)
    answered = [a for a in served.answers if a.alive]
    assert {tuple(a.alive) for a in answered} == {("acc", "gyro"), ("acc",), ("gyro",)}
    for result in answered:
        wanted = offline(shipped, replay, player, result)
        got = [result.probabilities[c] for c in shipped.manifest.classes]
        np.testing.assert_allclose(got, wanted, atol=2e-5)
        assert result.label == shipped.manifest.classes[int(wanted.argmax())]
