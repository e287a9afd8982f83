"""runtime.tick: what a result says is what export measured, for every alive subset."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from robult_edge import conformal, faults, fusion, results, subsets
from robult_edge.bundle import Branch, FileRef, Head, Manifest, Measured, SubsetEntry
from robult_edge.fusion import Rule
from robult_edge.late_fusion import Answers, Fit, SubsetFit
from robult_edge.modality import ModalitySpec
from robult_edge.results import Result
from runtime.rigs import Rig
from runtime.tick import Decider

NAMES = ("acc", "gyro", "mic")
CLASSES = ("rest", "walk", "run", "jump")
TEMPERATURES = np.array([0.7, 1.3, 2.0, 1.6])
EVERY = list(subsets.all_subsets(3))
RULES: list[Rule] = ["pool", "mean"]
NOW_NS = 1_700_000_000_123_000_000
MS = 1_000_000
REF = FileRef(file="x", sha256="0")


class Hand:
    """A clock that is turned by hand; it moves on by ``tick_ns`` whenever it is read."""

    def __init__(self, now_ns: int = NOW_NS, tick_ns: int = 0, speed: float = 1.0) -> None:
        self.speed = speed
        self._now_ns, self._tick_ns = now_ns, tick_ns

    def now_ns(self) -> int:
        self._now_ns += self._tick_ns
        return self._now_ns


def fitted() -> Fit:
    """Tables with weights, a subset that uses fewer than are alive, and one without the head."""
    rng = np.random.default_rng(1)
    tables: dict[Rule, tuple[SubsetFit, ...]] = {}
    for rule in RULES:
        rows = []
        for mask in EVERY:
            uses = 0b011 if (rule, mask) == ("pool", 0b111) else mask
            alive = subsets.as_bools([uses], 3)[0]
            weights = np.r_[alive * rng.uniform(0.2, 1, 3), 0 if mask == 0b101 else 0.6]
            if rule == "mean":
                weights = np.r_[alive / alive.sum(), 0]
            rows.append(SubsetFit(uses, weights, float(rng.uniform(0.05, 0.3))))
        tables[rule] = tuple(rows)
    return Fit(TEMPERATURES, tables, conflict=0.25)


FIT = fitted()


def entry(mask: int, row: SubsetFit) -> SubsetEntry:
    return SubsetEntry(
        alive=tuple(NAMES[i] for i in subsets.members(mask)),
        uses=tuple(NAMES[i] for i in subsets.members(row.uses)),
        weights=tuple(row.weights[:-1].tolist()),
        head_weight=float(row.weights[-1]),
        threshold=row.threshold,
        expected=Measured(
            accuracy=0.5 + mask / 20, balanced_accuracy=0, macro_f1=0, ece=0,
            coverage=0.9 + mask / 100, set_size=1, n=1,
        ),
    )  # fmt: skip


MANIFEST = Manifest(
    format=1,
    name="demo",
    task="classification",
    classes=CLASSES,
    modalities=tuple(
        ModalitySpec(
            name=name, channels=("x",), unit="g", rate_hz=50.0, window=50, hop=25, timeout_s=1.0
        )
        for name in NAMES
    ),
    width=5,
    branches=tuple(
        Branch(modality=name, onnx=REF, temperature=t)
        for name, t in zip(NAMES, TEMPERATURES.tolist(), strict=False)
    ),
    head=Head(onnx=REF, temperature=1.6),
    tables={
        rule: tuple(entry(mask, row) for mask, row in zip(EVERY, FIT.tables[rule], strict=True))
        for rule in RULES
    },
    coverage=0.9,
    conflict=FIT.conflict,
    golden=REF,
    provenance={},
)

RNG = np.random.default_rng(2)
SAID = Answers(
    branch=RNG.normal(0, 2, (20, 3, 4)),
    head=RNG.normal(0, 2, (20, 7, 4)),
    y=np.zeros(20, int),
    present=np.ones((20, 3), bool),
)


def rig_at(mask: int, logits: np.ndarray | None = None) -> Rig:
    """A rig whose tick has the branches of ``mask`` in; the others are stale."""
    limits = tuple(map(faults.limits, MANIFEST.modalities))
    rig = Rig("wrist", MANIFEST, limits, NOW_NS)
    rig.tick.mask = mask
    if logits is not None:
        rig.tick.logits[:] = np.where(subsets.as_bools([mask], 3).T, logits, 0)
    for i, stream in enumerate(rig.streams):
        stream.liveness.fresh(NOW_NS - 2 * MS)
        if mask >> i & 1:
            stream.liveness.clean_window()
            rig.tick.ends_ns[i] = 1000 + i
        else:
            stream.liveness.silence(NOW_NS + 1500 * MS)
    return rig


def decided(rule: Rule, mask: int, row: int = 0, **clock: Any) -> Result:
    decider = Decider(MANIFEST, rule)
    wanted = decider.head_wants(mask)
    head = None
    if wanted is not None:
        head = SAID.head[row, subsets.mask_of(np.flatnonzero(wanted).tolist()) - 1]
    return decider.decide(rig_at(mask, SAID.branch[row]), head, Hand(**clock))


@pytest.mark.parametrize("mask", EVERY)
@pytest.mark.parametrize("rule", RULES)
def test_the_answer_is_what_export_measured(rule: Rule, mask: int) -> None:
    want = FIT.probabilities(rule, mask, SAID)
    bar = FIT.tables[rule][mask - 1].threshold
    sets = conformal.prediction_sets(want, bar)
    for row in range(len(want)):
        got = decided(rule, mask, row)
        assert list(got.probabilities) == list(CLASSES)
        np.testing.assert_allclose(list(got.probabilities.values()), want[row], atol=2e-6)
        assert got.label == CLASSES[want[row].argmax()]
        assert got.prediction_set == [c for c, held in zip(CLASSES, sets[row], strict=True) if held]
        assert got.label in got.prediction_set


@pytest.mark.parametrize("mask", EVERY)
@pytest.mark.parametrize("rule", RULES)
def test_the_fused_distribution_is_fusion_fuse_of_tempered_logits(rule: Rule, mask: int) -> None:
    logits = np.where(subsets.as_bools([mask], 3).T, SAID.branch[0], 0).astype(np.float32)
    head = SAID.head[0, mask - 1].astype(np.float32)
    fused, branches = Decider(MANIFEST, rule).probabilities(mask, logits, head)
    y = np.vstack([logits, head]) / TEMPERATURES[:, None]
    np.testing.assert_allclose(
        fused, fusion.fuse(rule, y, FIT.tables[rule][mask - 1].weights), atol=1e-6
    )
    alive = list(subsets.members(mask))
    own = [branches[i] for i in alive]
    np.testing.assert_allclose(own, fusion.softmax(y[alive]), atol=1e-6)
    assert sum(fused) == pytest.approx(1)


@pytest.mark.parametrize(
    ("rule", "mask", "wants"),
    [
        ("pool", 0b000, None),
        ("pool", 0b001, [True, False, False]),
        ("pool", 0b011, [True, True, False]),
        ("pool", 0b111, [True, True, False]),
        ("pool", 0b101, None),
        ("mean", 0b111, None),
        ("mean", 0b000, None),
    ],
)
def test_the_head_looks_at_what_the_subset_uses_and_only_where_it_has_a_say(
    rule: Rule, mask: int, wants: list[bool] | None
) -> None:
    got = Decider(MANIFEST, rule).head_wants(mask)
    assert (got if got is None else got.tolist()) == wants


@pytest.mark.parametrize("mask", EVERY)
def test_a_result_says_what_it_rests_on_and_what_to_expect(mask: int) -> None:
    got = decided("pool", mask)
    alive = [NAMES[i] for i in subsets.members(mask)]
    assert got.alive == alive
    assert got.expected is not None
    assert got.expected.accuracy == 0.5 + mask / 20
    assert got.expected.full_accuracy == 0.5 + 7 / 20
    assert got.expected.coverage == 0.9 + mask / 100
    assert got.decision == ("ok" if mask == 0b111 else "degraded")
    assert (got.version, got.source, got.seq, got.bundle) == (1, "wrist", 0, "demo")
    assert got.t_ns == (NOW_NS // (500 * MS) + 1) * 500 * MS
    for i, name in enumerate(NAMES):
        part = got.modalities[name]
        if name in alive:
            p = fusion.softmax(SAID.branch[0, i] / TEMPERATURES[i])
            assert (part.state, part.t_ns, part.age_ms) == ("alive", 1000 + i, 2.0)
            assert part.label == CLASSES[p.argmax()]
            assert part.probability == pytest.approx(p.max(), abs=1e-4)
            weight = FIT.tables["pool"][mask - 1].weights[i]
            assert part.weight == pytest.approx(weight, abs=1e-4)
        else:
            assert (part.state, part.t_ns, part.label, part.weight) == ("stale", None, None, 0.0)


@pytest.mark.parametrize(
    ("mask", "decision", "reason"),
    [
        (0b111, "ok", "all modalities alive"),
        (0b101, "degraded", "gyro stale: no frames for 1.5 s"),
        (
            0b001,
            "degraded",
            "gyro stale: no frames for 1.5 s; mic stale: no frames for 1.5 s",
        ),
        (
            0b000,
            "none",
            "acc stale: no frames for 1.5 s; gyro stale: no frames for 1.5 s; "
            "mic stale: no frames for 1.5 s",
        ),
    ],
)
def test_the_reason_names_each_sensor_that_is_missing_and_why(
    mask: int, decision: str, reason: str
) -> None:
    got = decided("pool", mask)
    assert (got.decision, got.reason) == (decision, reason)


def test_a_sensor_that_is_alive_but_not_in_is_late_for_this_tick() -> None:
    rig = rig_at(0b011, SAID.branch[0])
    rig.streams[2].liveness.clean_window()
    got = Decider(MANIFEST, "mean").decide(rig, None, Hand())
    assert (got.decision, got.reason) == ("degraded", "mic alive: late for this tick")
    assert got.alive == ["acc", "gyro"]
    assert got.modalities["mic"].state == "alive"
    assert got.modalities["mic"].reason == "late for this tick"
    assert got.modalities["mic"].weight == 0


def test_with_nothing_alive_there_is_a_result_without_an_answer() -> None:
    got = decided("pool", 0)
    assert got.label is None
    assert got.expected is None
    assert (got.probabilities, got.prediction_set, got.alive) == ({}, [], [])
    assert got.conflict is False
    assert got.latency_us == results.LatencyUs(wait=0, infer=0, fuse=0, total=0)
    assert results.decode(results.encode(got)) == got


def test_before_its_first_frame_a_sensor_has_no_age() -> None:
    rig = Rig("wrist", MANIFEST, tuple(map(faults.limits, MANIFEST.modalities)), NOW_NS)
    got = Decider(MANIFEST, "pool").decide(rig, None, Hand())
    assert {p.age_ms for p in got.modalities.values()} == {None}
    assert got.reason == "; ".join(f"{name} absent: no frames yet" for name in NAMES)


@pytest.mark.parametrize(
    ("mask", "says", "conflict"),
    [
        (0b011, [0, 0, 3], False),
        (0b011, [0, 1, 0], True),
        (0b111, [2, 2, 2], False),
        (0b111, [0, 1, 2], True),
        (0b001, [0, 1, 2], False),
    ],
)
def test_sensors_that_contradict_one_another_are_flagged_and_only_those_alive_count(
    mask: int, says: list[int], conflict: bool
) -> None:
    rig = rig_at(mask, 20 * np.eye(4)[says])
    assert Decider(MANIFEST, "mean").decide(rig, None, Hand()).conflict is conflict


@pytest.mark.parametrize("speed", [1.0, 10.0])
def test_latency_is_told_in_microseconds_of_real_time(speed: float) -> None:
    rig, tick_ns = rig_at(0b111, SAID.branch[0]), round(7000 * speed)
    rig.tick.opened_ns = NOW_NS - round(50_000 * speed)
    rig.tick.newest_ns = NOW_NS - round(20_000 * speed)
    rig.tick.infer_ns = round(11_000 * speed)
    got = Decider(MANIFEST, "mean").decide(rig, None, Hand(tick_ns=tick_ns, speed=speed))
    # The clock is read when fusion begins and when it ends.
    assert got.latency_us == results.LatencyUs(wait=30, infer=11, fuse=7, total=34)
