"""benchmarks.fuzz: damaged frames do no harm, and harm would be seen."""

from __future__ import annotations

from contextlib import suppress
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import fuzz
from robult_edge.bundle import Bundle
from robult_edge.errors import FrameError
from robult_edge.frames import Frame
from runtime.ingest import Ingest
from runtime.rigs import Rig, Rigs

FRAMES = 3000


def test_damaged_frames_neither_crash_nor_touch_another_sensor(shipped: Bundle) -> None:
    figures = fuzz.fuzz(shipped.manifest, FRAMES, seed=1)
    assert figures["crashes"] == figures["others_changed"] == 0
    assert figures["accepted"] > FRAMES / 100, "some must get through to be placed"
    refused = sum(n for name, n in figures.items() if name.startswith("refused_"))
    assert figures["accepted"] + refused == FRAMES + figures.get("refused_sources", 0)


def test_a_crash_is_counted(shipped: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise IndexError

    monkeypatch.setattr(Ingest, "read", crash)
    assert fuzz.fuzz(shipped.manifest, 5, seed=1)["crashes"] == 5


def test_a_frame_that_reaches_another_sensor_too_is_counted(
    shipped: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Rig.place

    def place_everywhere(rig: Rig, i: int, frame: Frame, now_ns: int) -> None:
        for each in range(len(rig.streams)):
            place(rig, each, frame, now_ns)

    monkeypatch.setattr(Rig, "place", place_everywhere)
    assert fuzz.fuzz(shipped.manifest, FRAMES, seed=1)["others_changed"] > 0


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.binary(max_size=40), max_size=4) | st.randoms(), max_size=12))
def test_whatever_comes_is_a_frame_or_one_counted_refusal(
    shipped: Bundle, script: list[list[bytes] | Random]
) -> None:
    manifest, now_ns = shipped.manifest, fuzz.START_NS
    ingest, rigs = Ingest(manifest.modalities), Rigs(manifest, max_sources=2)
    for seq, sent in enumerate(script):
        now_ns += 5_000_000
        damaged = isinstance(sent, Random)
        parts = fuzz.damage(sent, fuzz.honest(sent, manifest, seq, now_ns)) if damaged else sent
        refused = sum(ingest.rejected.values())
        before = {key: fuzz.state(stream) for key, stream in fuzz.sensors(rigs).items()}
        frame = ingest.read(parts)
        if frame is None:
            assert sum(ingest.rejected.values()) == refused + 1
        else:
            with suppress(FrameError):
                rigs.place(frame, now_ns)
        for key, stream in fuzz.sensors(rigs).items():
            if frame is None or key != (frame.source, frame.modality):
                assert before.get(key, fuzz.state(stream)) == fuzz.state(stream)
