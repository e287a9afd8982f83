"""The compiled helper for the hot path: NumPy's answers, without its price per call.

``pip install`` builds it from native/ where there is a C++ compiler. Each function answers None for
what it does not take, and without the helper for everything: whoever asks has NumPy's way beside
it, which is the reference (tests/test_native_helper.py holds the two together).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

try:
    from robult_edge import _native  # type: ignore[attr-defined]

    missing = ""
except ImportError as error:
    _native, missing = None, f"not built ({error})"
"""Why the helper is not there; empty when it is."""


def _ask(name: str) -> Callable[..., Any]:
    return getattr(_native, name, lambda *_: None)


extremes: Callable[..., tuple[tuple[float, ...], tuple[float, ...]] | None] = _ask("extremes")
"""``extremes(samples)``: largest and smallest of samples [n, C] per channel."""
level: Callable[..., tuple[float, ...] | None] = _ask("level")
"""``level(samples)``: `robult_edge.faults.level`."""
length: Callable[..., float | None] = _ask("length")
"""``length(samples)``: `robult_edge.faults.length`."""
motion: Callable[..., tuple[tuple[float, ...], tuple[float, ...], float] | None] = _ask("motion")
"""``motion(samples, per_usual)``: repeats, roughness and spikiness, as in `robult_edge.faults`."""
clean: Callable[..., bool | None] = _ask("clean")
"""``clean(samples, fresh, honest, packed, per_usual)``: whether `robult_edge.faults.check_newest`
finds nothing."""
fuse: Callable[..., tuple[tuple[float, ...], tuple[tuple[float, ...], ...]] | None] = _ask("fuse")
"""``fuse(mean, alive, uses, weights, temperatures, logits, head)``: fused probabilities [K] of
classes and each alive branch's own [M][K], as `robult_edge.fusion` has them; bitmasks by branch."""
conflict: Callable[..., float | None] = _ask("conflict")
"""``conflict(rows)``: `robult_edge.fusion.conflict` of a list of distributions, tuples [K]."""
