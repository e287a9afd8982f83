"""An engine that throws, lies or hangs is out, the others answer, and it is tried again."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest

from robult_edge.bundle import Bundle, SubsetEntry
from robult_edge.errors import BundleError
from robult_edge.results import Result
from runtime.backends.onnxruntime import OnnxRuntimeBackend
from runtime.engines import BACK_OFF_NS, LONGEST_BACK_OFF_NS, Engines
from runtime.policy import Policy
from tests.runtime.live import MS, Ills, Stage, staged

HANG_NS = 300 * MS
WARM_UP = 6


def throws() -> None:
    raise RuntimeError("device lost")


def worth_less(entry: SubsetEntry) -> SubsetEntry:
    """Ten points less accuracy to expect."""
    assert entry.expected.accuracy is not None
    expected = msgspec.structs.replace(
        entry.expected, accuracy=round(entry.expected.accuracy - 0.1, 4)
    )
    return msgspec.structs.replace(entry, expected=expected)


@pytest.fixture
def stage(shipped: Bundle, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """With one backend."""
    with staged(shipped, monkeypatch, "cpu") as stage:
        assert stage.play(WARM_UP)[-1].alive == ["acc", "gyro"]
        yield stage


@pytest.fixture
def twofold(shipped: Bundle, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """With a better backend and one to fall back to."""
    with staged(shipped, monkeypatch, "gpu", "cpu") as stage:
        stage.play(WARM_UP)
        yield stage


@pytest.mark.parametrize(
    ("befalls", "reason"),
    [
        (throws, "engine failed: device lost"),
        (lambda: float("nan"), "engine failed: it answered NaN or infinity"),
        (lambda: float("inf"), "engine failed: it answered NaN or infinity"),
    ],
)
def test_other_branches_answer_when_an_engine_fails(stage: Stage, befalls, reason: str) -> None:
    stage.ills.of["cpu", "gyro"] = befalls
    for answer in stage.play(3):
        assert answer.alive == ["acc"]
        assert answer.label is not None
        assert answer.modalities["gyro"].state == "faulty"
        assert answer.modalities["gyro"].reason == reason
        assert answer.decision == "degraded"
    assert stage.server.watchdog.failures == {"gyro": 1}, "it is out, not run again at each tick"


def test_no_result_is_skipped_when_every_engine_fails(stage: Stage) -> None:
    seq = stage.latest.seq
    stage.ills.of |= dict.fromkeys([("cpu", "acc"), ("cpu", "gyro")], throws)
    answers = stage.play(3)
    assert [a.seq for a in answers] == [seq + 1, seq + 2, seq + 3]
    assert {a.decision for a in answers} == {"none"}


def test_without_its_fusion_head_the_answer_is_the_mean_and_says_what_that_is_worth(
    stage: Stage, shipped: Bundle
) -> None:
    stage.ills.of["cpu", "fusion"] = throws
    (answer,) = stage.play(1)
    assert answer.alive == ["acc", "gyro"]
    assert answer.expected is not None
    assert answer.expected.accuracy == shipped.manifest.entry("mean", 0b11).expected.accuracy


def test_without_its_fusion_head_a_strict_policy_judges_by_what_the_mean_is_worth(
    shipped: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = dict(shipped.manifest.tables)
    tables["mean"] = tuple(worth_less(entry) for entry in tables["mean"])
    manifest = msgspec.structs.replace(shipped.manifest, tables=tables)
    worse = msgspec.structs.replace(shipped, manifest=manifest)
    pool, mean = (manifest.entry(rule, 0b10).expected.accuracy for rule in ("pool", "mean"))
    assert pool is not None
    assert mean is not None
    assert mean < pool
    least = (mean + pool) / 2
    strict = Policy(abstain_below_accuracy=least)
    with staged(worse, monkeypatch, "cpu", policy=strict) as stage:

        def gyro_alone(hops: int = 1) -> Result:
            for _ in range(hops):
                stage.hear(only="gyro")
                stage.server.turn()
            return stage.latest

        answer = gyro_alone(WARM_UP)
        assert answer.alive == ["gyro"]
        assert answer.label is not None
        seq = answer.seq
        stage.ills.of["cpu", "fusion"] = throws
        for n in range(1, 4):
            answer = gyro_alone()
            assert answer.seq == seq + n
            assert (answer.label, answer.decision) == (None, "none")
            said = f"no decision: expected accuracy {mean:.2f} below {least:g}"
            assert answer.reason.startswith(said)
        del stage.ills.of["cpu", "fusion"]
        stage.clock.now += BACK_OFF_NS
        stage.mend()
        assert stage.server.serving.engines.head.label == "cpu"
        assert gyro_alone(WARM_UP).label is not None


def test_engine_falls_back_to_the_next_backend_at_once_and_returns_when_mended(
    twofold: Stage,
) -> None:
    gyro = twofold.server.serving.engines.branches[1]
    twofold.ills.of["gpu", "gyro"] = throws
    assert twofold.play(1)[0].alive == ["acc"]
    twofold.mend()
    assert gyro.choice == "cpu (gpu: device lost)"
    assert twofold.play(1)[0].alive == ["acc", "gyro"], (
        "its sensor never lied: no window to wait for"
    )
    del twofold.ills.of["gpu", "gyro"]
    twofold.clock.now += BACK_OFF_NS
    twofold.mend()
    assert gyro.choice == "gpu"
    assert twofold.play(1)[0].alive == ["acc", "gyro"]


def test_back_off_doubles_to_its_bound(stage: Stage) -> None:
    stage.ills.of["cpu", "gyro"] = throws
    stage.play(1)
    gyro, failed_ns = stage.server.serving.engines.branches[1], stage.clock.now
    waits = []
    for _ in range(12):
        while gyro.due(stage.clock.now) is None:
            stage.clock.now += BACK_OFF_NS
        waits.append((stage.clock.now - failed_ns) // BACK_OFF_NS)
        failed_ns = stage.clock.now
        stage.mend()
    assert waits[:5] == [1, 2, 4, 8, 16]
    assert waits[-1] == LONGEST_BACK_OFF_NS // BACK_OFF_NS


@pytest.mark.parametrize(
    ("ran_ns", "wait_ns"),
    [(10 * BACK_OFF_NS, 2 * BACK_OFF_NS), (2 * LONGEST_BACK_OFF_NS, BACK_OFF_NS)],
)
def test_engine_that_fails_again_soon_waits_longer_than_one_that_ran_for_long(
    stage: Stage, ran_ns: int, wait_ns: int
) -> None:
    gyro = stage.server.serving.engines.branches[1]
    gyro.fail("device lost", stage.clock.now)
    stage.clock.now += BACK_OFF_NS
    stage.mend()
    assert gyro.choice == "cpu"
    stage.clock.now += ran_ns
    gyro.fail("device lost", stage.clock.now)
    assert gyro.due(stage.clock.now + wait_ns - 1) is None
    assert gyro.due(stage.clock.now + wait_ns) is not None


def test_engine_off_its_golden_vectors_is_passed_over_and_tried_again(
    shipped: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ill(self: Ills, *labels: str):
        self.of["gpu", "gyro"] = lambda: 0.01
        return backends(self, *labels)

    backends = Ills.backends
    monkeypatch.setattr(Ills, "backends", ill)
    with staged(shipped, monkeypatch, "gpu", "cpu") as stage:
        gyro = stage.server.serving.engines.branches[1]
        assert gyro.choice.startswith("cpu (gpu: off its golden vectors by 0.0")
        stage.mend()
        assert gyro.label == "cpu"
        stage.ills.of.clear()
        stage.clock.now += 2 * BACK_OFF_NS
        stage.mend()
        assert gyro.choice == "gpu"


class LiesAlone(OnnxRuntimeBackend):
    """Right about batches, wrong about a window by itself."""

    def run(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        outputs = super().run(*inputs)
        return tuple(o + 0.01 for o in outputs) if len(inputs[0]) == 1 else outputs


def test_engine_that_is_right_about_batches_alone_is_passed_over(
    shipped: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.engines.BACKENDS", {"gpu": LiesAlone, "cpu": OnnxRuntimeBackend})
    engines = Engines(shipped)
    for graph in engines.graphs:
        assert graph.choice.startswith("cpu (gpu: off its golden vectors by 0.0"), graph.name
    engines.close()


def test_branch_that_runs_nowhere_is_refused_at_start(
    shipped: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.engines.BACKENDS", {})
    with pytest.raises(BundleError, match=r"acc\.onnx: no backend runs it"):
        Stage(shipped, Ills())


@pytest.mark.parametrize("graph", ["acc", "gyro", "fusion"])
def test_another_thread_carries_on_when_an_engine_hangs(stage: Stage, graph: str) -> None:
    """The hanging thread is caught inside the engine, and let go after it has been relieved."""
    inside, let_go = threading.Event(), threading.Event()

    def hangs() -> None:
        inside.set()
        assert let_go.wait(20)

    server, seq = stage.server, stage.latest.seq
    stage.ills.of["cpu", graph] = hangs
    stage.hear()
    hung = server._carry_on()
    assert inside.wait(20)
    assert not server.watchdog.relieve(hung), "not before its time"
    stage.clock.now += HANG_NS
    assert server.watchdog.relieve(hung)
    del stage.ills.of["cpu", graph]
    server._pick_up()  # which is how the thread that carries on begins
    answer = stage.latest
    assert answer.seq == seq + 1
    alive = {"acc": ["gyro"], "gyro": ["acc"], "fusion": ["acc", "gyro"]}
    assert answer.alive == alive[graph]
    if graph != "fusion":
        assert answer.modalities[graph].reason == "engine failed: no answer within 250 ms"
    broken = next(g for g in server.serving.engines.graphs if g.backend is None)
    stage.clock.now += BACK_OFF_NS
    assert broken.due(stage.clock.now) is None, "not while a thread hangs in it"
    published = server.metrics.published
    let_go.set()
    hung.join(20)
    assert server.metrics.published == published, "who was relieved touches nothing"
    assert server._died is None
    stage.mend()
    assert broken.label == "cpu"
    assert stage.play(1)[0].alive == ["acc", "gyro"]
