"""runtime.simulate: frames go out when their last sample is due."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from robult_edge.data.replay import Replay
from robult_edge.modality import ModalitySpec
from runtime import simulate
from runtime.simulate import play


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--fault", "s9:dead@1-2"], "runtime.simulate: --fault 's9:dead@1-2' is not"),
        (["--dataset", "synthetic:colour=1"], "runtime.simulate: synthetic:colour=1: unknown"),
    ],
)
def test_what_makes_no_sense_ends_with_two_and_one_sentence(
    argv: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = ["--dataset", "synthetic:windows=40,groups=4", *argv]
    assert simulate.main(whole) == 2
    error = capsys.readouterr().err
    assert error.startswith(says)
    assert error.count("\n") == 1


def test_sensors_that_fail_are_named_at_the_end(capfd: pytest.CaptureFixture[str]) -> None:
    source = "synthetic:windows=40,groups=4,modalities=2"
    assert simulate.main(["--dataset", source, "--seconds", "1", "--curve-keys", "nowhere"]) == 1
    assert capfd.readouterr().err.endswith("runtime.simulate: s0, s1 failed; see above\n")


START_NS = 1_700_000_000_000_000_000
SPEC = ModalitySpec(
    name="acc", channels=("x",), unit="g", rate_hz=10.0, window=4, hop=4, timeout_s=1.0
)


class Hand:
    """A clock that sleeping moves on."""

    speed = 2.0

    def __init__(self, now_ns: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self._now_ns = now_ns
        monkeypatch.setattr("runtime.simulate.time.sleep", self.sleep)

    def now_ns(self) -> int:
        return self._now_ns

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self._now_ns += max(1, round(seconds * 1e9 * self.speed))


class Wire:
    """A publisher that keeps what it is given, and when."""

    def __init__(self, clock: Hand) -> None:
        self.sent: list[tuple[int, int, list[float]]] = []
        self.seq = 0
        self._clock = clock

    def send(self, samples: np.ndarray, t_ns: int) -> None:
        self.sent.append((self._clock.now_ns(), t_ns, samples[:, 0].tolist()))


def replay(n: int, source: str = "rig") -> Replay:
    samples = {"acc": np.arange(n, dtype=np.float32)[:, None]}
    return Replay(source, {"acc": SPEC}, samples, np.zeros(n // 4, int))


def played(
    monkeypatch: pytest.MonkeyPatch, *plays: Replay, late_s: float = 0.0, seconds: float = 4.0
) -> list[list[tuple[int, int, list[float]]]]:
    """What goes out per source, if the process comes up ``late_s`` after the start."""
    clock = Hand(START_NS + round(late_s * 1e9), monkeypatch)
    wires: list[Any] = [Wire(clock) for _ in plays]
    play(plays, wires, "acc", clock, START_NS, seconds, frame_samples=4)
    return [wire.sent for wire in wires]


def test_frames_go_out_when_their_last_sample_is_captured_and_not_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    it = replay(40)
    (sent,) = played(monkeypatch, it)
    assert [samples for _, _, samples in sent] == np.arange(40.0).reshape(10, 4).tolist()
    for k, (at, t_ns, _) in enumerate(sent):
        assert t_ns == it.captured_ns("acc", 4 * k, START_NS)
        assert 0 <= at - it.captured_ns("acc", 4 * k + 3, START_NS) < 1000


@pytest.mark.parametrize(
    ("late_s", "first"),
    [(0.0, 0), (0.09, 0), (0.11, 4), (0.49, 4), (0.51, 8), (2.0, 20), (99.0, None)],
)
def test_a_sensor_that_starts_in_the_middle_starts_with_the_next_whole_frame(
    monkeypatch: pytest.MonkeyPatch, late_s: float, first: int | None
) -> None:
    (sent,) = played(monkeypatch, replay(40), late_s=late_s)
    assert (sent[0][2][0] if sent else None) == first


def test_nothing_goes_out_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    (sent,) = played(monkeypatch, replay(40), seconds=2.0)
    assert sent[-1][2] == [16, 17, 18, 19]


def test_what_was_not_measured_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    it = replay(16)
    it.samples["acc"][4:12] = np.nan
    it.samples["acc"][12] = np.nan
    (sent,) = played(monkeypatch, it, seconds=1.6)
    assert [samples[-1] for _, _, samples in sent] == [3, 15]
    assert np.isnan(sent[1][2][0])


def test_a_shorter_recording_begins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    short, long = played(monkeypatch, replay(8, "a"), replay(16, "b"), seconds=1.6)
    assert [samples[0] for _, _, samples in long] == [0, 4, 8, 12]
    assert [samples[0] for _, _, samples in short] == [0, 4, 0, 4]
    assert [t_ns for _, t_ns, _ in short] == [t_ns for _, t_ns, _ in long]
