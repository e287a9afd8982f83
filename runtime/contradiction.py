"""The sensor that the others contradict, hop after hop: plausible samples, but another story."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.readings import Rows, divergence

LASTING_HOPS = 6
"""So many contradicted hops in a row are a lie, fewer are a moment's doubt."""
WITNESSES = 3
"""So many others must agree against it; of two sensors nobody knows which one lies."""


def odd_one_out(branches: Rows, limit: float) -> int | None:
    """Which of the distributions [B][K] stands alone against all others.

    Args:
        branches: one per alive sensor.
        limit: Jensen–Shannon divergence (nats) beyond which branches contradict one another.

    Returns:
        Its row, if the others are of one mind and within ``limit``, and with it they are not.
    """
    if len(branches) <= WITNESSES:
        return None
    said = [p.index(max(p)) for p in branches]
    alone = [b for b, label in enumerate(said) if said.count(label) == 1]
    if len(alone) != 1 or len(set(said)) != 2:
        return None
    others = [p for b, p in enumerate(branches) if b != alone[0]]
    at_odds = divergence(branches) > limit >= divergence(others)
    return alone[0] if at_odds else None


class Contradiction:
    """Counts, for one source, the hops in a row that each sensor has stood alone."""

    def __init__(self) -> None:
        self._odd = -1
        self._hops = 0

    def observe(self, branches: Rows, alive: Sequence[int], limit: float) -> int | None:
        """Learn from a tick; the sensor that has stood alone for too long.

        Args:
            branches: [M][K], every branch's distribution; rows not in ``alive`` are ignored.
            alive: the modalities that are in.
            limit: see `odd_one_out`.
        """
        row = odd_one_out([branches[i] for i in alive], limit)
        odd = -1 if row is None else alive[row]
        self._hops = self._hops + 1 if odd == self._odd else 1
        self._odd = odd
        if odd < 0 or self._hops < LASTING_HOPS:
            return None
        self._hops = 0
        return odd
