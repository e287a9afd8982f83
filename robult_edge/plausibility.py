"""How unlike training a window is. Pure functions.

A lie may keep to every limit of `robult_edge.faults` and still look like nothing ever seen: an
accelerometer that is off by one g, say, hangs in a way in which nobody held it. So a window is
taken for a point, of where each channel lies, how far and how roughly it moves, and its
strangeness is how far it is from the nearest cluster of such points in training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from robult_edge.modality import ModalitySpec

SHORTEST_WINDOW = 12
"""Samples; of fewer, and of images, how they move says nothing."""
STILL = 1e-3
"""What is added to movement, in spreads, so that one that stands still has a logarithm."""
QUANTITIES = ("level", "movement", "roughness")
FIELDS = ("scale", "whiten", "centres", "limits")


@dataclass(frozen=True)
class Usual:
    """What a modality's windows looked like in training, in D = 3 · C quantities.

    Attributes:
        scale: [2, C], mean and spread of each channel, in its unit.
        whiten: [D, D], makes the spread within a cluster 1 in every direction.
        centres: [k, D], of the clusters.
        limits: [2], distances within which 75 % and 98 % of training windows lie, each judged by
            other groups (people, machines) than its own.
    """

    scale: np.ndarray
    whiten: np.ndarray
    centres: np.ndarray
    limits: np.ndarray

    def strangeness(self, looks: np.ndarray) -> np.ndarray:
        """Of windows that look like [B, D]: up to 0 is usual, from 1 on strange, [B]."""
        nearest = np.sqrt(np.minimum.reduce(self._squares(looks), -1))
        return (nearest - self.limits[0]) / (self.limits[1] - self.limits[0])

    def oddest(self, look: np.ndarray) -> int:
        """Which of the quantities [D] takes a window furthest from its nearest cluster."""
        centre = self.centres[self._squares(look[None])[0].argmin()]
        return int(np.argmax(np.abs(look - centre) * np.linalg.norm(self.whiten, axis=1)))

    def _squares(self, looks: np.ndarray) -> np.ndarray:
        """Squared distances to every cluster, [B, k]."""
        off = (looks @ self.whiten)[:, None] - self._whitened
        return np.einsum("bkd,bkd->bk", off, off)

    @cached_property
    def _whitened(self) -> np.ndarray:
        return self.centres @ self.whiten


def can_tell(spec: ModalitySpec) -> bool:
    """Whether windows of this kind have looks."""
    return spec.size is None and spec.window >= SHORTEST_WINDOW


def looks(windows: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """What windows [B, C, T] look like, [B, D] float32.

    Args:
        windows: in the sensor's unit.
        scale: [2, C], mean and spread of each channel.
    """
    batch, channels, n = windows.shape
    found = np.empty((batch, len(QUANTITIES), channels), np.float32)
    level, movement, roughness = found.swapaxes(0, 1)
    np.add.reduce(windows, -1, out=level)
    level /= n
    off = windows - level[..., None]
    np.einsum("bct,bct->bc", off, off, out=movement)
    movement /= n
    np.sqrt(movement, out=movement)
    step = off[..., 1:] - off[..., :-1]
    bends = step[..., 1:] - step[..., :-1]
    np.sqrt(np.abs(bends, out=bends), out=bends)
    np.add.reduce(bends, -1, out=roughness)
    roughness /= n - 2
    roughness *= roughness
    level -= scale[0]
    found /= scale[1]
    moves = found[:, 1:]
    moves += STILL
    np.log(moves, out=moves)
    return found.reshape(batch, -1)


def name(quantity: int, spec: ModalitySpec) -> str:
    """What one of the D quantities is, in a technician's words."""
    kind, channel = divmod(quantity, len(spec.channels))
    return f"{QUANTITIES[kind]} of channel {spec.channels[channel]}"


def to_arrays(usual: Mapping[str, Usual]) -> dict[str, np.ndarray]:
    """By modality, as the arrays of one ``.npz``."""
    return {f"{name}.{field}": getattr(u, field) for name, u in usual.items() for field in FIELDS}


def from_arrays(arrays: Mapping[str, np.ndarray]) -> dict[str, Usual]:
    """Back from `to_arrays`."""
    names = dict.fromkeys(key.rpartition(".")[0] for key in arrays)
    return {name: Usual(*(arrays[f"{name}.{field}"] for field in FIELDS)) for name in names}
