"""Sensors that contradict one another: the one whose window is unlike training is not believed.

It is left out of that one answer; it stays alive, and its next window is judged anew. Left out is a
window that is strange, or unusual where what it contradicts is usual. Honest windows of new people
are left out at times; what that costs is printed by ``benchmarks/faults.py``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from robult_edge import fusion, plausibility, subsets
from robult_edge.bundle import Manifest
from robult_edge.plausibility import Usual
from runtime.readings import READINGS
from runtime.rigs import Rig, Tick


class Doubt:
    """Settles contradictions between the sensors of a bundle.

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

    def leave_out(self, rig: Rig) -> bool:
        """Take what is in doubt out of a tick, unless that is all there is.

        Returns:
            Whether that undid an answer of the device's; the windows that are left are then held.
        """
        tick = rig.tick
        alive = subsets.members(tick.mask)
        said = np.asarray(tick.fused[1]) if tick.fused else self._said(tick)
        if not any(self._reads.differ(said[i], said[alive[0]]) for i in alive[1:]):
            return False
        looks = {i: self._look(i, tick) for i in alive}
        strangeness = {i: self._strangeness(i, look) for i, look in looks.items()}
        for i in alive:
            witnesses = _witnesses(i, strangeness)
            if witnesses and self._reads.differ(said[i], said[witnesses].mean(0)):
                tick.doubts[i] = self._doubt(i, looks[i], witnesses)
        for i in tick.doubts:
            tick.mask &= ~(1 << i)
            rig.streams[i].counts["doubtful window"] += 1
        if tick.fused is None or subsets.mask_of(alive) == tick.mask:
            return False
        tick.fused, tick.held = None, set(subsets.members(tick.mask))
        return True

    def _said(self, tick: Tick) -> np.ndarray:
        """Each branch's own answer [M, K]."""
        return self._link(tick.logits / self._temperatures)

    def _look(self, i: int, tick: Tick) -> np.ndarray | None:
        """What its window looks like, [D]; None where none has looks."""
        usual, window = self._usual[i], tick.windows.get(i)
        if usual is None or window is None:
            return None
        return plausibility.looks(window[None], usual.scale)[0]

    def _strangeness(self, i: int, look: np.ndarray | None) -> float:
        usual = self._usual[i]
        return 0.0 if usual is None or look is None else float(usual.strangeness(look[None])[0])

    def _doubt(self, i: int, look: np.ndarray | None, witnesses: list[int]) -> str:
        """Why it is not believed, in a technician's words."""
        usual, others = self._usual[i], ", ".join(self._specs[j].name for j in witnesses)
        assert usual is not None
        assert look is not None
        oddest = plausibility.name(usual.oddest(look), self._specs[i])
        return f"in doubt: contradicts {others}, and {oddest} is unlike training"


def _witnesses(i: int, strangeness: Mapping[int, float]) -> list[int]:
    """Whom to believe in place of ``i``: up to 0 is usual, from 1 on strange.

    Nobody is where it is usual itself.
    """
    if strangeness[i] <= 0:
        return []
    if strangeness[i] < 1:
        return [j for j, other in strangeness.items() if other <= 0]
    return [j for j, other in strangeness.items() if other < 1]
