"""runtime.ingest: a bad frame is counted and named, and costs nobody else anything."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from robult_edge import frames
from robult_edge.errors import FrameError
from robult_edge.frames import Frame
from robult_edge.modality import ModalitySpec
from runtime.ingest import LOG_EVERY_S, Ingest

ACC = ModalitySpec(
    name="acc", channels=("x", "y"), unit="g", rate_hz=50.0, window=8, hop=4, timeout_s=1.0
)


def message(modality: str = "acc", channels: int = 2) -> list[bytes]:
    samples = np.zeros((3, channels), np.float32)
    return frames.encode(Frame(modality, "rig", 0, 0, samples))


class Monotonic:
    """Stands for time.monotonic."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 5.0
        monkeypatch.setattr("runtime.ingest.time.monotonic", lambda: self.now_s)


def test_good_frames_are_read_and_counted() -> None:
    ingest = Ingest([ACC])
    for _ in range(3):
        frame = ingest.read(message())
        assert frame is not None
        assert frame.samples.shape == (3, 2)
    assert ingest.received == 3
    assert not ingest.rejected


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([b"acc\0"], "parts"),
        (message("gyro"), "modality"),
        ([b"acc\0", b"\xc1", b""], "header"),
        (message(channels=3), "shape"),
        ([*message()[:2], b"short"], "size"),
    ],
)
def test_a_bad_frame_is_counted_by_reason_and_told_in_words(
    parts: list[bytes], reason: str
) -> None:
    ingest = Ingest([ACC])
    assert ingest.read(parts) is None
    assert ingest.read(parts) is None
    assert ingest.read(message()) is not None
    assert ingest.received == 1
    assert ingest.rejected == {reason: 2}
    with pytest.raises(FrameError) as refused:
        frames.decode(parts, {frames.topic("acc"): ACC})
    assert ingest.last_error == {reason: str(refused.value)}


def test_a_frame_that_is_refused_later_is_counted_too() -> None:
    ingest = Ingest([ACC])
    ingest.refuse(FrameError("sources", "source 'x' refused"))
    assert ingest.rejected == {"sources": 1}
    assert ingest.last_error == {"sources": "source 'x' refused"}


def test_a_flood_of_bad_frames_does_not_flood_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    time, ingest = Monotonic(monkeypatch), Ingest([ACC])
    with caplog.at_level(logging.WARNING, "robult.ingest"):
        for _ in range(1000):
            ingest.read([])
        ingest.read(message("gyro"))
        assert [r.getMessage() for r in caplog.records] == [
            "frame refused (parts, 1 so far): 0 parts; a frame has 3: topic, header, payload",
            r"frame refused (modality, 1 so far): topic b'gyro\x00'; the bundle knows acc",
        ]
        time.now_s += LOG_EVERY_S
        ingest.read([])
    assert caplog.records[-1].getMessage().startswith("frame refused (parts, 1001 so far)")
    assert ingest.rejected == {"parts": 1001, "modality": 1}
