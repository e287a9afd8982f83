"""native/'s fusion kernel as pycuda launches it, its arguments as native/fusion.hpp has them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from robult_edge import subsets
from robult_edge.bundle import Manifest
from robult_edge.fusion import Rule
from robult_edge.task import Task
from runtime.backends import cuda

FUSE = "robult_fuse"
RULES: dict[Rule, int] = {"pool": 0, "mean": 1}
LINKS: dict[Task, int] = {"classification": 0, "multilabel": 1, "regression": 2}
"""As `robult_edge.fusion.LINKS`."""
BLOCK, WARP = 128, 32
ROW = np.dtype([("threshold", "f8"), ("uses", "u4"), ("weights", "f4", subsets.MAX_MODALITIES + 1)])


class Fusion(ctypes.Structure):
    """What is fused."""

    _fields_ = (
        ("logits", ctypes.c_void_p * (subsets.MAX_MODALITIES + 1)),
        *((name, ctypes.c_void_p) for name in ("alive", "temperature", "table")),
        *((name, ctypes.c_int32) for name in ("batch", "modalities", "classes", "rule", "link")),
    )


class Answers(ctypes.Structure):
    """Where the answers go."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in ("p", "own", "top", "set"))


def grid(batch: int) -> tuple[int, int]:
    """Blocks for a batch: a warp per window."""
    return ceil(batch * WARP / BLOCK), 1


def fuse(fatbin: Path) -> Callable[[Fusion, Answers, Any], None]:
    """The kernel; calling it puts it on a stream. The context is current, and stays so.

    Args:
        fatbin: see `runtime.fatbin`.
    """
    function = cuda.driver().module_from_file(str(fatbin)).get_function(FUSE)
    function.prepare([f"{ctypes.sizeof(argument)}s" for argument in (Fusion, Answers)])

    def launch(what: Fusion, where: Answers, stream: Any) -> None:
        arguments = bytes(what), bytes(where)
        function.prepared_async_call(grid(what.batch), (BLOCK, 1, 1), stream, *arguments)

    return launch


def table(manifest: Manifest, rule: Rule) -> np.ndarray:
    """A rule's decision table, one `ROW` per alive subset, by ascending mask."""
    names = manifest.names
    rows = np.zeros(len(manifest.tables[rule]), ROW)
    for row, entry in zip(rows, manifest.tables[rule], strict=True):
        row["threshold"] = entry.threshold
        row["uses"] = subsets.mask_of(names.index(name) for name in entry.uses)
        row["weights"][: len(names) + 1] = (*entry.weights, entry.head_weight)
    return rows


def temperatures(manifest: Manifest) -> np.ndarray:
    """[M + 1] float32, the fusion head's last."""
    every = (*(branch.temperature for branch in manifest.branches), manifest.head.temperature)
    return np.array(every, np.float32)
