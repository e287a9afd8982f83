"""The result contract: what the runtime publishes once per tick and source (docs/PROTOCOL.md).

One ZeroMQ multipart message ``[topic, body]``: topic is the source and a NUL byte, body is JSON.
Keys that only one task has are not there in the results of the others.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

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
        weight: the branch's weight in late fusion, beside the fusion head's.
        label, probability: what the branch alone would have said; null but for classes.
        labels: multilabel: the labels it would have given.
        values: regression: per target, the value it would have given.
    """

    state: State
    reason: str
    age_ms: float | None = None
    t_ns: int | None = None
    weight: float = 0.0
    label: str | None = None
    probability: float | None = None
    labels: list[str] | UnsetType = UNSET
    values: dict[str, float] | UnsetType = UNSET


class Estimate(msgspec.Struct, frozen=True):
    """A target's value and where it lies at the bundle's stated rate, all in ``unit``.

    ``low`` and ``high`` are null where labels were too few to promise anything.
    """

    value: float
    low: float | None
    high: float | None
    unit: str


class Expected(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the alive subset scored on held-out data when the bundle was made.

    Attributes:
        accuracy, full_accuracy: of classes: the alive subset's, and with every modality alive.
        coverage: share of held-out windows whose prediction set held the truth (of values: share
            of intervals).
        macro_f1, full_macro_f1: the same of labels.
        mae, full_mae: the same of values: mean absolute error per target, in its unit.
    """

    accuracy: float | None = None
    full_accuracy: float | None = None
    coverage: float
    macro_f1: float | None = None
    full_macro_f1: float | None = None
    mae: dict[str, float] | None = None
    full_mae: dict[str, float] | None = None


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


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """One answer.

    Attributes:
        version: of this contract.
        source: the rig it is about.
        seq: rises by one per tick and source; a hole is a missed result.
        t_ns: end of the tick's windows on the runtime's clock, ns since 1970.
        label: most probable class; null when nothing is alive, or no class is asked for.
        probabilities: per class, summing to 1, or per label; empty for values, or when nothing is
            alive.
        prediction_set: classes or labels that cannot be ruled out at the bundle's stated rate.
        alive: modalities that the answer rests on.
        modalities: every modality's part.
        expected: what to expect of this alive subset; null when nothing is alive.
        conflict: the branches contradict one another beyond what validation data showed.
        decision, reason: ``ok`` with all alive, ``degraded`` with some, ``none`` with none.
        latency_us: where the time went.
        bundle: name of the bundle that answered.
        labels, certain: multilabel: labels more probable than not, and those that are certain at
            the stated rate.
        estimates: regression: per target; empty when nothing is alive.
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
    labels: list[str] | None = None
    certain: list[str] | None = None
    estimates: dict[str, Estimate] | None = None


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
