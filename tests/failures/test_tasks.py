"""Labels and values, end to end: trained, exported, served over real sockets, as measured."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from export.__main__ import main as export
from export.onnx import Graph
from robult_edge import bundle, data, fusion, subsets
from robult_edge.bundle import Bundle
from robult_edge.data.replay import Replay, replays
from robult_edge.frames import Frame
from robult_edge.results import Result
from robult_edge.task import standardised
from runtime.engines import Engines
from runtime.watch import panel
from tests.failures.live import PATIENT, Message, Player, playing, serving
from train.__main__ import main as train

torch.set_num_threads(1)  # the tensors are small: threads cost more than they bring
SOURCE = "synthetic:task={},windows=480,groups=6,modalities=2,redundant=1,unique=0,noise=0.2"


@pytest.fixture(scope="module", params=["multilabel", "regression"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of a small run."""
    run, out = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("bundle")
    source = SOURCE.format(request.param)
    options = ["--labels", "0.5", "--epochs", "8", "--folds", "2", "--workers", "1", "--lr", "0.01"]
    assert train(["--dataset", source, "--out", str(run), "--width", "16", *options]) == 0
    assert export([str(run), "--out", str(out)]) == 0
    return bundle.load(out)


@pytest.fixture(scope="module")
def played(made: Bundle) -> Replay:
    return replays(data.load(made.manifest.provenance["dataset"]))[0]


def offline(made: Bundle, windows: dict[str, np.ndarray]) -> np.ndarray:
    """Fused answers [n, K] of windows [n, *window_shape] of the sensors that are alive."""
    manifest = made.manifest
    names, m = manifest.names, len(manifest.names)
    n = len(next(iter(windows.values())))
    entry = manifest.entry("pool", subsets.mask_of(names.index(name) for name in windows))
    y = np.zeros((n, m + 1, len(manifest.classes)))
    h = np.zeros((n, m, manifest.width), np.float32)
    for name in entry.uses:
        i = names.index(name)
        logits, h[:, i] = Graph(made.file(manifest.branches[i].onnx))(windows[name])
        y[:, i] = logits / manifest.branches[i].temperature
    uses = np.array([[name in entry.uses for name in names]] * n)
    y[:, m] = Graph(made.file(manifest.head.onnx))(h, uses)[0] / manifest.head.temperature
    weights = np.array([*entry.weights, entry.head_weight])
    return fusion.fuse("pool", y, weights, fusion.LINKS[manifest.task])


def windows_of(result: Result, played: Replay, player: Player) -> dict[str, np.ndarray]:
    return {
        name: np.ascontiguousarray(played.window(name, player.end_of(result, name))[None])
        for name in result.alive
    }


@pytest.fixture(scope="module")
def answered(made: Bundle, played: Replay) -> Iterator[list[tuple[Result, np.ndarray]]]:
    """Answers with all alive and with a dead sensor, and what is to be computed offline."""

    def dies(modality: str, frame: Frame) -> list[Frame | Message]:
        return [] if modality == "s1" else [frame]

    with serving(made.path, *PATIENT) as served, playing(served, played) as player:
        player.play(4)
        player.play(4, dies)
        served.read(0.5)
        yield [
            (r, offline(made, windows_of(r, played, player))[0]) for r in served.answers if r.alive
        ]


def test_live_answers_equal_the_offline_ones(
    made: Bundle, answered: list[tuple[Result, np.ndarray]]
) -> None:
    manifest = made.manifest
    assert {tuple(r.alive) for r, _ in answered} == {("s0", "s1"), ("s0",)}
    for result, wanted in answered:
        assert result.label is None
        if manifest.task == "multilabel":
            np.testing.assert_allclose(list(result.probabilities.values()), wanted, atol=2e-5)
            sure = [c for c, p in zip(manifest.classes, wanted, strict=True) if p >= 0.5]
            assert result.labels == sure
            assert set(result.certain or []) <= set(sure) <= set(result.prediction_set)
        else:
            assert result.estimates is not None
            (scale,), (estimate,) = manifest.scales, result.estimates.values()
            value = scale.mean + scale.std * wanted[0]
            assert estimate.value == pytest.approx(value, abs=2e-5)
            assert estimate.unit == "1"
            assert estimate.low is not None
            assert estimate.high is not None
            assert estimate.high - estimate.value == pytest.approx(estimate.value - estimate.low)


def test_results_say_what_the_table_promises_of_the_alive_subset(
    made: Bundle, answered: list[tuple[Result, np.ndarray]]
) -> None:
    names = made.manifest.names
    for result, _ in answered:
        mask = subsets.mask_of(names.index(n) for n in result.alive)
        entry, full = made.manifest.entry("pool", mask), made.manifest.tables["pool"][-1]
        assert result.expected is not None
        assert result.expected.accuracy is None
        assert result.expected.coverage == entry.expected.coverage
        if made.manifest.task == "multilabel":
            assert result.expected.macro_f1 == entry.expected.macro_f1
            assert result.expected.full_macro_f1 == full.expected.macro_f1
        else:
            assert result.expected.mae == {"y": entry.expected.mae[0]}
            assert result.expected.full_mae == {"y": full.expected.mae[0]}


def test_the_table_is_what_the_exported_graphs_score_on_held_out_groups(made: Bundle) -> None:
    dataset = data.load(made.manifest.provenance["dataset"])
    y = standardised(dataset.y, made.manifest.scales)[dataset.test]
    for entry in made.manifest.tables["pool"]:
        said = offline(made, {name: dataset.windows[name][dataset.test] for name in entry.alive})
        if made.manifest.task == "multilabel":
            hit = ((said >= 0.5) & (y == 1)).sum(0)
            f1 = 2 * hit / ((said >= 0.5).sum(0) + (y == 1).sum(0))
            assert entry.expected.macro_f1 == pytest.approx(f1.mean(), abs=1e-4)
        else:
            mae = made.manifest.scales[0].std * np.abs(said - y).mean()
            assert entry.expected.mae[0] == pytest.approx(mae, rel=1e-3)


def test_what_is_learned_is_better_than_knowing_nothing(made: Bundle) -> None:
    expected = made.manifest.tables["pool"][-1].expected
    if made.manifest.task == "multilabel":
        assert expected.macro_f1 is not None
        assert expected.macro_f1 > 0.7  # always answering both labels: 0.67
    else:
        assert expected.r2[0] > 0.2  # the mean of the held-out values: 0


def test_golden_vectors_prove_the_engines(made: Bundle, tmp_path: Path) -> None:
    engines = Engines(made)
    engines.close()
    assert all(graph.label == "onnxruntime-cpu" for graph in engines.graphs)


def test_people_can_watch(made: Bundle, answered: list[tuple[Result, np.ndarray]]) -> None:
    screen = Console(file=StringIO(), width=200)
    for result, _ in answered:
        screen.print(panel(result))
    shown = screen.file.getvalue()  # type: ignore[attr-defined]
    assert (
        "expected macro-F1" if made.manifest.task == "multilabel" else "expected error"
    ) in shown
