"""robult_edge.frames: what is sent is what is read, and anything else is refused by reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from robult_edge import frames
from robult_edge.errors import FrameError
from robult_edge.frames import Frame, SensorPublisher, decode, encode, topic
from robult_edge.modality import ModalitySpec

REASONS = {"parts", "modality", "header", "version", "source", "time", "dtype", "shape", "size"}
PATIENCE_MS = 10_000
PROTOCOL = (Path(__file__).parents[1] / "docs" / "PROTOCOL.md").read_text()


def spec(name: str, channels: int, **changes: Any) -> ModalitySpec:
    given = {"rate_hz": 50.0, "window": 8, "hop": 4, "timeout_s": 1.0, "unit": "g", **changes}
    return ModalitySpec(name=name, channels=tuple(f"c{i}" for i in range(channels)), **given)


ACC, CAM = spec("acc", 3), spec("cam", 2, window=1, hop=1, size=(4, 5))
KNOWN = {topic(m.name): m for m in (ACC, CAM)}
GOOD: list[Any] = [1, "rig", 7, 1_000, "<f4", [2, 3]]
PAYLOAD = np.arange(6, dtype="<f4").tobytes()


def message(
    topic: bytes = b"acc\0", header: Any = None, payload: bytes = PAYLOAD, **fields: Any
) -> list[bytes]:
    """A good message, but for the header's fields given by name."""
    names = ("version", "source", "seq", "t_ns", "dtype", "shape")
    told = [fields.get(name, good) for name, good in zip(names, GOOD, strict=True)]
    raw = header if isinstance(header, bytes) else msgspec.msgpack.encode(header or told)
    return [topic, raw, payload]


def refusal(parts: list[bytes]) -> tuple[str, str]:
    with pytest.raises(FrameError) as refused:
        decode(parts, KNOWN)
    return refused.value.reason, str(refused.value)


@pytest.mark.parametrize("dtype", frames.DTYPES)
@pytest.mark.parametrize("m", [ACC, CAM], ids=lambda m: m.name)
def test_what_is_sent_in_any_dtype_is_what_is_read(m: ModalitySpec, dtype: str) -> None:
    samples = np.arange(3 * np.prod(m.sample_shape)).reshape(3, *m.sample_shape).astype(dtype)
    sent = Frame(m.name, "rig-1", 42, 1_700_000_000_000_000_000, samples)
    got = decode(encode(sent), KNOWN)
    assert (got.modality, got.source, got.seq, got.t_ns) == (m.name, "rig-1", 42, sent.t_ns)
    assert got.samples.dtype == np.float32
    np.testing.assert_array_equal(got.samples, samples.astype(np.float32))


@pytest.mark.parametrize("dtype", [">f4", ">i2", ">f8"])
def test_big_endian_samples_travel_little_endian(dtype: str) -> None:
    parts = encode(Frame("acc", "rig", 0, 0, np.arange(6).reshape(2, 3).astype(dtype)))
    assert msgspec.msgpack.decode(parts[1])[4] == dtype.replace(">", "<")
    np.testing.assert_array_equal(decode(parts, KNOWN).samples, [[0, 1, 2], [3, 4, 5]])


def test_samples_that_lie_strided_in_memory_arrive_in_order() -> None:
    every_other = np.arange(24, dtype=np.float32).reshape(4, 6)[:, ::2]
    got = decode(encode(Frame("acc", "rig", 0, 0, every_other)), KNOWN)
    np.testing.assert_array_equal(got.samples, every_other)


@pytest.mark.parametrize("dtype", ["int64", "bool", "complex64", "uint16"])
def test_a_dtype_that_the_wire_does_not_know_is_refused_at_the_sender(dtype: str) -> None:
    with pytest.raises(FrameError, match=f"samples are {dtype}; send one of <f4, ") as refused:
        encode(Frame("acc", "rig", 0, 0, np.zeros((2, 3), dtype)))
    assert refused.value.reason == "dtype"


