"""Frames that are malformed, out of order, repeated, missing, or not to be believed."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest

from robult_edge.bundle import Bundle
from robult_edge.data.inject import Injector, parse
from robult_edge.data.replay import Replay
from robult_edge.frames import Frame, encode
from robult_edge.results import Result
from tests.failures.live import HOP_FRAMES, PATIENT, Message, Script, playing, serving

HEADER = msgspec.msgpack.encode


def header(*fields: object) -> bytes:
    """A frame's header with these fields, whatever they are."""
    return HEADER(fields)


def bad(modality: str, frame: Frame) -> dict[str, Message]:
    """Every way to get a frame wrong, by the reason it must be refused for."""
    topic, _, payload = encode(frame)
    seq, t_ns, shape = frame.seq, frame.t_ns, frame.samples.shape
    good = (1, frame.source, seq, t_ns, "<f4", shape)
    return {
        "parts": [topic, header(*good)],
        "modality": [b"gyroscope\0", header(*good), payload],
        "header": [topic, header(*good)[:-3], payload],
        "version": [topic, header(7, "another", "layout"), payload],
        "source": [topic, header(1, "", seq, t_ns, "<f4", shape), payload],
        "time": [topic, header(1, frame.source, seq, -5, "<f4", shape), payload],
        "dtype": [topic, header(1, frame.source, seq, t_ns, ">f4", shape), payload],
        "shape": [topic, header(1, frame.source, seq, t_ns, "<f4", (shape[0], 9)), payload],
        "size": [topic, header(*good), bytes(3000)],
    }


REASONS = ["parts", "modality", "header", "version", "source", "time", "dtype", "shape", "size"]


def test_malformed_frames_are_counted_and_named_and_hurt_no_other_sensor(
    shipped: Bundle, replay: Replay
) -> None:
    pending = list(REASONS)

    def gyro_is_broken_too(modality: str, frame: Frame) -> list[Frame | Message]:
        if modality == "gyro" and pending and frame.seq > 20:
            return [frame, bad(modality, frame)[pending.pop()]]
        return [frame]

    with serving(shipped.path, *PATIENT) as served, playing(served, replay) as player:
        player.play(12, gyro_is_broken_too)
        status = served.status()
        answers = served.answers
    assert pending == []
    assert status["frames_rejected"] == dict.fromkeys(REASONS, 1)
    assert "payload of 3000 bytes" in status["last_rejection"]["size"]
    assert "version 7; send 1" in status["last_rejection"]["version"]
    assert [b.seq - a.seq for a, b in pairwise(answers)] == [1] * (len(answers) - 1)
    assert all(a.decision == "ok" for a in answers if a.seq >= 4)


def shuffled() -> Script:
    """Every second frame comes after the one that follows it."""
    held: dict[str, Frame] = {}

    def script(modality: str, frame: Frame) -> list[Frame | Message]:
        if frame.seq % 4 == 1:
            held[modality] = frame
            return []
        return [frame, held.pop(modality)] if modality in held else [frame]

    return script


def doubled() -> Script:
    """Every frame comes twice."""
    return lambda _, frame: [frame, frame]


@pytest.mark.parametrize(("script", "count"), [(shuffled(), "late"), (doubled(), "duplicate")])
def test_disorder_and_duplicates_change_no_answer(
    shipped: Bundle, replay: Replay, script: Script, count: str
) -> None:
    with serving(shipped.path, *PATIENT) as served, playing(served, replay) as player:
        player.play(10, script)
        served.read(0.5)
        status = served.status()
        used = [a for a in served.answers if a.alive == ["acc", "gyro"]]
        windows = {name: [player.end_of(a, name) for a in used] for name in replay.modalities}
    assert len(used) >= 5
    for name, ends in windows.items():
        assert status["sources"]["rig"][name]["frames"][count] >= 8
        assert {b - a for a, b in pairwise(ends)} == {replay.modalities[name].hop}


def test_long_gap_takes_the_sensor_out_until_a_clean_window_has_passed(
    shipped: Bundle, replay: Replay
) -> None:
    def one_frame_lost(modality: str, frame: Frame) -> list[Frame | Message]:
        return [] if modality == "acc" and frame.seq == 24 else [frame]

    acc = replay.modalities["acc"]
    with serving(shipped.path, *PATIENT) as served, playing(served, replay) as player:
        player.play(13, one_frame_lost)
        served.read(0.5)
        status = served.status()
        ends = [player.end_of(a, "acc") for a in served.answers if "acc" in a.alive]
        out = [a for a in served.answers if a.modalities["acc"].state == "faulty"]
    lost = range(6 * acc.hop, 6 * acc.hop + 8)
    assert status["sources"]["rig"]["acc"]["frames"]["gap"] == 1
    assert out
    assert all(a.modalities["acc"].reason.startswith("gap") for a in out)
    assert not [end for end in ends if end >= lost.start and end - acc.window < lost.stop - 1]
    assert max(ends) >= lost.stop + acc.window - 1, "it was taken back"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("nan(0.3)", "% NaN"),
        ("stuck", "flat"),
        ("scale(57.3)", "× its training range"),
        ("noise(2)", "× its usual"),
        ("bias(5)", "shifted by"),
        ("frozen", "payload frozen"),
        ("drift(0.86)", "Hz instead of 50"),
    ],
)
def test_lying_sensor_is_found_named_and_left_out(
    shipped: Bundle, replay: Replay, fault: str, reason: str
) -> None:
    gyro = replay.modalities["gyro"]
    injector = Injector(parse(f"gyro:{fault}@{6 * gyro.hop_s}-", ["gyro"]), gyro)

    def gyro_lies(modality: str, frame: Frame) -> list[Frame | Message]:
        if modality != "gyro":
            return [frame]
        at_s = frame.seq * gyro.hop_s / HOP_FRAMES
        return list(injector.sent(frame.source, frame.samples, frame.t_ns, at_s))

    with serving(shipped.path, *PATIENT) as served, playing(served, replay) as player:
        player.play(10, gyro_lies)
        served.read(0.5)
        # Not the tick after the last frame, for which nothing is sent any more.
        last = next(a for a in reversed(served.answers) if "acc" in a.alive)
        said = [a.modalities["gyro"].reason for a in served.answers]
        trusted = [player.end_of(a, "gyro") for a in served.answers if "gyro" in a.alive]
    assert player.end_of(last, "acc") >= 9 * replay.modalities["acc"].hop, "to the very end"
    assert last.alive == ["acc"]
    assert last.modalities["gyro"].state == "faulty"
    assert any(reason in why for why in said)
    assert max(trusted) < 6 * gyro.hop + 2 * gyro.hop, "found within two hops"


def test_flood_of_sources_is_capped_and_named(shipped: Bundle, replay: Replay) -> None:
    def many(modality: str, frame: Frame) -> list[Frame | Message]:
        invented = [msgspec.structs.replace(frame, source=f"fake-{i}") for i in range(20)]
        return [frame, *invented] if modality == "acc" else [frame]

    with (
        serving(shipped.path, *PATIENT, "--max-sources", "8") as served,
        playing(served, replay) as player,
    ):
        player.play(8, many)
        status = served.status()
        mine: list[Result] = [a for a in served.answers if a.source == "rig"]
    assert len(status["sources"]) == 8
    assert status["frames_rejected"]["sources"] > 0
    assert "--max-sources" in status["last_rejection"]["sources"]
    assert mine[-1].decision == "ok"
