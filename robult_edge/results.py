"""The result contract: what the runtime publishes once per tick and source (docs/PROTOCOL.md).

One ZeroMQ multipart message ``[topic, body]``: topic is the source and a NUL byte, body is JSON.
"""

from __future__ import annotations

from typing import Literal

import msgspec

VERSION = 1
DEFAULT_ADDRESS = "tcp://127.0.0.1:5556"

State = Literal["absent", "alive", "stale", "faulty"]
Decision = Literal["ok", "degraded", "none"]


class ModalityAnswer(msgspec.Struct, frozen=True):
    """One modality's part in a result.

    Attributes:
        state, reason: where the sensor stands, and why, in a technician's words.
        age_ms: how long ago its newest frame came; null before the first.
        t_ns: capture time, on the sensor's own clock, of the last sample of the window that this
            answer rests on; null when it rests on none. With it anyone can recompute the answer.
        weight: the branch's weight in late fusion.
        label, probability: what the branch alone would have said.
    """

    state: State
    reason: str
    age_ms: float | None = None
    t_ns: int | None = None
    weight: float = 0.0
    label: str | None = None
    probability: float | None = None


class Expected(msgspec.Struct, frozen=True):
    """What the alive subset scored on held-out data when the bundle was made.

    Attributes:
        accuracy: of the alive subset.
        full_accuracy: with every modality alive.
        coverage: share of held-out windows whose prediction set held the truth.
    """

    accuracy: float
    full_accuracy: float
    coverage: float


class LatencyUs(msgspec.Struct, frozen=True):
    """Where a tick's time went, µs.

    Attributes:
        wait: from the first window complete to the last that was waited for.
        infer: in the branches and the fusion head.
        fuse: from there to the answer.
        total: from the tick's last frame received to the result handed to the socket.
    """

    wait: int
    infer: int
    fuse: int
    total: int


class Result(msgspec.Struct, frozen=True):
    """One answer.

    Attributes:
        version: of this contract.
        source: the rig it is about.
        seq: rises by one per tick and source; a hole is a missed result.
        t_ns: end of the tick's windows on the runtime's clock, ns since 1970.
        label: most probable class; null when nothing is alive.
        probabilities: per class, summing to 1; empty when nothing is alive.
        prediction_set: classes that cannot be ruled out at the bundle's stated rate.
        alive: modalities that the answer rests on.
        modalities: every modality's part.
        expected: what to expect of this alive subset; null when nothing is alive.
        conflict: the branches contradict one another beyond what validation data showed.
        decision, reason: ``ok`` with all alive, ``degraded`` with some, ``none`` with none.
        latency_us: where the time went.
        bundle: name of the bundle that answered.
    """

    version: int
    source: str
    seq: int
    t_ns: int
    label: str | None
    probabilities: dict[str, float]
    prediction_set: list[str]
    alive: list[str]
    modalities: dict[str, ModalityAnswer]
    expected: Expected | None
    conflict: bool
    decision: Decision
    reason: str
    latency_us: LatencyUs
    bundle: str


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Result).decode


def topic(source: str) -> bytes:
    """The topic that results about ``source`` carry."""
    return source.encode() + b"\0"


def encode(result: Result) -> list[bytes]:
    """The message parts of ``result``."""
    return [topic(result.source), _encode(result)]


def decode(parts: list[bytes]) -> Result:
    """Read a result.

    Raises:
        msgspec.ValidationError: the body is not a result.
    """
    return _decode(parts[1])