@pytest.mark.parametrize(
    ("parts", "reason", "sentence"),
    [
        ([], "parts", "0 parts; a frame has 3: topic, header, payload"),
        (message()[:2], "parts", "2 parts"),
        ([*message(), b""], "parts", "4 parts"),
        (message(topic=b"acc"), "modality", "topic b'acc'; the bundle knows acc, cam"),
        (message(topic=b"acc\0\0"), "modality", r"topic b'acc\x00\x00'"),
        (message(topic=b"accel\0"), "modality", r"topic b'accel\x00'"),
        (message(topic=b""), "modality", "topic b''"),
        (message(header=b""), "header", "header unreadable (Input data was truncated)"),
        (message(header=message()[1][:-1]), "header", "header unreadable (Input data was trunc"),
        (message(header=message()[1] + b"\0"), "header", "header unreadable"),
        (message(header={"version": 1}), "header", "header unreadable"),
        (message(header=GOOD[:5]), "header", "header unreadable"),
        (message(header=[*GOOD, 0]), "header", "header unreadable"),
        (message(header=b"\x91" * 100_000), "header", "header unreadable"),
        (message(header=b"\x96\x01\xa1\xff\0\0\xa3<f4\x92\2\3"), "header", "header unreadable"),
        (message(version="1"), "header", "header unreadable"),
        (message(seq=1.5), "header", "header unreadable"),
        (message(seq=True), "header", "header unreadable"),
        (message(t_ns=None), "header", "header unreadable"),
        (message(shape=6), "header", "header unreadable"),
        (message(shape=[2.0, 3]), "header", "header unreadable"),
        (message(version=2), "version", "version 2; send 1"),
        (message(header=[2, "of another make"]), "version", "version 2; send 1"),
        (message(source=""), "source", "source ''; send 1 to 128 characters, no NUL"),
        (message(source="r" * 129), "source", f"source {'r' * 40!r}; send 1 to 128 characters"),
        (message(source="a\0b"), "source", r"source 'a\x00b'; send 1 to 128 characters, no NUL"),
        (message(seq=-1), "time", "seq -1, t_ns 1000; both count up from 0, t_ns in ns"),
        (message(t_ns=-1), "time", "seq 7, t_ns -1; both count up from 0"),
        (message(t_ns=1 << 62), "time", f"seq 7, t_ns {1 << 62}"),
        (message(dtype=">f4"), "dtype", "dtype '>f4'; send one of <f4, <f2, <f8, <i2, <i4, |u1"),
        (message(dtype="<i8"), "dtype", "dtype '<i8'; send one of"),
        (message(dtype="O"), "dtype", "dtype 'O'; send one of"),
        (message(shape=[]), "shape", "shape []; acc takes [n, 3], n ≤ 32"),
        (message(shape=[6]), "shape", "shape [6]; acc takes [n, 3], n ≤ 32"),
        (message(shape=[3, 2]), "shape", "shape [3, 2]; acc takes [n, 3], n ≤ 32"),
        (message(shape=[1, 2, 3]), "shape", "shape [1, 2, 3]; acc takes [n, 3]"),
        (message(shape=[0, 3]), "shape", "shape [0, 3]"),
        (message(shape=[-2, 3]), "shape", "shape [-2, 3]"),
        (message(shape=[33, 3]), "shape", "shape [33, 3]; acc takes [n, 3], n ≤ 32"),
        (message(shape=[1 << 62, 3]), "shape", f"shape [{1 << 62}, 3]"),
        (message(topic=b"cam\0"), "shape", "shape [2, 3]; cam takes [n, 2, 4, 5], n ≤ 6"),
        (message(payload=b""), "size", "payload of 0 bytes; <f4 [2, 3] is 24"),
        (message(payload=PAYLOAD[:-1]), "size", "payload of 23 bytes; <f4 [2, 3] is 24"),
        (message(payload=PAYLOAD + b"\0"), "size", "payload of 25 bytes; <f4 [2, 3] is 24"),
        (message(dtype="<f8"), "size", "payload of 24 bytes; <f8 [2, 3] is 48"),
    ],
)
def test_a_malformed_message_is_refused_by_reason_and_in_a_sentence(
    parts: list[bytes], reason: str, sentence: str
) -> None:
    assert reason in REASONS
    got, text = refusal(parts)
    assert got == reason
    assert text.startswith(sentence)


@pytest.mark.parametrize(
    "fields",
    [
        {"source": "r" * 128},
        {"source": "Gerät 7"},
        {"seq": 0, "t_ns": 0},
        {"seq": (1 << 64) - 1, "t_ns": (1 << 62) - 1},
        {"shape": [32, 3], "payload": bytes(384)},
    ],
    ids=str,
)
def test_the_limits_themselves_are_inside(fields: dict[str, Any]) -> None:
    frame = decode(message(**fields), KNOWN)
    assert frame.samples.shape[1:] == (3,)


def test_a_topic_ends_with_nul_so_that_no_name_is_the_prefix_of_another() -> None:
    assert topic("acc") == b"acc\0"
    assert not topic("acc2").startswith(topic("acc"))


def test_the_bytes_on_the_protocol_page_are_those_that_are_sent() -> None:
    samples = np.array([[0.1, -0.2, 9.8], [0.1, -0.1, 9.7]], np.float32)
    sent = b"".join(encode(Frame("acc", "wrist-1", 7, 1_700_000_000_000_000_000, samples)))
    example = PROTOCOL.split("```text\n")[1].split("```")[0]
    assert bytes.fromhex("".join(line[9:56] for line in example.splitlines())) == sent


@pytest.mark.parametrize("reason", sorted({*REASONS, "sources"}))
def test_every_reason_is_on_the_protocol_page(reason: str) -> None:
    assert f"| `{reason}` |" in PROTOCOL


def test_numbers_too_large_for_float32_arrive_as_infinite() -> None:
    payload = np.array([[1e300, -1e300, 0.5]], "<f8").tobytes()
    samples = decode(message(dtype="<f8", shape=[1, 3], payload=payload), KNOWN).samples
    np.testing.assert_array_equal(samples, [[np.inf, -np.inf, 0.5]])


