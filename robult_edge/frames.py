"""The frame contract: what a sensor sends to the runtime (docs/PROTOCOL.md), and a sender.

One ZeroMQ multipart message ``[topic, header, payload]``:

* topic: modality name and a NUL byte, so that prefix subscription is exact;
* header: msgpack array ``(version, source, seq, t_ns, dtype, shape)``;
* payload: the samples, raw, little-endian, C order; shape ``[n, C]`` (an image: ``[n, C, H, W]``).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from types import TracebackType

import msgspec
import numpy as np
import zmq

from robult_edge.curve import client_socket
from robult_edge.errors import FrameError
from robult_edge.modality import ModalitySpec

VERSION = 1
DEFAULT_ADDRESS = "tcp://127.0.0.1:5555"
DTYPES = {name: np.dtype(name) for name in ("<f4", "<f2", "<f8", "<i2", "<i4", "|u1")}
FLOAT32 = np.dtype(np.float32)
MAX_SOURCE_CHARS = 128
MAX_TIME_NS = 1 << 62
LARGEST_ITEM_BYTES = max(dtype.itemsize for dtype in DTYPES.values())
SMALLEST_BOUND_BYTES = 4096

_Header = tuple[int, str, int, int, str, tuple[int, ...]]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Header).decode


class Frame(msgspec.Struct, frozen=True):
    """A checked frame.

    Attributes:
        modality: name of the modality.
        source: the rig that the sensor belongs to.
        seq: the sender's frame counter.
        t_ns: capture time of the first sample on the sender's clock, ns.
        samples: [n, *sample_shape] float32, raw physical units; may be a view of the message.
    """

    modality: str
    source: str
    seq: int
    t_ns: int
    samples: np.ndarray


def topic(modality: str) -> bytes:
    """The topic that frames of ``modality`` carry."""
    return modality.encode() + b"\0"


def largest_part_bytes(modalities: Sequence[ModalitySpec]) -> int:
    """The most that one part of an honest frame of any of these modalities takes."""
    samples = max(m.capacity * prod(m.sample_shape) for m in modalities)
    return max(SMALLEST_BOUND_BYTES, LARGEST_ITEM_BYTES * samples)


def encode(frame: Frame) -> list[bytes]:
    """The message parts of ``frame``; samples travel in their own dtype where the wire knows it."""
    samples = np.ascontiguousarray(frame.samples)
    dtype = samples.dtype.newbyteorder("<").str
    if dtype not in DTYPES:
        raise FrameError("dtype", f"samples are {samples.dtype}; send one of {', '.join(DTYPES)}")
    header = (VERSION, frame.source, frame.seq, frame.t_ns, dtype, samples.shape)
    return [
        topic(frame.modality),
        _encode(header),
        samples.astype(dtype, copy=False).tobytes(),
    ]


def decode(
    parts: Sequence[bytes],
    modalities: Mapping[bytes, ModalitySpec],
) -> Frame:
    """Check one multipart message and read it.

    Args:
        parts: the message's parts, as received.
        modalities: what each topic stands for; see `topic`.

    Raises:
        FrameError: the message is malformed; its ``reason`` is one of ``parts``, ``modality``,
            ``header``, ``version``, ``source``, ``time``, ``dtype``, ``shape``, ``size``.
    """
    if len(parts) != 3:
        raise FrameError("parts", f"{len(parts)} parts; a frame has 3: topic, header, payload")
    spec = modalities.get(parts[0])
    if spec is None:
        known = ", ".join(s.name for s in modalities.values())
        raise FrameError("modality", f"topic {parts[0][:40]!r}; the bundle knows {known}")
    _version, source, seq, t_ns, dtype_name, shape = _read_header(parts[1])
    if not 0 < len(source) <= MAX_SOURCE_CHARS or "\0" in source:
        raise FrameError(
            "source", f"source {source[:40]!r}; send 1 to {MAX_SOURCE_CHARS} characters, no NUL"
        )
    if not (seq >= 0 and 0 <= t_ns < MAX_TIME_NS):
        raise FrameError("time", f"seq {seq}, t_ns {t_ns}; both count up from 0, t_ns in ns")
    dtype = DTYPES.get(dtype_name)
    if dtype is None:
        raise FrameError("dtype", f"dtype {dtype_name[:20]!r}; send one of {', '.join(DTYPES)}")
    if len(shape) < 2 or shape[1:] != spec.sample_shape or not 0 < shape[0] <= spec.capacity:
        want = ", ".join(map(str, spec.sample_shape))
        raise FrameError(
            "shape", f"shape {list(shape)[:6]}; {spec.name} takes [n, {want}], n ≤ {spec.capacity}"
        )
    payload = parts[2]
    if len(payload) != dtype.itemsize * prod(shape):
        raise FrameError(
            "size",
            f"payload of {len(payload)} bytes; {dtype_name} {list(shape)} "
            f"is {dtype.itemsize * prod(shape)}",
        )
    samples = np.ndarray(shape, dtype, payload)
    if dtype is not FLOAT32:
        # A float64 beyond float32 becomes infinite, which the fault check names.
        with np.errstate(over="ignore", invalid="ignore"):
            samples = samples.astype(np.float32)
    return Frame(spec.name, source, seq, t_ns, samples)


def _read_header(raw: bytes) -> _Header:
    try:
        header = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        version = _version_of(raw)
        if version not in (None, VERSION):
            raise FrameError("version", f"version {version}; send {VERSION}") from None
        raise FrameError("header", f"header unreadable ({error})") from None
    if header[0] != VERSION:
        raise FrameError("version", f"version {header[0]}; send {VERSION}")
    return header


def _version_of(raw: bytes) -> int | None:
    """The version of a header of unknown make, so that the error can name it."""
    try:
        header = msgspec.msgpack.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if isinstance(header, list) and header and type(header[0]) is int:
        return header[0]
    return None


class SensorPublisher:
    """A sensor's side: publishes frames of one modality.

    >>> import numpy as np
    >>> with SensorPublisher("acc", source="wrist-1") as acc:
    ...     acc.send(np.zeros((5, 3), np.float32))

    Args:
        modality: name of the modality, as in the bundle.
        source: the rig that this sensor belongs to.
        address: where the runtime listens for frames.
        linger_ms: how long `close` waits for unsent frames.
        curve_keys: this client's key folder, where the runtime wants keys; see `curve`.

    Raises:
        KeysError: the folder lacks a key.
    """

    def __init__(
        self,
        modality: str,
        source: str = "rig",
        address: str = DEFAULT_ADDRESS,
        linger_ms: int = 100,
        curve_keys: str | Path | None = None,
    ) -> None:
        self.modality = modality
        self.source = source
        self.seq = 0
        self._socket = client_socket(zmq.PUB, curve_keys)
        self._socket.setsockopt(zmq.LINGER, linger_ms)
        self._socket.connect(address)

    def send(self, samples: np.ndarray, t_ns: int | None = None) -> None:
        """Publish ``samples`` [n, *sample_shape], the first of them captured at ``t_ns``.

        Without ``t_ns`` the clock is read now: right for one sample sent as it is taken.
        """
        stamp = time.time_ns() if t_ns is None else t_ns
        frame = Frame(self.modality, self.source, self.seq, stamp, samples)
        self._socket.send_multipart(encode(frame))
        self.seq += 1

    def close(self) -> None:
        """Send what is queued, at most ``linger_ms`` long, and close."""
        self._socket.close()

    def __enter__(self) -> SensorPublisher:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
