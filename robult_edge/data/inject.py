"""Making an honest sensor lie: faults for replays, tests and benchmarks. Pure but for `Injector`.

A fault is written ``gyro:noise(3)@30-60``: sensor, kind, size where the kind has one, and the
seconds between which it lasts; ``@30-`` lasts for good. Sizes in ``spreads`` are multiples of each
channel's standard deviation in training.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from robult_edge.errors import SpecError
from robult_edge.frames import Frame
from robult_edge.modality import ChannelStats, ModalitySpec

SPIKED_SHARE = 0.05
"""Share of the values that ``spikes`` hits."""


@dataclass(frozen=True)
class Fault:
    """A sensor that lies from ``start_s`` to ``stop_s`` (None: for good).

    Attributes:
        modality: of the sensor.
        kind: one of `KINDS`.
        size: how much; 0 for kinds that have none.
        start_s, stop_s: seconds after the replay began.
    """

    modality: str
    kind: str
    start_s: float
    stop_s: float | None
    size: float = 0.0

    def active(self, at_s: float) -> bool:
        """Whether it lasts at that time."""
        return self.start_s <= at_s and (self.stop_s is None or at_s < self.stop_s)


@dataclass(frozen=True)
class Moment:
    """What a fault may look at.

    Attributes:
        frame: the honest frame.
        begun: the first one of the fault.
        before: the one before; None at the fault's beginning.
        stats: of the sensor.
    """

    frame: Frame
    begun: Frame
    before: Frame | None
    stats: ChannelStats

    @property
    def count(self) -> int:
        """Frames since the fault began."""
        return self.frame.seq - self.begun.seq

    def row(self, name: str) -> np.ndarray:
        """A statistic as [C, 1...], to be combined with samples."""
        values = np.asarray(getattr(self.stats, name), np.float32)
        return values.reshape(-1, *[1] * (self.frame.samples.ndim - 2))

    def rng(self) -> np.random.Generator:
        """Of this frame: the same in every run."""
        return np.random.default_rng([self.frame.seq, *self.frame.source.encode()])


def _samples(change: Callable[[Moment, np.ndarray, float], np.ndarray]) -> Change:
    """A fault of the samples alone."""

    def apply(at: Moment, size: float) -> list[Frame]:
        samples = change(at, at.frame.samples, size).astype(np.float32)
        return [msgspec.structs.replace(at.frame, samples=samples)]

    return apply


def _noise(at: Moment, x: np.ndarray, size: float) -> np.ndarray:
    return x + size * at.row("std") * at.rng().normal(size=x.shape)


def _spikes(at: Moment, x: np.ndarray, size: float) -> np.ndarray:
    signs = at.rng().choice([-1, 0, 1], x.shape, p=[SPIKED_SHARE / 2, 1 - SPIKED_SHARE,
                                                    SPIKED_SHARE / 2])  # fmt: skip
    return x + size * at.row("std") * signs


def _saturate(at: Moment, x: np.ndarray, size: float) -> np.ndarray:
    mean = at.row("mean")
    return np.clip(mean + size * (x - mean), at.row("low"), at.row("high"))


def _drift(at: Moment, size: float) -> list[Frame]:
    n = len(at.frame.samples)
    # The stretch of time is the same; the sensor takes ``size`` times as many samples of it.
    edges = np.round(size * n * np.array([at.count, at.count + 1])).astype(int)
    if edges[0] == edges[1]:
        return []
    where = np.linspace(0, n, edges[1] - edges[0], endpoint=False).astype(int)
    return [msgspec.structs.replace(at.frame, samples=at.frame.samples[where])]


def _stamped(at: Moment, later_ns: float) -> list[Frame]:
    return [msgspec.structs.replace(at.frame, t_ns=at.frame.t_ns + round(later_ns))]


def _reorder(at: Moment, _: float) -> list[Frame]:
    if at.count % 2 == 0:
        return []
    return [at.frame, *([at.before] if at.before else [])]


Change = Callable[[Moment, float], list[Frame]]

KINDS: dict[str, tuple[float | None, str, Change]] = {
    "dead": (None, "the process is killed", lambda at, _: []),
    "stuck": (None, "holds its last value", _samples(
        lambda at, x, _: np.broadcast_to(at.begun.samples[:1], x.shape))),
    "nan": (0.3, "share of values that are NaN", _samples(
        lambda at, x, size: np.where(at.rng().random(x.shape) < size, np.nan, x))),
    "noise": (1.0, "white noise, spreads", _samples(_noise)),
    "bias": (3.0, "offset, spreads", _samples(lambda at, x, size: x + size * at.row("std"))),
    "scale": (10.0, "factor, as of a wrong unit", _samples(lambda at, x, size: size * x)),
    "spikes": (5.0, "height of spikes on 5 % of values, spreads", _samples(_spikes)),
    "saturate": (5.0, "gain, cut off at the training range", _samples(_saturate)),
    "frozen": (None, "the same payload under new stamps", _samples(
        lambda at, x, _: at.begun.samples)),
    "drift": (0.86, "true rate over the rate it should have", _drift),
    "skew": (1.01, "pace of the sender's clock", lambda at, size: _stamped(
        at, (size - 1) * (at.frame.t_ns - at.begun.t_ns))),
    "clockstep": (-3.0, "seconds by which the sender's clock is set", lambda at, size: _stamped(
        at, size * 1e9)),
    "duplicate": (None, "every frame twice", lambda at, _: [at.frame, at.frame]),
    "reorder": (None, "every two frames swapped", _reorder),
    "gap": (0.3, "share of frames lost", lambda at, size: (
        [] if at.rng().random() < size else [at.frame])),
}  # fmt: skip
"""Per kind: its size unless told (None: it has none), what it does, and how."""


def kinds() -> str:
    """Every kind with its usual size and what it does, a line each."""
    return "\n".join(f"  {_sized(kind):16}{does}" for kind, (_, does, _) in KINDS.items())


def _sized(kind: str) -> str:
    size = KINDS[kind][0]
    return kind if size is None else f"{kind}({size:g})"


def parse(text: str, modalities: Sequence[str]) -> tuple[Fault, ...]:
    """Faults from ``gyro:dead@10-20,acc:noise(3)@30-``.

    Raises:
        SpecError: it reads otherwise, or names an unknown sensor or kind.
    """
    number = r"(\d+\.?\d*)"
    found = []
    for part in filter(None, text.split(",")):
        match = re.fullmatch(
            rf"([\w.-]+):(\w+)(?:\((-?{number})\))?@{number}-{number}?", part.strip()
        )
        fault = match and _fault(match[1], match[2], match[3], match[5], match[6])
        if not fault or fault.modality not in modalities:
            raise SpecError(
                f"--fault {part!r} is not SENSOR:KIND(SIZE)@FROM-TO, e.g. "
                f"{modalities[0]}:dead@10-20 or {modalities[0]}:noise(3)@30-; "
                f"kinds are {', '.join(map(_sized, KINDS))}; sensors are {', '.join(modalities)}"
            )
        found.append(fault)
    return tuple(found)


def _fault(
    modality: str, kind: str, size: str | None, start: str, stop: str | None
) -> Fault | None:
    if kind not in KINDS or (size is not None and KINDS[kind][0] is None):
        return None
    if stop is not None and float(stop) <= float(start):
        return None
    given = float(size) if size is not None else KINDS[kind][0] or 0.0
    return Fault(modality, kind, float(start), float(stop) if stop else None, given)


class Injector:
    """Frames of one sensor with its faults; it counts them, as a sender does."""

    def __init__(self, faults: Sequence[Fault], spec: ModalitySpec) -> None:
        self._spec = spec
        self._faults = [fault for fault in faults if fault.modality == spec.name]
        self._seq = 0
        self._begun: dict[Fault, Frame] = {}
        self._before: dict[Fault, Frame] = {}

    def sent(self, source: str, samples: np.ndarray, t_ns: int, at_s: float) -> list[Frame]:
        """What is sent in place of the next honest frame.

        Args:
            source: of the frame.
            samples: [n, *sample_shape] that were really there.
            t_ns: when the first was captured.
            at_s: the same in seconds after the replay began.
        """
        frames = [Frame(self._spec.name, source, self._seq, t_ns, samples)]
        self._seq += 1
        for fault in self._faults:
            if fault.active(at_s):
                frames = [lie for frame in frames for lie in self._apply(fault, frame)]
        return frames

    def _apply(self, fault: Fault, frame: Frame) -> list[Frame]:
        assert self._spec.stats is not None
        begun = self._begun.setdefault(fault, frame)
        moment = Moment(frame, begun, self._before.get(fault), self._spec.stats)
        self._before[fault] = frame
        return KINDS[fault.kind][2](moment, fault.size)
