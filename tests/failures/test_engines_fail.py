"""Engines that throw or hang in a real server: the others answer on time, and it comes back."""

from __future__ import annotations

import textwrap

import msgspec

from robult_edge.bundle import Bundle
from robult_edge.data.replay import Replay
from robult_edge.frames import Frame
from tests.failures.live import PATIENT, Message, playing, serving
from tests.failures.test_sensors_die import holes


def with_backend(run: str) -> tuple[str, str]:
    """A server with a backend ``ill`` before the others: ``run`` is its way to run the gyroscope.

    ``inner`` is the graph on ONNX Runtime, ``runs`` counts the runs so far.
    """
    return "-c", textwrap.dedent("""
        import sys, threading
        from runtime import engines, serve
        from runtime.backends.onnxruntime import OnnxRuntimeBackend

        class Ill(OnnxRuntimeBackend):
            runs = 0
            def __init__(self, path):
                super().__init__(path)
                self.gyro = path.stem == "gyro"
            def run(self, *inputs):
                Ill.runs += self.gyro
                if self.gyro:
                    %s
                return super().run(*inputs)

        engines.BACKENDS = {"ill": Ill, **engines.BACKENDS}
        sys.exit(serve.main(sys.argv[1:]))
    """) % run


def test_engine_that_throws_after_some_runs_is_replaced_by_the_next_backend(
    shipped: Bundle, replay: Replay
) -> None:
    main = with_backend("if Ill.runs > 6: raise RuntimeError('device lost')")
    with (
        serving(shipped.path, *PATIENT, main=main) as served,
        playing(served, replay) as player,
    ):
        player.play(12)
        served.wait_for(lambda r: r.seq >= 12)
        status = served.status()
    failed = [a for a in served.answers if a.modalities["gyro"].reason.startswith("engine failed")]
    assert failed[0].modalities["gyro"].reason == "engine failed: device lost"
    assert failed[0].modalities["gyro"].state == "faulty"
    assert failed[0].alive == ["acc"], "the other branch answers"
    assert len(failed) <= 2, "the next backend takes over"
    later = [a for a in served.answers if a.seq > failed[-1].seq and a.seq < 11]
    assert later
    assert all(a.alive == ["acc", "gyro"] for a in later)
    assert status["engines"]["acc"] == "ill"
    assert status["engines"]["gyro"].startswith("onnxruntime-cpu (ill: device lost")
    assert holes(served.answers) == []


def test_engine_that_hangs_holds_up_no_result_and_no_stop(shipped: Bundle, replay: Replay) -> None:
    main = with_backend("if Ill.runs > 6: threading.Event().wait()")
    with (
        serving(shipped.path, *PATIENT, main=main) as served,
        playing(served, replay) as player,
    ):
        player.play(12)
        served.wait_for(lambda r: r.seq >= 12)
        assert served.ask("/livez")[0] == 200
        status = served.status()
        assert served.stop() == 0
    failed = [a for a in served.answers if a.modalities["gyro"].reason.startswith("engine failed")]
    assert failed[0].modalities["gyro"].reason == "engine failed: no answer within 250 ms"
    assert failed[0].alive == ["acc"]
    assert status["engines"]["gyro"].startswith("onnxruntime-cpu (ill: no answer within 250 ms")
    assert any(a.alive == ["acc", "gyro"] for a in served.answers if a.seq > failed[-1].seq)
    assert holes(served.answers) == []


def test_engine_that_hangs_costs_no_rig_a_result(shipped: Bundle, replay: Replay) -> None:
    """Windows of all rigs were on their way to it, in one batch or several."""
    names = [f"rig-{i}" for i in range(5)]

    def same_for_all(_: str, frame: Frame) -> list[Frame | Message]:
        return [msgspec.structs.replace(frame, source=name) for name in names]

    main = with_backend("if Ill.runs > 6: threading.Event().wait()")
    with (
        serving(shipped.path, *PATIENT, main=main) as served,
        playing(served, replay) as player,
    ):
        player.play(14, same_for_all)
        served.wait_for(lambda r: r.seq >= 12)
        served.read(0.5)
        assert served.stop() == 0
    failed = set()
    for name in names:
        mine = [a for a in served.answers if a.source == name]
        assert holes(mine) == []
        assert len(mine) >= 12
        failed |= {a.source for a in mine if "engine failed" in a.modalities["gyro"].reason}
        last = [a for a in mine if a.alive][-1]  # after it, the players have fallen silent
        assert last.seq >= 12
        assert last.modalities["gyro"].state == "alive", "its successor answers for all"
    assert failed, "it did hang"
