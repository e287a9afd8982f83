"""Windows to logits and latents: which backend runs each graph of a bundle, and why."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from robult_edge import subsets
from robult_edge.bundle import Bundle
from robult_edge.errors import BundleError
from robult_edge.golden import deviation
from runtime.backends import Backend
from runtime.backends.onnxruntime import OnnxRuntimeBackend

log = logging.getLogger("robult.engines")

GOLDEN_TOLERANCE = 1e-3
"""Largest |Δ| from the golden vectors, relative to their own largest magnitude (at least 1)."""

BACKENDS: dict[str, Callable[[Path], Backend]] = {
    "onnxruntime-cuda": lambda path: OnnxRuntimeBackend(path, "cuda"),
    "onnxruntime-cpu": lambda path: OnnxRuntimeBackend(path, "cpu"),
}
"""In order of preference; the first that loads and passes its golden vectors is taken."""


class Engines:
    """Every graph of a bundle, loaded and proven.

    Attributes:
        choices: per graph, which backend runs it and why the preferred ones do not.

    Raises:
        BundleError: a branch runs on no backend.
    """

    def __init__(self, bundle: Bundle) -> None:
        manifest, golden = bundle.manifest, bundle.golden()
        m = len(manifest.names)
        self.choices: dict[str, str] = {}
        self._branches = []
        for branch in manifest.branches:
            name = branch.modality
            want = (golden[f"logits.{name}"], golden[f"h.{name}"])
            backend = self._choose(name, bundle.file(branch.onnx), [((golden[f"x.{name}"],), want)])
            if backend is None:
                raise BundleError(f"{bundle.file(branch.onnx)}: {self.choices[name]}")
            self._branches.append(backend)
        h = np.stack([golden[f"h.{name}"] for name in manifest.names], axis=1)
        alive = subsets.as_bools(subsets.all_subsets(m), m)
        proofs = [
            ((h, np.repeat(a[None], len(h), 0)), (want,))
            for a, want in zip(alive, golden["head"], strict=True)
        ]
        self._head = self._choose("fusion head", bundle.file(manifest.head.onnx), proofs)

    @property
    def has_head(self) -> bool:
        """Whether the fusion head runs; without it late fusion falls back to ``mean``."""
        return self._head is not None

    def branch(self, i: int, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits [B, K] and latents [B, d] of branch ``i`` for windows [B, *window_shape].

        The arrays may be reused by the next call: copy to keep.
        """
        logits, h = self._branches[i].run(windows)
        return logits, h

    def head(self, h: np.ndarray, alive: np.ndarray) -> np.ndarray:
        """Logits [B, K] of the fusion head for latents [B, M, d] and alive masks [B, M] bool."""
        assert self._head is not None
        return self._head.run(h, alive)[0]

    def close(self) -> None:
        """Free every graph."""
        for backend in (*self._branches, *([self._head] if self._head else [])):
            backend.close()

    def _choose(self, name: str, path: Path, proofs: list) -> Backend | None:
        refused = []
        for label, build in BACKENDS.items():
            try:
                backend = build(path)
                delta = max(deviation(backend.run(*given), want) for given, want in proofs)
            except Exception as error:  # any backend may fail in any way: the next one is tried
                refused.append(f"{label}: {error}")
                continue
            if delta <= GOLDEN_TOLERANCE:
                because = f" ({'; '.join(refused)})" if refused else ""
                self.choices[name] = f"{label}{because}"
                log.info("%s runs on %s", name, self.choices[name])
                return backend
            backend.close()
            refused.append(f"{label}: off its golden vectors by {delta:.2g}")
        self.choices[name] = f"no backend runs it ({'; '.join(refused)})"
        log.error("%s: %s", name, self.choices[name])
        return None
