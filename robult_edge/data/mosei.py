"""``mosi:PATH`` and ``mosei:PATH``: sentiment in what people say, how it sounds and how they look.

The pickle that MultiBench or MMSA distribute of CMU-MOSI (Zadeh et al. 2016, arXiv 1606.06259) or
CMU-MOSEI (Zadeh et al. 2018): per part ``train``, ``valid`` and ``test`` features [n, T, C] of
text, audio and vision, one sentiment from −3 to 3 and the video it is from. ``mosi:PATH`` asks for
the sentiment's value, ``mosi:PATH,task=classification`` for its sign, zeros left out.

The official test part is held out; validation belongs to training, which holds out by video. All
is read into memory, up to four times the file's size and 1 GB.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from robult_edge.data import pickled
from robult_edge.data.dataset import Dataset, from_windows
from robult_edge.errors import SpecError
from robult_edge.modality import ModalitySpec

PARTS = ("train", "valid", "test")
FEATURES = {
    "text": ("text", "language"),
    "audio": ("audio", "acoustic"),
    "vision": ("vision", "visual"),
}
LABELS = ("regression_labels", "labels")
SEGMENT = re.compile(r"(.+?)(\$_\$\d+|\[\d+\]|_\d+)?")
"""A segment's id: its video, and which segment of it."""


def load(source: str) -> Dataset:
    """The data set of a source such as ``mosi:mosi_raw.pkl,task=classification``.

    Raises:
        SpecError: the file is missing, is not in this layout, or the task is another.
    """
    name, _, rest = source.partition(":")
    file, _, task = rest.partition(",task=")
    if task not in ("", "regression", "classification"):
        raise SpecError(f"{source}: task is {task!r}; it must be regression or classification")
    path = Path(file)
    parts = _parts(path)
    sentiment = np.concatenate(
        [np.asarray(_one_of(path, p, LABELS), np.float32).reshape(_n(p), -1)[:, 0] for p in parts]
    )
    windows = {m: np.concatenate([_features(path, p, keys) for p in parts])
               for m, keys in FEATURES.items()}  # fmt: skip
    groups = np.array(
        [
            f"test:{video}" if part == "test" else video
            for part, found in zip(PARTS, parts, strict=True)
            for video in map(_video, found["id"])
        ]
    )
    del parts  # as large again as what is kept
    asked: dict[str, Any] = {
        "classes": ("sentiment",), "units": ("1",), "task": "regression", "y": sentiment[:, None],
    }  # fmt: skip
    if task == "classification":
        said = sentiment != 0
        windows, groups = {m: w[said] for m, w in windows.items()}, groups[said]
        asked = {"classes": ("negative", "positive"), "y": (sentiment[said] > 0).astype(np.int64)}
    return from_windows(
        **asked,
        name=name,
        modalities=tuple(_modality(m, w) for m, w in windows.items()),
        windows=windows,
        groups=groups,
        test_groups=tuple(sorted({str(g) for g in groups if g.startswith("test:")})),
        invariances={m: () for m in windows},
    )


def _modality(name: str, windows: np.ndarray) -> ModalitySpec:
    """Features [N, C, T] whose windows last as long whatever T is; a second stands for it."""
    _, channels, steps = windows.shape
    return ModalitySpec(
        name=name,
        channels=tuple(f"{name}{c}" for c in range(channels)),
        unit="1",
        rate_hz=float(steps),
        window=steps,
        hop=steps,
        timeout_s=2.0,
    )


def _parts(path: Path) -> list[dict[str, Any]]:
    found = pickled.load(path)
    for part in PARTS:
        if not isinstance(found, dict) or not isinstance(found.get(part), dict):
            raise SpecError(f"{path}: no part {part!r}; it must be a dict of {', '.join(PARTS)}")
        _one_of(path, found[part], ("id",))
    return [found[part] for part in PARTS]


def _one_of(path: Path, part: dict[str, Any], keys: tuple[str, ...]) -> Any:
    for key in keys:
        if key in part:
            if len(part[key]) != _n(part):
                raise SpecError(f"{path}: {len(part[key])} {key} for {_n(part)} id")
            return part[key]
    raise SpecError(
        f"{path}: no {' or '.join(map(repr, keys))} among {', '.join(map(str, part))}; "
        "mend: take the aligned features that MultiBench or MMSA distribute"
    )


def _n(part: dict[str, Any]) -> int:
    return len(part["id"])


def _features(path: Path, part: dict[str, Any], keys: tuple[str, ...]) -> np.ndarray:
    """float32 [n, C, T]; what could not be computed (−∞ in COVAREP) is 0, as it is in padding."""
    found = np.asarray(_one_of(path, part, keys), np.float32)
    if found.ndim != 3:
        raise SpecError(f"{path}: {keys[0]} is {found.shape}; it must be [n, time, features]")
    return np.nan_to_num(found.transpose(0, 2, 1), posinf=0.0, neginf=0.0)


def _video(segment: Any) -> str:
    """The video of an id: "v$_$3", "v[3]", "v_3", or an array of v, start and end."""
    whole = np.ravel(segment)[0]
    text = whole.decode() if isinstance(whole, bytes) else str(whole)
    found = SEGMENT.fullmatch(text) if np.size(segment) == 1 else None
    return found[1] if found else text
