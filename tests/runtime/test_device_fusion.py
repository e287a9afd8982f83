"""Windows to fused answers on the device: what the host would have answered, in one replay.

Without a GPU: against `tests.runtime.standin`, with native/'s kernel emulated on the host. What a
GPU makes of it is in tests/gpu/test_fused.py.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from robult_edge import bundle, subsets
from robult_edge.bundle import Bundle, Measured, SubsetEntry
from robult_edge.fusion import Rule
from robult_edge.task import Scale, Task
from runtime import checkup, fatbin, status
from runtime.backends import cuda, device_fusion
from runtime.backends.device_fusion import DeviceFusion
from runtime.config import Config
from runtime.engines import BACK_OFF_NS
from runtime.policy import Policy
from runtime.serving import Serving
from tests.runtime import standin
from tests.runtime.live import Stage, staged
from tests.runtime.standin import StandIn
from tests.runtime.test_tensorrt import LARGEST, give_engines, with_engines

ON = "on: a CUDA graph per alive subset"
WARM_UP = 6
OUT = "off: an engine is out, or another took its place"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, build: Path, tmp_path: Path) -> Iterator[StandIn]:
    """With the kernels, as a machine that has run `make native`."""
    kernels = tmp_path / "kernels.fatbin"
    kernels.write_bytes(b"the stand-in loads its own")
    monkeypatch.setenv(fatbin.VARIABLE, str(kernels))
    gpu = standin.install(monkeypatch)
    gpu.kernels = build
    yield gpu
    cuda.primary_context.cache_clear()


@pytest.fixture
def made(shipped: Bundle, tmp_path: Path) -> Bundle:
    """The shipped bundle, with engines of the stand-in."""
    return with_engines(shipped, tmp_path)


@pytest.fixture
def serving(gpu: StandIn, made: Bundle) -> Iterator[Serving]:
    ready = Serving.prepare(made, Config(str(made.path)))
    yield ready
    ready.close()


def device(serving: Serving) -> DeviceFusion:
    assert serving.fused.choice == ON
    assert serving.fused.backend is not None
    return serving.fused.backend


def golden_windows(made: Bundle, mask: int, rows: np.ndarray) -> list[np.ndarray]:
    golden, names = made.golden(), made.manifest.names
    return [golden[f"x.{names[i]}"][rows] for i in subsets.members(mask)]


def on_host(serving: Serving, made: Bundle, rule: Rule, mask: int, row: int) -> list[np.ndarray]:
    """Fused, and the alive branches' own, of a golden window."""
    golden, decider = made.golden(), serving.deciders[rule]
    logits = np.zeros((len(made.manifest.names), len(made.manifest.classes)), np.float32)
    for i in subsets.members(mask):
        logits[i] = golden[f"logits.{made.manifest.names[i]}"][row]
    uses = decider.head_wants(mask)
    asked = None if uses is None else subsets.mask_of(np.flatnonzero(uses).tolist())
    head = None if asked is None else golden["head"][asked - 1, row]
    fused, own = decider.probabilities(mask, logits, head)
    return [np.array(fused), np.array(own)[list(subsets.members(mask))]]


@pytest.mark.parametrize("rule", ["pool", "mean"])
@pytest.mark.parametrize("n", [1, 3, LARGEST, LARGEST + 3])
def test_every_subset_and_batch_is_answered_as_on_the_host(
    gpu: StandIn, made: Bundle, rule: Rule, n: int
) -> None:
    serving = Serving.prepare(made, Config(str(made.path), fusion=rule))
    fusion = device(serving)
    rows = np.arange(n) % len(made.golden()["x.acc"])
    for mask in subsets.all_subsets(len(made.manifest.names)):
        for turned in (rows, rows[::-1]):  # a replay reads its windows anew
            p, own = fusion.run(mask, *golden_windows(made, mask, turned))
            assert (p.shape[0], own.shape[0]) == (n, n)
            for b, row in enumerate(turned):
                want_p, want_own = on_host(serving, made, rule, mask, row)
                np.testing.assert_allclose(p[b], want_p, rtol=0, atol=1e-5)
                alive = list(subsets.members(mask))
                np.testing.assert_allclose(own[b, alive], want_own, rtol=0, atol=1e-5)
    serving.close()


