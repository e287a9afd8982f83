"""Bring your own data: a TOML beside a ``.npz``, or beside a folder of them.

Ready windows, one array per modality ([N, C, T], [N, C] or [N, C, H, W]) and one row per moment::

    name = "hydraulic"
    classes = ["130 bar", "115 bar", "100 bar", "90 bar"]
    form = "windows"
    data = "hydraulic.npz"            # beside this file, else in $ROBULT_DATA
    labels = "label_accumulator"      # [N]: index of the class or its name; −1 unknown
    groups = "group"                  # [N]: a split never cuts a group
    test_share = 0.25                 # of the groups, held out; or test_groups = ["7", "9"]
    test_seed = 0

    [modality.temperature]
    array = "temperature"             # default: the modality's name
    channels = ["TS1", "TS2"]         # or how many: 240
    unit = "°C"
    rate_hz = 1.0
    window = 60                       # samples; 1 for a vector or an image
    # size = [48, 64]                 # height and width of an image
    # timeout_s = 120.0               # default: two hops, at least half a second
    # invariant_to = ["jitter"]       # what does not change the truth: jitter, scale, shift (when
    #                                 # a window begins), rotate (of axes x, y, z: how a sensor is
    #                                 # mounted), flip, crop (of images); see train.augment

Windows that do not fit in memory stay on disk: ``data`` is a folder that holds each array as a
``.npy`` (``python -m zipfile -e hydraulic.npz hydraulic/`` makes one of a ``.npz``). Only a group
at a time, and then the rows of a batch, are read.

Recordings (``form = "recordings"``, with ``hop_s``) in one ``.npz``: arrays [n, C] on one common
timeline, ``labels`` and ``groups`` [n], and ``recordings``, the name of an index array [n]. Or
``data`` is a folder with one ``.npz`` per recording: one array [n, C] per modality at its own rate
(left out where the sensor was), the label a scalar or [n] at the first modality's rate, the group
a scalar. A window has the class or labels that hold all through it, or the last value.

NaN means not measured: a window with NaN is absent.

Not one class of several, but any number of labels, or values::

    task = "multilabel"
    classes = ["cooler", "pump"]
    labels = "faults"                 # [N, 2] of 0 and 1; a row with −1 is unlabelled

    task = "regression"
    targets = [{ name = "accumulator", unit = "bar" }]  # in place of classes
    labels = "pressure"               # [N] or [N, targets]; a row with NaN is unlabelled

``labels`` may then also be a list, one array [N] per label or target, and ``codes`` what the
numbers 0, 1, 2, … in each of them stand for: ``codes = [[90, 100, 115, 130]]``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Literal, NoReturn

import msgspec
import numpy as np

from robult_edge.data.dataset import Dataset, Recording, from_recordings, from_windows
from robult_edge.data.labels import Asked, texts
from robult_edge.data.mapped import MappedWindows, Windows
from robult_edge.data.splits import pick_groups
from robult_edge.errors import SpecError
from robult_edge.modality import ModalitySpec, common_hop_ns
from robult_edge.task import Task

if sys.version_info >= (3, 11):
    import tomllib as toml
else:
    import tomli as toml

Invariance = Literal["jitter", "scale", "shift", "rotate", "flip", "crop"]


class _Modality(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    channels: tuple[str, ...] | int
    unit: str
    rate_hz: float
    window: int
    array: str | None = None
    size: tuple[int, int] | None = None
    timeout_s: float | None = None
    invariant_to: tuple[Invariance, ...] = ()


class _Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    unit: str


class _Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    form: Literal["windows", "recordings"]
    data: str
    labels: str | tuple[str, ...]
    groups: str
    modality: dict[str, Any]
    task: Task = "classification"
    classes: tuple[str, ...] = ()
    targets: tuple[_Target, ...] = ()
    codes: tuple[tuple[float, ...], ...] = ()
    recordings: str | None = None
    hop_s: float | None = None
    test_groups: tuple[str | int, ...] | None = None
    test_share: float | None = None
    test_seed: int = 0


def load(path: Path, data_dir: Path | None = None) -> Dataset:
    """Read the data set that a TOML, or a folder with one dataset.toml, describes.

    Raises:
        SpecError: names file, field, value and mend.
    """
    path = path / "dataset.toml" if path.is_dir() else path
    reader = _Reader(path)
    spec, tables = reader.spec()
    asked = reader.asked(spec)
    data = _find(spec.data, path, data_dir)
    if data is None:
        reader.refuse(
            "data", spec.data, f"a file or folder beside it or in $ROBULT_DATA ({_robult_data()})"
        )
    modalities = tuple(reader.modality(name, t, spec) for name, t in tables.items())
    try:
        common_hop_ns(modalities)
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from None
    arrays = {name: t.array or name for name, t in tables.items()}
    shared: dict[str, Any] = {
        "name": spec.name,
        "classes": asked.outputs,
        "modalities": modalities,
        "invariances": {name: t.invariant_to for name, t in tables.items()},
        "task": asked.task,
        "units": asked.units,
    }
    if spec.form == "windows":
        npz = _Npz(data, reader)
        y = npz.labels(asked)
        groups = texts(npz.rows("groups", spec.groups, len(y)))
        windows = {
            m.name: npz.windows(f"modality.{m.name}.array", arrays[m.name], m, len(y))
            for m in modalities
        }
        test_groups = reader.test_groups(groups, spec)
        return from_windows(**shared, windows=windows, y=y, groups=groups, test_groups=test_groups)
    if data.is_dir():
        recordings = tuple(
            _recording(_Npz(file, reader), file.stem, spec, asked, modalities, arrays)
            for file in sorted(data.glob("*.npz"))
        )
        if not recordings:
            reader.refuse("data", spec.data, "a folder that holds .npz files, one per recording")
    else:
        recordings = _recordings(_Npz(data, reader), spec, asked, modalities, arrays)
    test_groups = reader.test_groups(np.array([r.group for r in recordings]), spec)
    return from_recordings(**shared, recordings=recordings, test_groups=test_groups)


class _Reader:
    """The TOML's text and how to complain about it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.raw = toml.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise SpecError(
                f"data set {str(path)!r} does not exist; "
                "give watch, synthetic, or the path of a TOML or of a folder with a dataset.toml"
            ) from None
        except (OSError, ValueError) as error:
            raise SpecError(f"{path}: cannot be read as TOML: {error}") from None

    def refuse(self, field: str, got: object, rule: str) -> NoReturn:
        raise SpecError(f"{self.path}: {field} is {got!r}; it must be {rule}")

    def spec(self) -> tuple[_Spec, dict[str, _Modality]]:
        spec = self._convert(self.raw, _Spec, "")
        if spec.form == "recordings" and not (spec.hop_s and spec.hop_s > 0):
            self.refuse("hop_s", spec.hop_s, 'above 0 when form is "recordings", e.g. 0.5')
        if spec.form == "windows" and spec.hop_s is not None:
            self.refuse("hop_s", spec.hop_s, 'left out when form is "windows"')
        if (spec.test_groups is None) == (spec.test_share is None):
            self.refuse(
                "test_groups",
                spec.test_groups,
                'given, e.g. ["7", "9"], or test_share, e.g. 0.25, but not both',
            )
        if not spec.modality:
            self.refuse("modality", {}, "at least one table, e.g. [modality.acc]")
        tables = {}
        for name, table in spec.modality.items():
            if not isinstance(table, dict):
                self.refuse(f"modality.{name}", table, f"a table, [modality.{name}]")
            tables[name] = self._convert(table, _Modality, f"modality.{name}.")
        return spec, tables

    def _convert(self, raw: dict[str, Any], kind: type, prefix: str) -> Any:
        known = {f.name: f for f in msgspec.structs.fields(kind)}
        for key in raw:
            if key not in known:
                self.refuse(prefix + key, raw[key], f"left out: known are {', '.join(known)}")
        for key, field in known.items():
            if field.required and key not in raw:
                self.refuse(prefix + key, None, "given")
            if key not in raw:
                continue
            try:
                msgspec.convert(raw[key], field.type)
            except msgspec.ValidationError as error:
                rule = str(error).partition(" - at")[0]
                self.refuse(prefix + key, raw[key], f"as expected here ({rule})")
        return msgspec.convert(raw, kind)

    def modality(self, name: str, table: _Modality, spec: _Spec) -> ModalitySpec:
        if not table.rate_hz > 0:
            self.refuse(f"modality.{name}.rate_hz", table.rate_hz, "above 0")
        hop = table.window
        if spec.hop_s is not None:
            hop = round(spec.hop_s * table.rate_hz)
            if hop < 1 or abs(hop - spec.hop_s * table.rate_hz) > 1e-3:
                self.refuse(
                    "hop_s",
                    spec.hop_s,
                    f"a whole number of samples at modality.{name}.rate_hz {table.rate_hz:g}",
                )
        channels = table.channels
        if isinstance(channels, int):
            if channels < 1:
                self.refuse(f"modality.{name}.channels", channels, "names, or how many: at least 1")
            channels = tuple(f"{name}{i}" for i in range(channels))
        n = len(channels)
        kind = "an image" if table.size else f"a time series of {n} channels"
        fit = ["jitter", "scale", *(["flip", "crop"] if table.size else ["shift"])]
        if not table.size and n % 3 == 0:  # axes x, y, z
            fit.append("rotate")
        if not set(table.invariant_to) <= set(fit):
            self.refuse(
                f"modality.{name}.invariant_to",
                list(table.invariant_to),
                f"of {', '.join(fit)} for {kind}",
            )
        timeout_s = table.timeout_s
        if timeout_s is None:
            timeout_s = max(2 * hop / table.rate_hz, 0.5)
        try:
            return ModalitySpec(
                name=name,
                channels=channels,
                unit=table.unit,
                rate_hz=table.rate_hz,
                window=table.window,
                hop=hop,
                timeout_s=timeout_s,
                size=table.size,
            )
        except SpecError as error:
            raise SpecError(f"{self.path}: {error}") from None

    def asked(self, spec: _Spec) -> Asked:
        if spec.classes and spec.targets:
            self.refuse("targets", "given", "left out where classes are given")
        return Asked(
            task=spec.task,
            outputs=spec.classes or tuple(t.name for t in spec.targets),
            units=tuple(t.unit for t in spec.targets),
            arrays=spec.labels,
            codes=spec.codes,
            refuse=self.refuse,
        )

    def test_groups(self, groups: np.ndarray, spec: _Spec) -> tuple[str, ...]:
        names = np.unique(groups).tolist()
        if len(names) < 2:
            self.refuse("groups", spec.groups, f"an array of two groups or more; it holds {names}")
        if spec.test_share is not None:
            if not 0 < spec.test_share < 1:
                self.refuse("test_share", spec.test_share, "between 0 and 1, e.g. 0.25")
            return pick_groups(groups, spec.test_share, spec.test_seed)
        chosen = tuple(str(g) for g in spec.test_groups or ())
        if not set(chosen) < set(names) or not chosen:
            some = ", ".join(map(repr, names[:8]))
            self.refuse("test_groups", list(chosen), f"some but not all of the groups {some}, …")
        return chosen