def decodes_or_is_refused(parts: list[bytes]) -> None:
    refused: FrameError | None = None
    try:
        frame = decode(parts, KNOWN)
    except FrameError as error:
        refused = error
    if refused is not None:
        assert refused.reason in REASONS
        assert str(refused)
        return
    m = KNOWN[parts[0]]
    assert frame.samples.shape[1:] == m.sample_shape
    assert 0 < len(frame.samples) <= m.capacity


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | st.text()
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=40) | st.sampled_from(sorted(KNOWN)), max_size=5))
def test_any_bytes_decode_or_raise_a_frame_error_and_nothing_else(parts: list[bytes]) -> None:
    decodes_or_is_refused(parts)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=64), st.binary(max_size=64))
def test_any_header_bytes_decode_or_raise_a_frame_error(header: bytes, payload: bytes) -> None:
    decodes_or_is_refused([b"acc\0", header, payload])


@settings(max_examples=300, deadline=None)
@given(
    st.tuples(
        st.just(1) | anything,
        st.just("rig") | anything,
        st.just(3) | anything,
        st.just(4) | anything,
        st.sampled_from(list(frames.DTYPES)) | anything,
        st.lists(st.integers(-1, 40), max_size=4) | st.just([2, 3]) | anything,
    ),
    st.just(PAYLOAD) | st.binary(max_size=64),
)
def test_any_values_in_the_header_decode_or_raise_a_frame_error(
    header: tuple[Any, ...], payload: bytes
) -> None:
    decodes_or_is_refused([b"acc\0", msgspec.msgpack.encode(header), payload])


def test_no_byte_of_a_header_can_be_changed_into_anything_but_a_frame_or_a_refusal() -> None:
    good = message()[1]
    for at in range(len(good)):
        for value in range(256):
            changed = good[:at] + bytes([value]) + good[at + 1 :]
            decodes_or_is_refused([b"acc\0", changed, PAYLOAD])


def test_a_header_cut_anywhere_is_unreadable() -> None:
    good = message()[1]
    for length in range(len(good)):
        assert refusal(message(header=good[:length]))[0] == "header"


@pytest.fixture
def runtime_side() -> Any:
    """A socket that stands where the runtime would, and its address."""
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.XSUB)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    yield socket, f"tcp://127.0.0.1:{port}"
    socket.close(linger=0)


def subscribed(socket: zmq.Socket[bytes], publisher: SensorPublisher) -> None:
    """Subscribe to all, and wait until the publisher knows."""
    socket.send(b"\x01")
    assert publisher._socket.poll(PATIENCE_MS, zmq.POLLOUT)
    probe = -1
    while not socket.poll(20):
        probe += 1
        publisher._socket.send_multipart([b"probe", b"%d" % probe])
        assert probe < PATIENCE_MS / 20
    while socket.poll(50):
        socket.recv_multipart()


def received(socket: zmq.Socket[bytes]) -> Frame:
    assert socket.poll(PATIENCE_MS), "no frame came"
    return decode(socket.recv_multipart(), KNOWN)


def test_a_publisher_counts_its_frames_and_stamps_them_as_told(runtime_side: Any) -> None:
    socket, address = runtime_side
    with SensorPublisher("acc", source="wrist", address=address) as acc:
        subscribed(socket, acc)
        for i in range(3):
            acc.send(np.full((2, 3), i, np.int16), t_ns=1000 + i)
        got = [received(socket) for _ in range(3)]
    assert [(f.modality, f.source, f.seq, f.t_ns) for f in got] == [
        ("acc", "wrist", i, 1000 + i) for i in range(3)
    ]
    assert [f.samples[0, 0] for f in got] == [0, 1, 2]


def test_a_publisher_without_a_stamp_reads_the_time_of_day(
    runtime_side: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket, address = runtime_side
    monkeypatch.setattr("robult_edge.frames.time.time_ns", lambda: 123_456_789)
    with SensorPublisher("acc", address=address) as acc:
        subscribed(socket, acc)
        acc.send(np.zeros((1, 3), np.float32))
        assert received(socket).t_ns == 123_456_789


def test_a_frame_that_cannot_be_sent_does_not_use_up_a_number(runtime_side: Any) -> None:
    socket, address = runtime_side
    with SensorPublisher("acc", address=address) as acc:
        subscribed(socket, acc)
        with pytest.raises(FrameError):
            acc.send(np.zeros((1, 3), np.int64))
        acc.send(np.zeros((1, 3), np.int32))
        assert received(socket).seq == 0


def test_a_publisher_without_a_runtime_neither_blocks_nor_fails() -> None:
    with SensorPublisher("acc", address="tcp://127.0.0.1:1", linger_ms=0) as acc:
        for _ in range(2000):
            acc.send(np.zeros((1, 3), np.float32))
        assert acc.seq == 2000