def as_task(made: Bundle, task: Task) -> Bundle:
    """The bundle, its outputs taken for labels or values."""
    scores = {
        "multilabel": {"micro_f1": 0.5, "macro_f1": 0.5, "ece": 0.1, "set_size": 1.0},
        "regression": {"mae": (1.0,) * 7, "rmse": (1.0,) * 7, "r2": (0.5,) * 7},
    }[task]
    manifest = made.manifest
    values = len(manifest.classes) if task == "regression" else 0
    expected = Measured(coverage=0.9, n=9, **scores)
    tables: dict[Rule, tuple[SubsetEntry, ...]] = {
        rule: tuple(
            msgspec.structs.replace(row, expected=expected, half_widths=(1.0,) * values)
            for row in table
        )
        for rule, table in manifest.tables.items()
    }
    scales = (Scale(unit="bar", mean=2.0, std=3.0),) * values
    newer = msgspec.structs.replace(manifest, task=task, tables=tables, scales=scales)
    bundle.write_manifest(made.path, newer)
    return bundle.load(made.path)


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_labels_and_values_are_answered_as_on_the_host(
    gpu: StandIn, made: Bundle, monkeypatch: pytest.MonkeyPatch, task: Task
) -> None:
    other = as_task(made, task)
    told = []
    for kernels in (gpu.kernels, None):
        gpu.kernels = kernels
        with staged(other, monkeypatch, "cpu") as stage:
            assert (said(stage) == ON) == (kernels is not None)
            told.append(stage.play(2 * WARM_UP)[-1])
    there, here = told
    assert there.alive == here.alive == ["acc", "gyro"]
    if task == "multilabel":
        assert (there.labels, there.certain) == (here.labels, here.certain)
        assert there.probabilities == pytest.approx(here.probabilities, abs=2e-6)
    else:
        assert there.estimates is not None
        assert here.estimates is not None
        for name, estimate in there.estimates.items():
            assert estimate.value == pytest.approx(here.estimates[name].value, rel=1e-5, abs=1e-4)


def test_an_answer_is_one_replay_and_one_copy_back(
    gpu: StandIn, serving: Serving, made: Bundle
) -> None:
    fusion, windows = device(serving), golden_windows(made, 0b11, np.arange(1))
    fusion.run(0b11, *windows)
    gpu.calls.clear()
    for _ in range(5):
        fusion.run(0b11, *windows)
    assert gpu.calls == {"replay": 5, "record": 5, "wait": 5}