class _Npz:
    """Arrays of one ``.npz``, or of a folder of ``.npy``, which stay on disk.

    They are checked as they are taken; pickles are never opened.
    """

    def __init__(self, path: Path, reader: _Reader) -> None:
        self.path, self.reader = path, reader
        kind = "a folder of .npy" if path.is_dir() else ".npz"
        try:
            if path.is_dir():
                self.arrays = {
                    f.stem: np.load(f, mmap_mode="r", allow_pickle=False)
                    for f in path.glob("*.npy")
                }
            else:
                with np.load(path, allow_pickle=False) as file:
                    self.arrays = {key: file[key] for key in file}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise SpecError(
                f"{reader.path}: data file {path} cannot be read as {kind} of plain arrays: {error}"
            ) from None

    def get(self, field: str, array: str) -> np.ndarray:
        if array not in self.arrays:
            known = ", ".join(self.arrays)
            self.reader.refuse(field, array, f"the name of an array in {self.path.name}: {known}")
        return self.arrays[array]

    def labels(self, asked: Asked, n: int | None = None) -> np.ndarray:
        """The truth of ``n`` rows, or of as many as there are."""
        names = (asked.arrays,) if isinstance(asked.arrays, str) else asked.arrays
        return asked.truth([self.get("labels", name) for name in names], n)

    def rows(self, field: str, array: str, n: int) -> np.ndarray:
        values = self.get(field, array)
        if values.shape != (n,):
            self.reader.refuse(field, array, f"an array of shape ({n},); it is {values.shape}")
        return values

    def windows(self, field: str, array: str, m: ModalitySpec, n: int) -> Windows:
        values = self.get(field, array)
        want = (n, *m.window_shape)
        if values.shape == want[:-1] and m.window == 1 and m.size is None:
            values = values[..., None]
        if values.shape != want:
            self.reader.refuse(field, array, f"an array of shape {want}; it is {values.shape}")
        on_disk = isinstance(values, np.memmap)
        return MappedWindows(self.path / f"{array}.npy", m.window_shape) if on_disk else values

    def samples(self, field: str, array: str, m: ModalitySpec) -> np.ndarray:
        values = self.get(field, array)
        if values.shape[1:] != m.sample_shape:
            want = ("n", *m.sample_shape)
            self.reader.refuse(field, array, f"an array of shape {want}; it is {values.shape}")
        return values.astype(np.float32)


