"""Held-out recordings laid end to end, so that sensors can play them and answers be checked."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor

import numpy as np

from robult_edge.data.dataset import Dataset, Recording
from robult_edge.modality import ModalitySpec


@dataclass(frozen=True)
class Replay:
    """One group's recordings as one rig saw them, all sensors in step.

    Attributes:
        source: the group, which is the rig's name.
        modalities: its sensors.
        samples: per modality [n, *sample_shape] float32; NaN where nothing was measured.
        labels: per hop, the class (−1 unknown).
    """

    source: str
    modalities: dict[str, ModalitySpec]
    samples: dict[str, np.ndarray]
    labels: np.ndarray

    @property
    def hops(self) -> int:
        """How long it plays, in hops."""
        return len(self.labels)

    def captured_ns(self, modality: str, index: int, start_ns: int) -> int:
        """When sample ``index`` is captured if the replay starts at ``start_ns``.

        In the middle of its period: a window that ends with a hop then ends half a sample before
        the tick, which no jitter moves across.
        """
        return start_ns + round((index + 0.5) * 1e9 / self.modalities[modality].rate_hz)

    def index_at(self, modality: str, t_ns: int, start_ns: int) -> int:
        """Index of the sample captured at ``t_ns``."""
        return floor((t_ns - start_ns) * self.modalities[modality].rate_hz / 1e9)

    def truth(self, modality: str, end: int) -> int:
        """Class of the window of ``modality`` that ends with sample ``end``; −1 if mixed."""
        spec = self.modalities[modality]
        first, last = (end - spec.window + 1) // spec.hop, end // spec.hop
        seen = set(self.labels[max(0, first) : last + 1].tolist())
        return seen.pop() if len(seen) == 1 else -1

    def window(self, modality: str, end: int) -> np.ndarray:
        """The window [*window_shape] of ``modality`` that ends with sample ``end``."""
        spec = self.modalities[modality]
        samples = self.samples[modality][end - spec.window + 1 : end + 1]
        return samples[0] if spec.size else samples.T


def replays(dataset: Dataset) -> tuple[Replay, ...]:
    """One replay per held-out group (per group, where none is held out)."""
    groups = dataset.test_groups or tuple(dict.fromkeys(r.group for r in dataset.recordings))
    return tuple(
        _replay(group, dataset.modalities, [r for r in dataset.recordings if r.group == group])
        for group in groups
    )


def _replay(
    group: str, modalities: tuple[ModalitySpec, ...], recordings: list[Recording]
) -> Replay:
    """Lay recordings end to end, each cut to whole hops so that the sensors stay in step."""
    hops = [min(len(r.samples[m.name]) // m.hop for m in modalities) for r in recordings]
    first = modalities[0]
    return Replay(
        source=group,
        modalities={m.name: m for m in modalities},
        samples={
            m.name: np.concatenate(
                [r.samples[m.name][: n * m.hop] for r, n in zip(recordings, hops, strict=True)]
            )
            for m in modalities
        },
        labels=np.concatenate(
            [_per_hop(r.labels, n, first.hop) for r, n in zip(recordings, hops, strict=True)]
        ),
    )


def _per_hop(labels: np.ndarray, hops: int, hop: int) -> np.ndarray:
    """One class per hop; −1 where it changes within."""
    each = labels[: hops * hop].reshape(hops, hop)
    return np.where((each == each[:, :1]).all(1), each[:, 0], -1)
