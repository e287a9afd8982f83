"""What a sensor is: its channels, rate and window, and how its values looked in training."""

from __future__ import annotations

from functools import cached_property

import msgspec

from robult_edge.errors import SpecError

RUN_HOPS = 6
"""Hops of a long run; every ring holds as many (`ModalitySpec.capacity`)."""

Range = tuple[float, float]
"""The 0.1 % and the 99.9 % quantile of a quantity."""


class HopStats(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a time series moved within its training hops; `robult_edge.faults` has the quantities.

    Attributes:
        level: per channel, of the mean over two hops.
        roughness: per channel, of a hop's roughness.
        repeats: per channel, the 99.9 % quantile of the share of samples equal to the one before.
        usual: per channel, the mean size of second differences.
        length: of a sample vector's mean length over two hops.
        spikiness: of a hop's spikiness.
        lean: 99.9 % quantile of the length of the mean sample vector over `RUN_HOPS` hops.
    """

    level: tuple[Range, ...]
    roughness: tuple[Range, ...]
    repeats: tuple[float, ...]
    usual: tuple[float, ...]
    length: Range
    spikiness: Range
    lean: float


class ChannelStats(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Training statistics, one number per channel, in the sensor's own unit.

    Attributes:
        mean, std: of all training samples; the branch normalises with them.
        low, high: 0.1 % and 99.9 % quantiles: the training range.
        spread: 0.1 % quantile of (max − min) within one hop; 0 where standing still is normal.
        hop: how the channels moved within hops; None for images, short hops and older bundles.
        longest_run: where ``hop`` is None, samples in a row that were the same; None in older
            bundles.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    spread: tuple[float, ...]
    hop: HopStats | None = None
    longest_run: int | None = None


class ModalitySpec(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True
):
    """One sensor modality as trained, exported and served.

    Attributes:
        name: also the frame's topic.
        channels: channel names (colour planes of an image), C of them.
        unit: physical unit of the raw values.
        rate_hz: samples per second.
        window: T, samples in one window (1 for a vector or an image).
        hop: samples between the ends of two windows.
        timeout_s: silence after which the sensor is stale.
        size: (height, width) of an image sample; None for a time series or vector.
        stats: training statistics, known once a model has been trained.
    """

    name: str
    channels: tuple[str, ...]
    unit: str
    rate_hz: float
    window: int
    hop: int
    timeout_s: float
    size: tuple[int, int] | None = None
    stats: ChannelStats | None = None

    def __post_init__(self) -> None:
        def refuse(field: str, got: object, rule: str) -> None:
            raise SpecError(f"modality {self.name!r}: {field} is {got!r}; it must be {rule}")

        if not self.name or not all(c.isalnum() or c in "_-." for c in self.name):
            refuse("name", self.name, "letters, digits, '_', '-' or '.', e.g. 'acc'")
        if not self.channels or len(set(self.channels)) < len(self.channels):
            refuse("channels", self.channels, "a list of different names, e.g. ['ax', 'ay', 'az']")
        for field, least in (("rate_hz", 0.0), ("timeout_s", 0.0), ("window", 0), ("hop", 0)):
            if not getattr(self, field) > least:
                refuse(field, getattr(self, field), "above 0")
        if self.size is not None and self.window != 1:
            refuse("window", self.window, "1 for an image")
        if self.stats is not None:
            per_channel = {
                f: getattr(self.stats, f) for f in ("mean", "std", "low", "high", "spread")
            }
            for field in ("level", "roughness", "repeats", "usual") if self.stats.hop else ():
                per_channel[f"hop.{field}"] = getattr(self.stats.hop, field)
            for field, values in per_channel.items():
                if len(values) != len(self.channels):
                    refuse(f"stats.{field}", values, f"one number per channel {self.channels}")

    # Asked for with every frame: computed once.
    @cached_property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample: (C,) or (C, H, W)."""
        return (len(self.channels), *(self.size or ()))

    @property
    def window_shape(self) -> tuple[int, ...]:
        """Shape of one window X_i as the branch takes it: (C, T) or (C, H, W)."""
        return self.sample_shape if self.size else (len(self.channels), self.window)

    @cached_property
    def capacity(self) -> int:
        """Samples that a runtime keeps, and the most that one frame may hold.

        Two windows and four hops, so that a busy runtime can catch up.
        """
        return 2 * self.window + 4 * self.hop

    @cached_property
    def period_ns(self) -> int:
        """Time between two samples, ns."""
        return round(1e9 / self.rate_hz)

    @property
    def hop_s(self) -> float:
        """Time between the ends of two windows, s."""
        return self.hop / self.rate_hz


def common_hop_ns(modalities: tuple[ModalitySpec, ...]) -> int:
    """The hop that all modalities share, in ns.

    Raises:
        SpecError: they differ by more than a tenth of a sample.
    """
    hops = {m.name: m.hop_s for m in modalities}
    finest = min(1 / m.rate_hz for m in modalities)
    if max(hops.values()) - min(hops.values()) > finest / 10:
        shown = ", ".join(f"{name} {hop:g} s" for name, hop in hops.items())
        raise SpecError(f"modalities hop apart ({shown}); give all the same hop / rate_hz")
    return round(next(iter(hops.values())) * 1e9)
