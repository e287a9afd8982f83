"""Windows that look like nothing in training are left out of an answer that others can give.

A sensor whose window is in doubt stays alive, and its next window is judged anew. To be left out, a
window must be strange, or unusual and at odds with what the usual ones say. Honest windows of new
people are in doubt at times; what that costs is printed by ``benchmarks/faults.py``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from robult_edge import fusion, plausibility, subsets
from robult_edge.bundle import Manifest
from robult_edge.plausibility import Usual
from runtime.readings import READINGS
from runtime.rigs import Rig, Tick

Look = tuple[float, np.ndarray | None]
"""Strangeness of a window (up to 0 usual, from 1 on strange), and what it looks like, [D]."""
UNKNOWN: Look = (0.0, None)


class Doubt:
    """Judges the windows of a bundle's sensors.

    Args:
        manifest: of the bundle.
        usual: what its training windows looked like, by modality; others are never in doubt.
    """

    def __init__(self, manifest: Manifest, usual: Mapping[str, Usual]) -> None:
        self._specs = manifest.modalities
        self._usual = [usual.get(m.name) for m in manifest.modalities]
        self._link = fusion.LINKS[manifest.task]
        self._reads = READINGS[manifest.task](manifest)
        self._temperatures = np.array([[b.temperature] for b in manifest.branches], np.float32)

    def look(self, i: int, windows: np.ndarray) -> list[Look]:
        """At windows [B, *window_shape] of modality ``i``."""
        usual = self._usual[i]
        if usual is None:
            return [UNKNOWN] * len(windows)
        looks = plausibility.looks(windows, usual.scale)
        return list(zip(usual.strangeness(looks).tolist(), looks, strict=True))

    def leave_out(self, rig: Rig) -> None:
        """Take what is in doubt out of a tick, unless that is all there is."""
        tick = rig.tick
        tick.doubts = {}
        alive = subsets.members(tick.mask)
        if all(tick.strangeness[i] <= 0 for i in alive):
            return
        usual = [i for i in alive if tick.strangeness[i] <= 0]
        doubts = {i: self._doubt(i, tick, usual) for i in alive if tick.strangeness[i] > 0}
        found = {i: doubt for i, doubt in doubts.items() if doubt is not None}
        if len(found) == len(alive):
            return
        tick.doubts = found
        for i in found:
            tick.mask &= ~(1 << i)
            rig.streams[i].counts["doubtful window"] += 1

    def _doubt(self, i: int, tick: Tick, usual: list[int]) -> str | None:
        """Why a window that is not usual is left out; None if it is not."""
        if tick.strangeness[i] >= 1:
            return f"in doubt: {self._oddest(i, tick)} unlike training"
        if not usual:
            return None
        said = self._link(tick.logits / self._temperatures)
        if not self._reads.differ(said[i], said[usual].mean(0)):
            return None
        others = ", ".join(self._specs[j].name for j in usual)
        return f"in doubt: contradicts {others}, and {self._oddest(i, tick)} is unusual"

    def _oddest(self, i: int, tick: Tick) -> str:
        usual, look = self._usual[i], tick.looks[i]
        assert usual is not None
        assert look is not None
        return plausibility.name(usual.oddest(look), self._specs[i])
