"""What every build of native/ is put to: random batches, and NumPy's answers to them.

The same cases run on the host library (tests/test_native.py) and on a GPU (tests/gpu). A `Machine`
is either: it calls an entry of native/host.cpp or native/kernels.cu.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from math import ceil
from typing import Protocol

import numpy as np

from robult_edge import conformal, fusion, subsets
from robult_edge.fusion import Rule
from robult_edge.task import Task
from runtime.backends.kernels import BLOCK, LINKS, ROW, RULES, Answers, Fusion, grid

Argument = ctypes.Structure | ctypes.c_void_p
Place = Callable[[np.ndarray], int]
"""Puts an array where the machine reads it, and gives the address."""


class Machine(Protocol):
    """Runs an entry of native/."""

    def run(
        self, name: str, grid: tuple[int, int], arguments: Callable[[Place], tuple[Argument, ...]]
    ) -> None:
        """Call ``name``; the arrays placed for its arguments hold afterwards what it wrote."""


SPAN = np.dtype([("ring", "u8"), ("first", "u8")])
STATISTICS = ("min", "max", "sum", "squares", "travel", "broken")


class Spans(ctypes.Structure):
    """As in native/windows.hpp."""

    _fields_ = (
        ("at", ctypes.c_void_p),
        *((name, ctypes.c_int32) for name in ("batch", "capacity", "channels", "samples")),
    )


class FusionCase:
    """A batch with a random alive subset per window.

    Attributes:
        logits: [M + 1, batch, K], the head's last.
        alive: [batch] masks.
        table: one `ROW` per mask; a row uses some of its subset.
        p, own, top, set: what the machine answers, see native/fusion.hpp.
    """

    def __init__(
        self,
        seed: int,
        scale: float,
        rule: Rule,
        batch: int = 50,
        task: Task = "classification",
    ) -> None:
        rng = np.random.default_rng(seed)
        self.rule, self.task, self.link = rule, task, fusion.LINKS[task]
        self.m = m = int(rng.integers(1, 9))
        self.k = k = int(rng.integers(2, 70))
        self.logits = rng.uniform(-scale, scale, (m + 1, batch, k)).astype(np.float32)
        self.alive = rng.integers(1, 1 << m, batch, dtype=np.uint32)
        self.temperature = rng.uniform(0.3, 4, m + 1).astype(np.float32)
        self.table = np.zeros(subsets.full(m), ROW)
        for mask, row in zip(subsets.all_subsets(m), self.table, strict=True):
            uses = mask & int(rng.integers(1, 1 << m)) or mask
            row["uses"], row["threshold"] = uses, rng.uniform(0, 0.5)
            counts = subsets.as_bools([uses], m)[0]
            if rule == "mean":
                row["weights"][:m] = counts / counts.sum()
            else:
                row["weights"][:m] = rng.exponential(1, m) * counts
                row["weights"][m] = rng.exponential(1) * (mask % 3 > 0)
        self.p = np.full((batch, k), -1, np.float32)
        self.own = np.full((batch, m, k), -1, np.float32)
        self.top = np.full(batch, -2, np.int32)
        self.set = np.full((batch, ceil(k / 32)), 0xFFFFFFFF, np.uint32)

    def used(self) -> np.ndarray:
        """Which rows of ``logits`` count for each window: [M + 1, batch] bool."""
        rows = self.table[self.alive - 1]
        branches = subsets.as_bools(rows["uses"], self.m)
        return np.column_stack([branches, rows["weights"][:, self.m] > 0]).T

    def listened(self) -> np.ndarray:
        """Which rows of ``logits`` may be read at all: those used, and every alive branch."""
        listened = self.used()
        listened[:-1] |= subsets.as_bools(self.alive, self.m).T
        return listened

    def expected(self) -> np.ndarray:
        """p as robult_edge.fusion has it, in float64."""
        y = np.where(self.used()[..., None], self.logits, 0).astype(np.float64)
        y = (y / self.temperature[:, None, None]).swapaxes(0, 1)
        weights = self.table[self.alive - 1]["weights"][:, : self.m + 1].astype(np.float64)
        return np.stack(
            [fusion.fuse(self.rule, *window, self.link) for window in zip(y, weights, strict=True)]
        )

    def expected_own(self) -> np.ndarray:
        """Each branch's own answer, NaN where it is not alive."""
        y = self.logits[:-1].astype(np.float64) / self.temperature[:-1, None, None]
        alive = subsets.as_bools(self.alive, self.m)
        y = np.where(alive[..., None], y.swapaxes(0, 1), 0)
        return np.where(alive[..., None], self.link(y), np.nan)

    def sets(self) -> np.ndarray:
        """``set`` unpacked: [batch, K] bool."""
        bits = np.unpackbits(self.set.view(np.uint8), axis=1, bitorder="little")
        return bits[:, : self.k].astype(bool)

    def run(self, machine: Machine) -> None:
        batch = len(self.alive)
        machine.run(
            "robult_fuse",
            grid(batch),
            lambda place: (
                Fusion(
                    tuple(map(place, self.logits)),
                    *map(place, (self.alive, self.temperature, self.table)),
                    batch,
                    self.m,
                    self.k,
                    RULES[self.rule],
                    LINKS[self.task],
                ),
                Answers(*map(place, (self.p, self.own, self.top, self.set))),
            ),
        )

    def check(self, machine: Machine) -> None:
        """Run, and compare everything with NumPy."""
        p, own = self.expected(), self.expected_own()
        self.run(machine)
        close = 1e-6 * max(1.0, np.nanmax(np.abs(own)))  # values may be large
        np.testing.assert_allclose(self.p, p, rtol=0, atol=close)
        np.testing.assert_allclose(self.own, own, rtol=0, atol=close)
        if self.task != "classification":
            return
        np.testing.assert_array_equal(self.top, self.p.argmax(1))
        bars = self.table[self.alive - 1]["threshold"][:, None]
        np.testing.assert_array_equal(self.sets(), conformal.prediction_sets(self.p, bars))

    def check_nothing_alive(self, machine: Machine) -> None:
        """Run with nothing alive in every other window, which hears nothing and harms no other."""
        self.alive[::2] = 0
        self.run(machine)
        for values in (self.p[::2], self.own[::2]):
            assert np.isnan(values).all()
        assert (self.top[::2] == -1).all()
        assert not self.set[::2].any()
        np.testing.assert_allclose(self.p[1::2].sum(1), 1, rtol=0, atol=1e-6)


