"""runtime.doubt: of sensors that contradict one another, the one unlike training is left out."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from robult_edge import subsets
from robult_edge.bundle import Bundle
from robult_edge.plausibility import Usual
from runtime.doubt import Doubt
from runtime.policy import Mode, Policy
from runtime.rigs import Tick
from tests.runtime.live import staged

NAMES = ("acc", "gyro", "mic")
USUAL, UNUSUAL, STRANGE, STRANGER = -1.0, 0.5, 1.0, 9.0


class Told:
    """A window's level is how strange it is."""

    scale = np.array([[0.0], [1.0]], np.float32)

    def strangeness(self, looks: np.ndarray) -> np.ndarray:
        return looks[:, 0]

    def oddest(self, look: np.ndarray) -> int:
        return 0


def doubt(task: str, m: int) -> Doubt:
    manifest: Any = SimpleNamespace(
        task=task,
        classes=("a", "b", "c"),
        conflict=0.5,
        scales=(),
        modalities=[SimpleNamespace(name=n, channels=("x",)) for n in NAMES[:m]],
        branches=[SimpleNamespace(temperature=1.0)] * m,
    )
    told: Any = {name: Told() for name in NAMES}
    return Doubt(manifest, told)


def settled(strangeness: tuple[float, ...], labels: tuple[int, ...], task: str) -> Any:
    """A rig whose sensors are so strange and say so, once doubt has been at it."""
    m = len(strangeness)
    tick = Tick(0, m, 3, 2)
    tick.mask = (1 << m) - 1
    for i, (strange, label) in enumerate(zip(strangeness, labels, strict=True)):
        tick.windows[i] = np.full((1, 12), strange, np.float32)
        tick.logits[i] = -3
        tick.logits[i, label] = 3
    rig: Any = SimpleNamespace(
        tick=tick, streams=[SimpleNamespace(counts={"doubtful window": 0}) for _ in range(m)]
    )
    doubt(task, m).leave_out(rig)
    return rig


@pytest.mark.parametrize(
    ("strangeness", "labels", "out"),
    [
        ((USUAL, USUAL), (0, 1), []),
        ((STRANGE, USUAL), (0, 0), []),
        ((STRANGE, USUAL), (0, 1), ["acc"]),
        ((STRANGE, UNUSUAL), (0, 1), ["acc"]),
        ((UNUSUAL, USUAL), (0, 1), ["acc"]),
        ((USUAL, UNUSUAL), (0, 1), ["gyro"]),
        ((UNUSUAL, UNUSUAL), (0, 1), []),
        ((STRANGE, STRANGER), (0, 1), []),
        ((STRANGE, USUAL, USUAL), (0, 1, 1), ["acc"]),
        ((STRANGE, USUAL, STRANGE), (0, 1, 2), ["acc", "mic"]),
        ((USUAL, UNUSUAL, USUAL), (0, 1, 0), ["gyro"]),
        ((STRANGER,), (0,), []),
    ],
)
@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_who_is_left_out(
    strangeness: tuple[float, ...], labels: tuple[int, ...], out: list[str], task: str
) -> None:
    rig = settled(strangeness, labels, task)
    assert [NAMES[i] for i in rig.tick.doubts] == out
    alive = [NAMES[i] for i in subsets.members(rig.tick.mask)]
    assert alive == [name for name in NAMES[: len(strangeness)] if name not in out]
    assert [s.counts["doubtful window"] for s in rig.streams] == [
        int(name in out) for name in NAMES[: len(strangeness)]
    ]


def test_the_reason_names_whom_it_contradicts_and_where_it_is_unlike_training() -> None:
    rig = settled((STRANGE, USUAL), (0, 1), "classification")
    assert rig.tick.doubts == {
        0: "in doubt: contradicts gyro, and level of channel x is unlike training"
    }


def test_another_look_at_the_same_tick_takes_no_doubt_back() -> None:
    """As when another thread carries on where an engine hung."""
    rig = settled((STRANGE, USUAL), (0, 1), "classification")
    before = dict(rig.tick.doubts)
    doubt("classification", 2).leave_out(rig)
    assert rig.tick.doubts == before


class Everything:
    """What makes any window strange."""

    def __init__(self, real: Usual) -> None:
        self.scale = real.scale

    def strangeness(self, looks: np.ndarray) -> np.ndarray:
        return np.full(len(looks), STRANGER)

    def oddest(self, look: np.ndarray) -> int:
        return 1


@pytest.mark.parametrize("mode", ["tick", "latest"])
def test_a_window_in_doubt_is_out_of_the_answer_and_its_sensor_stays_alive(
    shipped: Bundle, monkeypatch: pytest.MonkeyPatch, mode: Mode
) -> None:
    known: Any = {"acc": Everything(shipped.usual()["acc"])}
    with staged(shipped, monkeypatch, "cpu", policy=Policy(mode=mode)) as stage:
        doubt = Doubt(shipped.manifest, known)
        stage.server.serving = replace(stage.server.serving, doubt=doubt)
        contradict = [False]
        monkeypatch.setattr(doubt._reads, "differ", lambda one, others: contradict[0])
        assert stage.play(6)[-1].alive == ["acc", "gyro"], "of one mind: nothing to settle"
        contradict[0] = True
        answer = stage.play(1)[-1]
        assert answer.alive == ["gyro"]
        part = answer.modalities["acc"]
        assert (part.state, part.weight, part.label) == ("alive", 0.0, None)
        assert part.reason == (
            "in doubt: contradicts gyro, and level of channel ay is unlike training"
        )
        assert answer.decision == "degraded"
        assert answer.expected is not None
        accuracy = shipped.manifest.entry("pool", 0b10).expected.accuracy
        assert answer.expected.accuracy == accuracy, "what the answer rests on is what it is worth"
        contradict[0] = False
        assert stage.play(1)[-1].alive == ["acc", "gyro"], "judged anew"
        counts = stage.server.rigs.rigs["rig"].streams[0].counts
        assert counts["doubtful window"] == 1
