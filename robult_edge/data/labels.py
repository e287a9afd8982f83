"""What a TOML asks for, and its arrays as the truth: classes, labels or values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from robult_edge.task import Task

Refuse = Callable[[str, object, str], NoReturn]
"""(field, what it is, what it must be): complain about the TOML."""


@dataclass(frozen=True)
class Asked:
    """The TOML's fields about labels, checked against one another.

    Attributes:
        task: what is asked.
        outputs: K names of classes, labels or targets.
        units: of the targets.
        arrays: name of the one array, or of one per label or target.
        codes: per label or target, what the numbers 0, 1, 2, … in its column stand for; or none.
        refuse: how to complain.
    """

    task: Task
    outputs: tuple[str, ...]
    units: tuple[str, ...]
    arrays: str | tuple[str, ...]
    codes: tuple[tuple[float, ...], ...]
    refuse: Refuse

    def __post_init__(self) -> None:
        if not self.outputs and self.task == "regression":
            self.refuse("targets", None, 'given, e.g. [{ name = "oil", unit = "bar" }]')
        if bool(self.units) != (self.task == "regression"):
            self.refuse("task", self.task, '"regression" with targets, another task with classes')
        if len(self.outputs) < (2 if self.task == "classification" else 1):
            self.refuse("classes", list(self.outputs), 'at least two names, e.g. ["off", "on"]')
        if self.task == "classification":
            if not isinstance(self.arrays, str):
                self.refuse("labels", list(self.arrays), "the name of one array of classes")
            if self.codes:
                self.refuse("codes", list(self.codes), "left out for classification")
        one_each = f"one for each of {', '.join(self.outputs)}"
        if not isinstance(self.arrays, str) and len(self.arrays) != len(self.outputs):
            self.refuse("labels", list(self.arrays), f"the name of one array, or {one_each}")
        if self.codes and len(self.codes) != len(self.outputs):
            self.refuse("codes", list(self.codes), f"lists of numbers, {one_each}")

    def truth(self, found: Sequence[np.ndarray], n: int | None) -> np.ndarray:
        """The arrays as y [n] or [n, K], as ``robult_edge.task`` has it.

        Args:
            found: the arrays named.
            n: rows wanted, to which a scalar is repeated; None: as many as there are.
        """
        if n is not None:
            found = [np.full(n, a[()]) if a.ndim == 0 else a for a in found]
        found = [a[:, 0] if a.shape[1:] == (1,) else a for a in found]
        n = len(found[0]) if n is None else n
        width = 1 if self.task == "classification" else len(self.outputs) // len(found)
        want = (n,) if width == 1 else (n, width)
        for array in found:
            if array.shape != want:
                self.refuse("labels", self.arrays, f"of shape {want}; it is {array.shape}")
        if self.task == "classification":
            return self._classes(found[0])
        if any(a.dtype.kind not in "biuf" for a in found):
            self.refuse("labels", self.arrays, f"numbers for {self.task}")
        columns = np.column_stack([a.astype(float) for a in found])
        return self._values(columns) if self.units else self._labels(columns)

    def _classes(self, labels: np.ndarray) -> np.ndarray:
        """Indices or names [n] as class indices, −1 unknown."""
        if labels.dtype.kind in "US":
            index = {name: k for k, name in enumerate(self.outputs)}
            found = texts(labels)
            for text in np.unique(found).tolist():
                if text not in index and text:
                    self.refuse("classes", list(self.outputs), f"complete: {text!r} is missing")
            return np.array([index.get(text, -1) for text in found.tolist()], np.int64)
        whole = np.where(np.isfinite(labels), labels, -1) if labels.dtype.kind == "f" else labels
        y = whole.astype(np.int64)
        wrong = (y != whole) | (y >= len(self.outputs)) | (y < -1)
        if wrong.any():
            self.refuse(
                "labels",
                self.arrays,
                f"an array of indices into the {len(self.outputs)} classes, −1 for unknown; "
                f"it holds {whole[wrong][0]}",
            )
        return y

    def _labels(self, columns: np.ndarray) -> np.ndarray:
        """Numbers [n, K] as 0 and 1; a row with −1 or NaN is all −1."""
        known = np.isfinite(columns).all(1) & (columns != -1).all(1)
        y = self._decoded(columns[known])
        if not np.isin(y, (0, 1)).all():
            bad = y[~np.isin(y, (0, 1))][0]
            self.refuse("labels", self.arrays, f"of 0 and 1, −1 for unknown; it holds {bad:g}")
        out = np.full(columns.shape, -1, np.int64)
        out[known] = y
        return out

    def _values(self, columns: np.ndarray) -> np.ndarray:
        """Numbers [n, K] as float32; a row with NaN (or, where codes are given, −1) is all NaN."""
        known = np.isfinite(columns).all(1)
        if self.codes:
            known &= (columns != -1).all(1)
        out = np.full(columns.shape, np.nan, np.float32)
        out[known] = self._decoded(columns[known])
        return out

    def _decoded(self, columns: np.ndarray) -> np.ndarray:
        if not self.codes:
            return columns
        out = np.empty_like(columns)
        for k, codes in enumerate(self.codes):
            unknown = ~np.isin(columns[:, k], np.arange(len(codes)))
            if unknown.any():
                bad = columns[unknown, k][0]
                self.refuse("codes", list(codes), f"long enough for every number; {bad:g} is there")
            out[:, k] = np.array(codes)[columns[:, k].astype(int)]
        return out


def texts(values: np.ndarray) -> np.ndarray:
    """Names, whatever type they have: [n] → [n] str."""
    return np.array([v.decode() if isinstance(v, bytes) else str(v) for v in values.tolist()])