def test_what_comes_back_is_probabilities_and_no_more(
    gpu: StandIn, serving: Serving, made: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a window: K of the answer and K of each branch, where the engines' way takes latents."""
    back: list[int] = []
    copy = StandIn.memcpy_dtoh_async

    def counted(self: StandIn, array: np.ndarray, *rest: object) -> None:
        back.append(array.nbytes)
        copy(self, array, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(cuda.driver(), "memcpy_dtoh_async", counted.__get__(gpu))
    fusion = device(serving)
    fusion.run(0b01, *golden_windows(made, 0b01, np.arange(1)))  # the graph of a batch of one
    k, m = len(made.manifest.classes), len(made.manifest.names)
    assert set(back) == {4 * k * (1 + m)}


def test_a_graph_is_captured_when_it_is_first_needed(
    gpu: StandIn, serving: Serving, made: Bundle
) -> None:
    fusion, one = device(serving), np.arange(1)
    gpu.calls.clear()
    for _ in range(3):
        for mask in (0b01, 0b11):
            fusion.run(mask, *golden_windows(made, mask, one))
    assert gpu.calls["begin"] == gpu.calls["end"] == 2


def test_the_graph_not_needed_for_longest_goes(
    gpu: StandIn, serving: Serving, made: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    fusion, one = device(serving), np.arange(1)
    monkeypatch.setattr(device_fusion, "MOST_GRAPHS", len(fusion._graphs))

    def captures(mask: int) -> bool:
        before = gpu.calls["begin"]
        fusion.run(mask, *golden_windows(made, mask, one))
        return gpu.calls["begin"] > before

    assert [captures(mask) for mask in (0b01, 0b10, 0b01, 0b11)] == [True, True, False, True]
    assert not captures(0b01)
    assert captures(0b10) is False, "the proof's went first"
    assert len(fusion._graphs) == 3


def test_dead_branches_are_never_run(gpu: StandIn, serving: Serving, made: Bundle) -> None:
    fusion = device(serving)
    windows = golden_windows(made, 0b01, np.arange(1))
    gpu.calls.clear()
    fusion.run(0b01, *windows)
    head_says = serving.deciders["pool"].head_wants(0b01) is not None
    captured_after_one_run = 2
    assert gpu.calls["execute"] == captured_after_one_run * (1 + head_says)


def test_all_that_it_took_is_given_back(gpu: StandIn, made: Bundle) -> None:
    for _ in range(2):
        serving = Serving.prepare(made, Config(str(made.path)))
        device(serving)
        serving.close()
        del serving
    assert (gpu.freed, gpu.pinned) == (len(gpu.memory), 0)
    assert not any(stream.recorded for stream in gpu.streams)


@pytest.fixture
def stage(gpu: StandIn, made: Bundle, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    with staged(made, monkeypatch, "cpu") as stage:
        yield stage


def said(stage: Stage) -> str:
    return status.status(stage.server)["fusion_on_device"]


def test_a_server_answers_the_same_with_it_and_without(
    gpu: StandIn, made: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, replays = [], []
    for kernels in (gpu.kernels, None):
        gpu.kernels = kernels
        with staged(made, monkeypatch, "cpu") as stage:
            assert said(stage).startswith("on" if kernels else "off: the GPU does not take")
            gpu.calls.clear()
            told.append(stage.play(2 * WARM_UP))
            replays.append(gpu.calls["replay"])
    assert replays[0] * 3 == replays[1], "one in place of the branches' and the head's"
    assert len(told[0]) == len(told[1])
    for there, here in zip(*told, strict=True):
        assert there.alive == here.alive
        assert (there.label, there.prediction_set) == (here.label, here.prediction_set)
        assert (there.conflict, there.decision) == (here.conflict, here.decision)
        assert there.probabilities == pytest.approx(here.probabilities, abs=2e-6)
        for name, part in there.modalities.items():
            assert part.label == here.modalities[name].label
            assert part.probability == pytest.approx(here.modalities[name].probability, abs=2e-4)
            assert part.weight == here.modalities[name].weight


def test_a_sensor_that_dies_changes_the_subset_and_costs_no_result(stage: Stage) -> None:
    before = stage.play(WARM_UP)[-1]
    stage.hear(only="acc")
    stage.server.turn()
    stage.clock.now = stage.server.rigs.rigs["rig"].due_ns
    stage.server.turn()
    assert stage.latest.alive == ["acc"]
    assert stage.latest.seq == before.seq + 1
    assert said(stage) == ON


def test_a_window_in_doubt_is_left_out_and_the_device_asked_again(
    gpu: StandIn, made: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    for kernels in (gpu.kernels, None):
        gpu.kernels = kernels
        with staged(made, monkeypatch, "cpu") as stage:
            stage.play(WARM_UP)
            doubt = stage.server.serving.doubt
            monkeypatch.setattr(doubt._reads, "differ", lambda one, others: True)
            monkeypatch.setattr(doubt, "_strangeness", lambda i, look: 9.0 if i == 0 else -1.0)
            gpu.calls.clear()
            told.append(stage.play(1)[0])
            if kernels:
                assert gpu.calls["replay"] == 2, "of both, and of the one that is believed"
            assert (said(stage) == ON) == (kernels is not None)
    there, here = told
    assert there.alive == here.alive == ["gyro"]
    assert there.modalities["acc"].reason.startswith("in doubt: contradicts gyro")
    assert there.modalities["acc"].reason == here.modalities["acc"].reason
    assert there.label == here.label
    assert there.probabilities == pytest.approx(here.probabilities, abs=2e-6)


def test_what_fails_on_the_device_is_answered_without_it(stage: Stage, gpu: StandIn) -> None:
    before = stage.play(WARM_UP)[-1]
    fused = stage.server.serving.fused
    assert fused.backend is not None
    fused.backend.run = fails  # type: ignore[method-assign, assignment]
    (answer,) = stage.play(1)
    assert (answer.seq, answer.alive) == (before.seq + 1, ["acc", "gyro"])
    assert said(stage) == "off: it failed: device lost"
    assert stage.server.watchdog.failures == {"fusion on the device": 1}
    assert stage.play(1)[0].alive == ["acc", "gyro"]


def fails(*_: object) -> None:
    raise RuntimeError("device lost")


def test_an_engine_that_fails_is_found_out_by_itself_and_fusion_returns_with_it(
    stage: Stage, gpu: StandIn
) -> None:
    stage.play(WARM_UP)
    gpu.lost = True
    (answer,) = stage.play(1)
    assert answer.alive == []
    assert answer.modalities["acc"].reason.startswith("engine failed: the CUDA graph fails")
    stage.mend()
    assert said(stage) == "off: acc runs on cpu"
    assert stage.play(1)[0].alive == ["acc", "gyro"], "on the host's engines"
    gpu.lost = False
    stage.clock.now += BACK_OFF_NS
    stage.mend()
    assert said(stage) == ON
    assert stage.play(1)[0].alive == ["acc", "gyro"]


def test_an_answer_that_is_not_finite_is_traced_to_its_branch(stage: Stage, gpu: StandIn) -> None:
    stage.play(WARM_UP)
    gpu.off = float("nan")
    (answer,) = stage.play(1)
    assert {part.reason for part in answer.modalities.values()} == {
        "engine failed: it answered NaN or infinity"
    }
    assert said(stage) == "off: it failed: it answered NaN or infinity"


def test_another_thread_carries_on_when_it_hangs(stage: Stage) -> None:
    stage.play(WARM_UP)
    inside, let_go = threading.Event(), threading.Event()
    server, seq = stage.server, stage.latest.seq
    fused = server.serving.fused
    assert fused.backend is not None
    run = fused.backend.run

    def hangs(*given: Any) -> tuple[np.ndarray, np.ndarray]:
        inside.set()
        assert let_go.wait(20)
        return run(*given)

    fused.backend.run = hangs  # type: ignore[method-assign]
    stage.hear()
    hung = server._carry_on()
    assert inside.wait(20)
    stage.clock.now += fused.limit_ns + 1
    assert server.watchdog.relieve(hung)
    server._pick_up()  # which is how the thread that carries on begins
    assert (stage.latest.seq, stage.latest.alive) == (seq + 1, ["acc", "gyro"])
    assert said(stage) == "off: it failed: no answer within 250 ms"
    published = server.metrics.published
    let_go.set()
    hung.join(20)
    assert server.metrics.published == published, "who was relieved touches nothing"
    assert stage.play(1)[0].alive == ["acc", "gyro"]


def test_a_reload_mid_tick_takes_the_windows_again(stage: Stage, made: Bundle) -> None:
    before = stage.play(WARM_UP)[-1]
    server = stage.server
    stage.hear(only="acc")
    server.turn()
    assert list(server.rigs.rigs["rig"].tick.held) == [0]
    replaced = server.adopt(Serving.prepare(made, server.config))
    replaced.close()
    assert said(stage) == ON
    server.turn()
    assert list(server.rigs.rigs["rig"].tick.held) == [0]
    stage.clock.now = server.rigs.rigs["rig"].due_ns
    server.turn()
    assert (stage.latest.seq, stage.latest.alive) == (before.seq + 1, ["acc"])


def test_a_tick_that_it_joins_halfway_is_answered_on_the_host(stage: Stage, gpu: StandIn) -> None:
    before = stage.play(WARM_UP)[-1]
    server, fused = stage.server, stage.server.serving.fused
    fused.install("not yet")
    stage.hear(only="acc")
    server.turn()
    fused.install(fused.make())
    assert said(stage) == ON
    stage.hear_as("rig", WARM_UP)  # the accelerometer's frame is one that came already
    server.turn()
    answer, tick = stage.latest, server.rigs.rigs["rig"].tick
    assert (answer.seq, answer.alive) == (before.seq + 1, ["acc", "gyro"])
    assert not tick.held
    assert stage.play(1)[0].alive == ["acc", "gyro"]


def test_the_doctor_says_that_it_is_on_and_how_fast(gpu: StandIn, made: Bundle) -> None:
    (finding,) = checkup.on_device(made)
    assert (finding.state, finding.name) == ("ok", "all on the GPU")
    assert finding.said.startswith(ON)
    assert 0 < finding.numbers["median_us"] <= finding.numbers["p99_us"]


def test_many_sources_of_one_subset_are_one_replay(stage: Stage, gpu: StandIn) -> None:
    stage.play(WARM_UP)
    for seq in range(WARM_UP, WARM_UP + 8):
        gpu.calls.clear()
        stage.hear()
        stage.hear_as("another", seq)
        stage.server.turn()
    answers = [rig.latest for rig in stage.server.rigs.rigs.values()]
    assert [a is not None and a.alive for a in answers] == [["acc", "gyro"]] * 2
    assert gpu.calls["replay"] == 1


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda gpu, m: m.setenv(fatbin.VARIABLE, "/nowhere"), "no kernels: /nowhere is not there"),
        (lambda gpu, m: setattr(gpu, "kernels", None), "the GPU does not take "),
        (lambda gpu, m: m.setitem(sys.modules, "cuda.bindings", None), "acc runs on cpu"),
    ],
)
def test_where_it_cannot_be_the_host_fuses_and_the_reason_is_told(
    gpu: StandIn, made: Bundle, monkeypatch: pytest.MonkeyPatch, change, why: str
) -> None:
    change(gpu, monkeypatch)
    with staged(made, monkeypatch, "cpu") as stage:
        assert said(stage).startswith(f"off: {why}")
        assert stage.play(WARM_UP)[-1].alive == ["acc", "gyro"]


def test_it_wants_every_engine_on_the_device(
    gpu: StandIn, made: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_engines(
        made.path,
        plan=lambda graph: (
            b"of another version" if graph.name == "gyro" else graph.file.read_bytes()
        ),
    )
    with staged(bundle.load(made.path), monkeypatch, "cpu") as stage:
        assert said(stage) == "off: gyro runs on cpu"
        assert stage.play(WARM_UP)[-1].alive == ["acc", "gyro"]


def test_windows_of_several_ticks_are_fused_on_the_host(
    gpu: StandIn, made: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    with staged(made, monkeypatch, "cpu", policy=Policy(mode="latest")) as stage:
        assert said(stage) == "off: in mode latest an answer rests on windows of several ticks"
        assert stage.play(WARM_UP)[-1].alive == ["acc", "gyro"]


def test_a_kernel_that_answers_otherwise_than_the_host_is_not_used(
    gpu: StandIn, made: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = device_fusion.kernels.temperatures
    monkeypatch.setattr(device_fusion.kernels, "temperatures", lambda m: truth(m) * 2)
    with staged(made, monkeypatch, "cpu") as stage:
        assert said(stage).startswith("off: acc+gyro: fused otherwise than on the host, by 0.")


def test_heads_latents_in_the_wrong_place_are_found(
    gpu: StandIn, made: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_fusion, "_put_latent", lambda *_: None)
    with staged(made, monkeypatch, "cpu") as stage:
        assert said(stage).startswith("off: acc+gyro: off the golden vectors by")
