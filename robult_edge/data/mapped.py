"""Windows that stay on disk: a ``.npy`` of any size, of which only the rows asked for are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

CHUNK_BYTES = 1 << 24
"""Of windows read at once where all of them are looked at."""


class MappedWindows:
    """Windows [N, *window_shape] as an array of them looks: float32, zeros where absent.

    The file is mapped for each reading anew: pages once read do not stay in the process, and what
    goes to another process is the path.

    Args:
        path: of the ``.npy``, any real dtype. Its rows may leave out a window's last axis, if that
            is 1.
        window_shape: of one window.
        index: rows that are seen, in this order; all if not given.
    """

    def __init__(
        self, path: Path, window_shape: tuple[int, ...], index: np.ndarray | None = None
    ) -> None:
        self.path, self.window_shape = path, window_shape
        self.index = np.arange(len(self._file())) if index is None else index

    def __len__(self) -> int:
        return len(self.index)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self.window_shape)

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Copies of the rows that a slice, a mask or indices name."""
        windows = self._read(self.index[rows])
        windows[~measured(windows)] = 0
        return windows

    def select(self, rows: np.ndarray) -> MappedWindows:
        """These rows, still on disk."""
        return MappedWindows(self.path, self.window_shape, self.index[rows])

    def measured(self) -> np.ndarray:
        """[N] bool: the window holds no NaN."""
        step = max(1, CHUNK_BYTES // (4 * int(np.prod(self.window_shape))))
        chunks = (self.index[i : i + step] for i in range(0, len(self), step))
        return np.concatenate([np.zeros(0, bool), *(measured(self._read(c)) for c in chunks)])

    def _read(self, rows: np.ndarray) -> np.ndarray:
        found = np.asarray(self._file()[rows], np.float32)
        return found.reshape(len(rows), *self.window_shape)

    def _file(self) -> np.ndarray:
        return np.load(self.path, mmap_mode="r", allow_pickle=False)


Windows = np.ndarray | MappedWindows
"""Of one modality [N, *window_shape]: ``len``, ``shape`` and rows, wherever they lie."""


def measured(windows: Windows) -> np.ndarray:
    """[N] bool: the window holds no NaN."""
    if isinstance(windows, MappedWindows):
        return windows.measured()
    return np.asarray(np.isfinite(windows).reshape(len(windows), -1).all(1))


def select(windows: Windows, rows: np.ndarray) -> Windows:
    """These rows, in memory or on disk as they were."""
    return windows.select(rows) if isinstance(windows, MappedWindows) else windows[rows]