class WindowCase:
    """Spans of several sources' rings, at random places; one in five is padding.

    Attributes:
        rings: [sources, capacity, C], with NaN and ∞ where ``broken``.
        source: [batch], −1 for padding.
        first: [batch], index of each span's first sample.
    """

    def __init__(self, seed: int, broken: bool = False, batch: int = 20) -> None:
        rng = np.random.default_rng(seed)
        self.capacity = int(rng.integers(2, 300))
        self.samples = int(rng.integers(1, self.capacity + 1))
        self.channels = int(rng.integers(1, 8))
        shape = (5, self.capacity, self.channels)
        self.rings = rng.normal(rng.uniform(-1e3, 1e3), 10, shape).astype(np.float32)
        if broken:
            strange = rng.choice([np.nan, np.inf, -np.inf], shape)
            self.rings[:] = np.where(rng.random(shape) < 0.2, strange, self.rings)
        self.source = rng.integers(-1, len(self.rings), batch)
        self.first = rng.integers(0, 1 << 50, batch, dtype=np.uint64)
        self.mean, self.std = rng.uniform(1, 9, (2, self.channels)).astype(np.float32)

    def spans(self) -> list[np.ndarray | None]:
        """Samples of each span [samples, C], None for padding."""
        at = (self.first[:, None] + np.arange(self.samples, dtype=np.uint64)) % self.capacity
        return [
            None if source < 0 else self.rings[source][rows]
            for source, rows in zip(self.source, at, strict=True)
        ]

    def gather(self, machine: Machine, normalised: bool) -> np.ndarray:
        """Windows [batch, C, samples]."""
        windows = np.full((len(self.source), self.channels, self.samples), -1, np.float32)
        machine.run(
            "robult_gather",
            (2, len(self.source)),
            lambda place: (
                self._spans(place),
                *(ctypes.c_void_p(place(a) if normalised else None) for a in (self.mean, self.std)),
                ctypes.c_void_p(place(windows)),
            ),
        )
        return windows

    def measure(self, machine: Machine) -> np.ndarray:
        """Fault statistics [batch, C, 6]."""
        out = np.full((len(self.source), self.channels, len(STATISTICS)), -1, np.float64)
        machine.run(
            "robult_measure",
            (ceil(out.shape[0] * out.shape[1] * 32 / BLOCK), 1),
            lambda place: (self._spans(place), ctypes.c_void_p(place(out))),
        )
        return out

    def check_gather(self, machine: Machine, normalised: bool) -> None:
        """Run the gather, and compare with NumPy."""
        got = self.gather(machine, normalised)
        for window, span in zip(got, self.spans(), strict=True):
            if span is None:
                want = np.zeros_like(window)
            else:
                want = ((span - self.mean) / self.std if normalised else span).T
            np.testing.assert_allclose(window, want, rtol=1e-6, atol=1e-6)

    def check_measure(self, machine: Machine) -> None:
        """Run the statistics, and compare with NumPy."""
        got = self.measure(machine)
        for rows, span in zip(got, self.spans(), strict=True):
            span = np.empty((0, self.channels), np.float32) if span is None else span
            for row, channel in zip(rows, span.T.astype(np.float64), strict=True):
                np.testing.assert_allclose(row, statistics(channel), rtol=1e-6, atol=1e-6)

    def _spans(self, place: Place) -> Spans:
        at = np.zeros(len(self.source), SPAN)
        rings = np.array([*map(place, self.rings), 0], np.uint64)
        at["ring"], at["first"] = rings[self.source], self.first
        return Spans(place(at), len(at), self.capacity, self.channels, self.samples)


def statistics(x: np.ndarray) -> tuple[float, ...]:
    """`STATISTICS` of one channel [n], as native/windows.hpp defines them."""
    good = x[np.isfinite(x)]
    with np.errstate(invalid="ignore"):
        steps = np.abs(np.diff(x))
    return (
        good.min(initial=np.inf),
        good.max(initial=-np.inf),
        good.sum(),
        (good**2).sum(),
        steps[np.isfinite(steps)].sum(),
        len(x) - len(good),
    )
