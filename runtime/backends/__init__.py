"""How a graph is run: one file per engine, each with a class of the same three methods.

``run(inputs) -> (outputs…)`` takes and returns arrays whose first axis is the batch. Output buffers
may be reused by the next call: copy to keep. ``close()`` frees what it holds.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Backend(Protocol):
    """A loaded graph."""

    name: str

    def run(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]: ...

    def close(self) -> None: ...