def _recordings(
    npz: _Npz,
    spec: _Spec,
    asked: Asked,
    modalities: tuple[ModalitySpec, ...],
    arrays: dict[str, str],
) -> tuple[Recording, ...]:
    """Recordings side by side in one file, told apart by an index array."""
    reader = npz.reader
    if len({m.rate_hz for m in modalities}) > 1:
        reader.refuse(
            "modality.*.rate_hz",
            [m.rate_hz for m in modalities],
            "one rate for all in a single .npz; put each recording in a file of its own",
        )
    if spec.recordings is None:
        reader.refuse("recordings", None, "the name of the array [n] that numbers the recordings")
    which = npz.get("recordings", spec.recordings)
    labels = npz.labels(asked, len(which))
    groups = texts(npz.rows("groups", spec.groups, len(which)))
    samples = {
        m.name: npz.samples(f"modality.{m.name}.array", arrays[m.name], m) for m in modalities
    }
    for name, values in samples.items():
        if len(values) != len(which):
            reader.refuse(f"modality.{name}.array", arrays[name], f"{len(which)} samples long")
    out = []
    for key in dict.fromkeys(which.tolist()):
        rows = which == key
        if len(set(groups[rows].tolist())) > 1:
            reader.refuse("groups", spec.groups, f"one group per recording; {key!r} has several")
        out.append(
            Recording(
                name=str(key),
                group=str(groups[rows][0]),
                samples={name: values[rows] for name, values in samples.items()},
                labels=labels[rows],
            )
        )
    return tuple(out)


def _recording(
    npz: _Npz,
    name: str,
    spec: _Spec,
    asked: Asked,
    modalities: tuple[ModalitySpec, ...],
    arrays: dict[str, str],
) -> Recording:
    """One file, one recording, each modality at its own rate."""
    samples = {
        m.name: npz.samples(f"modality.{m.name}.array", arrays[m.name], m)
        if arrays[m.name] in npz.arrays
        else np.zeros((0, *m.sample_shape), np.float32)
        for m in modalities
    }
    duration_s = max(len(samples[m.name]) / m.rate_hz for m in modalities)
    first = modalities[0]
    n = len(samples[first.name]) or round(duration_s * first.rate_hz)
    return Recording(
        name=name,
        group=str(npz.get("groups", spec.groups).ravel()[0]),
        samples=samples,
        labels=npz.labels(asked, n),
    )


def _robult_data() -> str:
    return os.environ.get("ROBULT_DATA", "not set")


def _find(data: str, path: Path, data_dir: Path | None) -> Path | None:
    folders = [data_dir, path.parent, os.environ.get("ROBULT_DATA")]
    places = [Path(folder) / data for folder in folders if folder is not None]
    return next((place for place in places if place.exists()), None)
