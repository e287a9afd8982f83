"""Windows to logits and latents: which backend runs each graph of a bundle, and why.

A graph whose engine fails is out at once. It is tried again, and the next backend is tried, by
whoever asks `Engines.due`, away from the thread that runs it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np

from robult_edge import subsets
from robult_edge.bundle import Branch, Bundle, Head, Precision
from robult_edge.errors import BundleError
from robult_edge.golden import deviation
from robult_edge.nvidia import TOLERANCES
from runtime.backends import Backend, tensorrt
from runtime.backends.onnxruntime import OnnxRuntimeBackend

log = logging.getLogger("robult.engines")

GOLDEN_TOLERANCE = 1e-3
"""Largest |Δ| from the golden vectors, relative to their own largest magnitude (at least 1)."""
LIMIT_S = 0.25
"""A run that takes longer hangs, unless the graph is slow by nature:"""
SLOW_GRAPH, LONGEST_LIMIT_S = 20, 5.0
"""then it may take so many times what its golden vectors took, and never longer than this."""
BACK_OFF_NS, LONGEST_BACK_OFF_NS = 1_000_000_000, 300_000_000_000
NEVER_NS = 1 << 63

BACKENDS: dict[str, Callable[[Path], Backend]] = {
    "onnxruntime-cuda": lambda path: OnnxRuntimeBackend(path, "cuda"),
    "onnxruntime-cpu": lambda path: OnnxRuntimeBackend(path, "cpu"),
}
"""What runs a graph's ONNX, in order of preference; the bundle's TensorRT engines come before."""
PRECISIONS: tuple[Precision, ...] = ("int8", "fp16", "fp32")
"""Engines of the least precise come first: who had them built wants them."""


@dataclass
class Candidate:
    """A backend that might run a graph.

    Attributes:
        label: its name.
        build: loads the graph.
        tolerance: how far it may be off the golden vectors; see `GOLDEN_TOLERANCE`.
        against: why it does not run it now; empty if nothing is known against it.
        failures: in a row; each doubles the time until it is tried again.
        retry_ns: when that is.
        since_ns: when it was last put to work.
        thread: that tries it, or was given up inside it. While it lives there is no other try, so
            that an engine that hangs for good costs one thread and no more.
        broken: what failed, to be closed before the next try.
    """

    label: str
    build: Callable[[], Backend]
    tolerance: float = GOLDEN_TOLERANCE
    against: str = ""
    failures: int = 0
    retry_ns: int = 0
    since_ns: int = 0
    thread: Thread | None = None
    broken: Backend | None = None

    def bar(self, reason: str, now_ns: int) -> None:
        """Leave it alone for a while, longer each time."""
        self.against = reason
        self.retry_ns = now_ns + min(BACK_OFF_NS << self.failures, LONGEST_BACK_OFF_NS)
        self.failures = min(self.failures + 1, 16)

    def is_due(self, now_ns: int) -> bool:
        """Whether it may be tried now."""
        return now_ns >= self.retry_ns and not (self.thread and self.thread.is_alive())


def candidates(bundle: Bundle, entry: Branch | Head) -> list[Candidate]:
    """What might run a graph, in order of preference.

    The first that loads and passes its golden vectors is taken.
    """
    path = bundle.file(entry.onnx)
    built = {engine.precision for engine in entry.engines}
    return [
        *(
            Candidate(f"tensorrt-{p}", partial(tensorrt.load, bundle, entry, p), TOLERANCES[p])
            for p in PRECISIONS
            if p in built
        ),
        *(Candidate(label, partial(build, path)) for label, build in BACKENDS.items()),
    ]


class Graph:
    """One graph of a bundle, and what runs it.

    Args:
        name: the modality's, or ``fusion head``.
        candidates: what might run it, in order of preference.
        proofs: golden vectors: (inputs, outputs wanted) each.

    Attributes:
        backend: what runs it; None while it is out.
        trouble: why it is out.
        limit_ns: a run that takes longer hangs.
    """

    def __init__(
        self, name: str, candidates: list[Candidate], proofs: list[tuple[Any, Any]]
    ) -> None:
        self.name = name
        self.backend: Backend | None = None
        self.trouble = ""
        self.limit_ns = int(LIMIT_S * 1e9)
        self._candidates = candidates
        alone = [([x[:1] for x in given], [y[:1] for y in want]) for given, want in proofs]
        self._proofs = [*alone, *proofs]  # a window by itself may take another way than a batch
        self._chosen: Candidate | None = None

    @property
    def label(self) -> str:
        """The backend that runs it, ``none`` while it is out."""
        chosen = self._chosen
        return chosen.label if chosen else "none"

    @property
    def tolerance(self) -> float:
        """How far what runs it may be off the golden vectors."""
        chosen = self._chosen
        return chosen.tolerance if chosen else 0.0

    @property
    def choice(self) -> str:
        """Which backend runs it, and why no better one does."""
        chosen = self._chosen
        against = [f"{c.label}: {c.against}" for c in self._candidates if c.against]
        because = f" ({'; '.join(against)})" if against else ""
        return (chosen.label if chosen else "no backend runs it") + because

    def choose(self) -> None:
        """Put the first backend to work that loads and is proven, if any."""
        for candidate in self._candidates:
            try:
                self.install(candidate, self.prove(candidate), 0)
            except BundleError as error:  # it runs here, and wrongly: perhaps not for long
                candidate.bar(str(error), 0)
            except Exception as error:  # any backend may fail in any way: the next one is tried
                candidate.against, candidate.retry_ns = str(error), NEVER_NS
            else:
                log.info("%s runs on %s", self.name, self.choice)
                return
        self.trouble = self.choice
        log.error("%s: %s", self.name, self.choice)

    def prove(self, candidate: Candidate) -> Backend:
        """The graph on a backend, loaded and checked against its golden vectors.

        Raises:
            BundleError: it answers something else.
            Exception: whatever the backend raises.
        """
        if candidate.broken is not None:
            candidate.broken.close()
            candidate.broken = None
        backend = candidate.build()
        try:
            delta = max(deviation(backend.run(*given), want) for given, want in self._proofs)
            if not delta <= candidate.tolerance:
                raise BundleError(f"off its golden vectors by {delta:.2g}")
            begun_s = time.monotonic()
            backend.run(*self._proofs[-1][0])
            took_s = time.monotonic() - begun_s
        except Exception:
            backend.close()
            raise
        self.limit_ns = int(min(max(LIMIT_S, SLOW_GRAPH * took_s), LONGEST_LIMIT_S) * 1e9)
        return backend

    def install(self, candidate: Candidate, backend: Backend, now_ns: int) -> Backend | None:
        """Put a proven backend to work; the one it replaces, to be closed."""
        replaced, self._chosen, self.backend = self.backend, candidate, backend
        self.trouble, candidate.against, candidate.since_ns = "", "", now_ns
        return replaced

    def fail(self, reason: str, now_ns: int, stuck: Thread | None = None) -> None:
        """Take the engine out; ``stuck`` is the thread that hangs in it, if one does."""
        candidate, backend = self._chosen, self.backend
        self._chosen, self.backend, self.trouble = None, None, f"engine failed: {reason}"
        assert candidate is not None
        if now_ns - candidate.since_ns > LONGEST_BACK_OFF_NS:
            candidate.failures = 0  # it ran well for long
        candidate.bar(reason, now_ns)
        candidate.thread = stuck
        candidate.broken = None if stuck else backend
        log.error("%s is out on %s: %s", self.name, candidate.label, reason)

    def due(self, now_ns: int) -> Candidate | None:
        """The best backend to try now: better than what runs it, if anything does."""
        for candidate in self._candidates:
            if candidate is self._chosen:
                return None
            if candidate.is_due(now_ns):
                return candidate
        return None

    def close(self) -> None:
        """Free it."""
        if self.backend is not None:
            self.backend.close()


class Engines:
    """Every graph of a bundle, loaded and proven.

    Attributes:
        branches: one graph per modality: window [B, *window_shape] → logits [B, K], h [B, d]. The
            arrays may be reused by the next run: copy to keep.
        head: the fusion head's: h [B, M, d], alive [B, M] bool → logits [B, K].

    Raises:
        BundleError: a branch runs on no backend.
    """

    def __init__(self, bundle: Bundle) -> None:
        manifest, golden = bundle.manifest, bundle.golden()
        m = len(manifest.names)
        self.branches = []
        for branch in manifest.branches:
            name = branch.modality
            want = (golden[f"logits.{name}"], golden[f"h.{name}"])
            proofs = [((golden[f"x.{name}"],), want)]
            graph = Graph(name, candidates(bundle, branch), proofs)
            graph.choose()
            if graph.backend is None:
                raise BundleError(f"{bundle.file(branch.onnx)}: {graph.trouble}")
            self.branches.append(graph)
        h = np.stack([golden[f"h.{name}"] for name in manifest.names], axis=1)
        alive = subsets.as_bools(subsets.all_subsets(m), m)
        over_subsets = [
            ((h, np.repeat(a[None], len(h), 0)), (want,))
            for a, want in zip(alive, golden["head"], strict=True)
        ]
        self.head = Graph("fusion head", candidates(bundle, manifest.head), over_subsets)
        self.head.choose()

    @property
    def graphs(self) -> tuple[Graph, ...]:
        """Branches, and the head last."""
        return (*self.branches, self.head)

    def due(self, now_ns: int) -> Iterator[tuple[Graph, Candidate]]:
        """Graphs that are out, or run on less than their best backend, and what to try now."""
        for graph in self.graphs:
            candidate = graph.due(now_ns)
            if candidate is not None:
                yield graph, candidate

    def close(self) -> None:
        """Free every graph."""
        for graph in self.graphs:
            graph.close()
