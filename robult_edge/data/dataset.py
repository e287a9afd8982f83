"""What a data set is once read: windows to learn from, recordings to replay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import msgspec
import numpy as np

from robult_edge.data import windows as win
from robult_edge.data.mapped import MappedWindows, Windows, measured, select
from robult_edge.data.stats import channel_stats
from robult_edge.errors import SpecError
from robult_edge.modality import ModalitySpec, common_hop_ns
from robult_edge.task import Task


@dataclass(frozen=True)
class Recording:
    """A stretch of time that all sensors saw together.

    Attributes:
        name: of the recording.
        group: whom or what it is of; splits never cut a group.
        samples: per modality, float32 [n, C] or [n, C, H, W] at its own rate, raw units, all
            beginning at the same moment; NaN where nothing was measured.
        labels: truth per sample of the first modality, [n0] or [n0, K], as the task has it.
    """

    name: str
    group: str
    samples: Mapping[str, np.ndarray]
    labels: np.ndarray


@dataclass(frozen=True)
class Dataset:
    """Windows of N moments, seen by M sensors.

    Attributes:
        name: of the data set.
        classes: K names of classes, labels or targets.
        modalities: M sensors, statistics from the training groups alone.
        windows: per modality float32 [N, *window_shape], raw units, zeros where absent; in memory
            or on disk.
        present: [N, M] bool.
        y: truth as the task has it (``robult_edge.task``), values in their units.
        groups: [N] str.
        test: [N] bool, rows of the held-out groups.
        recordings: the same data as it came in time; cut at k · hop they give the windows.
        test_groups: the held-out groups.
        invariances: per modality, what does not change the truth ("jitter", "scale", "shift", ...).
        task: what is asked.
        units: of the targets of a regression.
    """

    name: str
    classes: tuple[str, ...]
    modalities: tuple[ModalitySpec, ...]
    windows: dict[str, Windows]
    present: np.ndarray
    y: np.ndarray
    groups: np.ndarray
    test: np.ndarray
    recordings: Sequence[Recording]
    test_groups: tuple[str, ...]
    invariances: dict[str, tuple[str, ...]]
    task: Task = "classification"
    units: tuple[str, ...] = ()

    def holding_out(self, test_groups: tuple[str, ...]) -> Dataset:
        """The same data with other groups held out, and statistics from the rest."""
        return replace(
            self,
            modalities=_with_stats(self.modalities, self.recordings, test_groups),
            test=np.isin(self.groups, test_groups),
            test_groups=test_groups,
        )


def from_recordings(
    name: str,
    classes: tuple[str, ...],
    modalities: tuple[ModalitySpec, ...],
    recordings: tuple[Recording, ...],
    test_groups: tuple[str, ...],
    invariances: dict[str, tuple[str, ...]],
    task: Task = "classification",
    units: tuple[str, ...] = (),
) -> Dataset:
    """A data set whose windows are cut from recordings every hop."""
    common_hop_ns(modalities)
    parts = [win.cut_all(r.samples, r.labels, modalities) for r in recordings]
    present = np.concatenate([p for _, p, _ in parts])
    y = np.concatenate([y for _, _, y in parts])
    groups = np.array([r.group for r, (_, _, y) in zip(recordings, parts, strict=True) for _ in y])
    keep = ~win.mixed(y) & present.any(1)
    if not keep.any():
        raise SpecError(
            f"data set {name!r}: no recording is long enough for one window; "
            f"give a smaller window than {max(m.window for m in modalities)}"
        )
    windows: dict[str, Windows] = {
        m.name: np.concatenate([w[m.name] for w, _, _ in parts])[keep] for m in modalities
    }
    return Dataset(
        name=name,
        classes=classes,
        modalities=_with_stats(modalities, recordings, test_groups),
        windows=windows,
        present=present[keep],
        y=y[keep],
        groups=groups[keep],
        test=np.isin(groups[keep], test_groups),
        recordings=recordings,
        test_groups=test_groups,
        invariances=invariances,
        task=task,
        units=units,
    )


def from_windows(
    name: str,
    classes: tuple[str, ...],
    modalities: tuple[ModalitySpec, ...],
    windows: Mapping[str, Windows],
    y: np.ndarray,
    groups: np.ndarray,
    test_groups: tuple[str, ...],
    invariances: dict[str, tuple[str, ...]],
    task: Task = "classification",
    units: tuple[str, ...] = (),
) -> Dataset:
    """A data set of ready windows; its recordings are each group's windows back to back.

    Args:
        windows: per modality [N, *window_shape]; one that holds a NaN is absent.
    """
    common_hop_ns(modalities)
    raw: dict[str, Windows] = {}
    present = np.zeros((len(y), len(modalities)), bool)
    for i, m in enumerate(modalities):
        w = windows[m.name]
        raw[m.name] = w = w if isinstance(w, MappedWindows) else w.astype(np.float32)
        present[:, i] = measured(w)
        if isinstance(w, np.ndarray):
            w[~present[:, i]] = 0
    recordings = _Groups(modalities, raw, present, y, groups)
    keep = np.flatnonzero(present.any(1))
    return Dataset(
        name=name,
        classes=classes,
        modalities=_with_stats(modalities, recordings, test_groups),
        windows={m.name: select(raw[m.name], keep) for m in modalities},
        present=present[keep],
        y=y[keep],
        groups=groups[keep],
        test=np.isin(groups[keep], test_groups),
        recordings=recordings,
        test_groups=test_groups,
        invariances=invariances,
        task=task,
        units=units,
    )


class _Groups(Sequence[Recording]):
    """A recording per group, put together when it is looked at: windows need not fit in memory."""

    def __init__(
        self,
        modalities: tuple[ModalitySpec, ...],
        windows: Mapping[str, Windows],
        present: np.ndarray,
        y: np.ndarray,
        groups: np.ndarray,
    ) -> None:
        self.modalities, self.windows, self.present, self.y = modalities, windows, present, y
        names, first, which = np.unique(groups, return_index=True, return_inverse=True)
        self.names = names
        self.rows = np.split(np.argsort(which, kind="stable"), np.cumsum(np.bincount(which))[:-1])
        self.order = np.argsort(first)  # as they first occur

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Recording:  # type: ignore[override]
        group = self.order[index]
        name, rows = str(self.names[group]), self.rows[group]
        labels = np.repeat(self.y[rows], self.modalities[0].window, axis=0)
        return Recording(name, name, _BackToBack(self, rows), labels)


@dataclass(frozen=True)
class _BackToBack(Mapping[str, np.ndarray]):
    """Per modality the windows of some rows as samples [k · T, *sample_shape], absent ones NaN."""

    of: _Groups
    rows: np.ndarray

    def __getitem__(self, name: str) -> np.ndarray:
        i = [m.name for m in self.of.modalities].index(name)
        spec, windows = self.of.modalities[i], self.of.windows[name][self.rows]
        windows[~self.of.present[self.rows, i]] = np.nan
        if spec.size is None:
            windows = windows.transpose(0, 2, 1).reshape(-1, len(spec.channels))
        return np.ascontiguousarray(windows)

    def __iter__(self) -> Iterator[str]:
        return iter(self.of.windows)

    def __len__(self) -> int:
        return len(self.of.windows)


def _with_stats(
    modalities: Sequence[ModalitySpec],
    recordings: Sequence[Recording],
    test_groups: tuple[str, ...],
) -> tuple[ModalitySpec, ...]:
    def training(name: str) -> Iterator[np.ndarray]:
        return (r.samples[name] for r in recordings if r.group not in test_groups)

    return tuple(
        msgspec.structs.replace(m, stats=channel_stats(partial(training, m.name), m.hop))
        for m in modalities
    )
