"""Held-out recordings laid end to end, so that sensors can play them and answers be checked.

A replay goes round: after its last sample comes its first again.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor
from typing import Any

import numpy as np

from robult_edge.data import windows as win
from robult_edge.data.dataset import Dataset, Recording
from robult_edge.modality import ModalitySpec


@dataclass(frozen=True)
class Replay:
    """Recordings of one group as one rig sees them, all sensors in step.

    Attributes:
        source: the rig's name: the group, and a number where several rigs share its recordings.
        modalities: its sensors.
        samples: per modality [n, *sample_shape] float32; NaN where nothing was measured.
        labels: per hop, the truth, [hops] or [hops, K] (−1 or NaN unknown).
    """

    source: str
    modalities: dict[str, ModalitySpec]
    samples: dict[str, np.ndarray]
    labels: np.ndarray

    @property
    def hops(self) -> int:
        """How long it plays before it begins again, in hops."""
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

    def truth(self, modality: str, end: int) -> Any:
        """Truth of the window of ``modality`` that ends with sample ``end``; −1 if mixed.

        A class, or K labels or values.
        """
        spec = self.modalities[modality]
        hops = np.arange((end - spec.window + 1) // spec.hop, end // spec.hop + 1)
        return _known(win.label(self.labels.take(hops, axis=0, mode="wrap")))

    def stretch(self, modality: str, first: int, last: int) -> np.ndarray:
        """Samples ``first`` to ``last``, both included, [n, *sample_shape]."""
        return self.samples[modality].take(np.arange(first, last + 1), axis=0, mode="wrap")

    def window(self, modality: str, end: int) -> np.ndarray:
        """The window [*window_shape] of ``modality`` that ends with sample ``end``."""
        spec = self.modalities[modality]
        samples = self.stretch(modality, end - spec.window + 1, end)
        return samples[0] if spec.size else samples.T


def replays(dataset: Dataset, rigs: int = 1) -> tuple[Replay, ...]:
    """Replays of every held-out group (of every group, where none is held out).

    Args:
        dataset: whose recordings.
        rigs: rigs per group, among which its recordings are dealt out.
    """
    recordings: dict[str, list[Recording]] = {}
    for recording in dataset.recordings:
        recordings.setdefault(recording.group, []).append(recording)
    found = []
    for group in dataset.test_groups or recordings:
        mine = recordings[group]
        for i in range(min(rigs, len(mine))):
            source = group if rigs == 1 else f"{group}-{i + 1}"
            found.append(_replay(source, dataset.modalities, mine[i::rigs]))
    return tuple(found)


def _replay(
    source: str, modalities: tuple[ModalitySpec, ...], recordings: list[Recording]
) -> Replay:
    """Lay recordings end to end, each cut to whole hops so that the sensors stay in step."""
    hops = [min(len(r.samples[m.name]) // m.hop for m in modalities) for r in recordings]
    first = modalities[0]
    return Replay(
        source=source,
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
    """One truth per hop; −1 where it changes within."""
    each = labels[: hops * hop].reshape(hops, hop, *labels.shape[1:])
    truths = np.array([win.label(seen) for seen in each], labels.dtype)
    return _known(truths.reshape(hops, *labels.shape[1:]))


def _known(y: np.ndarray) -> np.ndarray:
    """MIXED told as unknown, −1."""
    return y if y.dtype.kind == "f" else np.maximum(y, -1)
