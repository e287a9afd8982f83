"""``watch``: 7 physiotherapy exercises of 10 subjects, wrist accelerometer and gyroscope at 50 Hz.

The data lie inside the seglearn distribution (BSD licence; Burns et al. 2018,
doi:10.1088/1361-6579/aacfd9). They are read without importing seglearn.
"""

from __future__ import annotations

import hashlib
import io
from importlib import metadata

import numpy as np

from robult_edge.data.dataset import Dataset, Recording, from_recordings
from robult_edge.errors import MissingExtraError, SpecError
from robult_edge.modality import ModalitySpec

FILE = "seglearn/data/watch_dataset.npy"
SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"
TEST_SUBJECTS = ("3", "6", "9")
MODALITIES = tuple(
    ModalitySpec(
        name=name, channels=channels, unit=unit, rate_hz=50.0, window=128, hop=32, timeout_s=1.0
    )
    for name, channels, unit in (
        ("acc", ("ax", "ay", "az"), "g"),
        ("gyro", ("wx", "wy", "wz"), "rad/s"),
    )
)
INVARIANT_TO = ("jitter", "scale", "shift", "rotate")


def load() -> Dataset:
    """The data set, subjects 3, 6 and 9 held out.

    Raises:
        MissingExtraError: seglearn is not installed.
        SpecError: its data file is another than the known one.
    """
    raw = _read()
    labels = [str(name) for name in raw["y_labels"]]
    recordings = []
    for i, (x, y, subject) in enumerate(zip(raw["X"], raw["y"], raw["subject"], strict=True)):
        x = np.asarray(x, np.float32)
        recordings.append(
            Recording(
                name=f"{i:03d}-subject{subject}-{labels[y]}",
                group=str(subject),
                samples={"acc": x[:, :3].copy(), "gyro": x[:, 3:].copy()},
                labels=np.full(len(x), y, np.int64),
            )
        )
    return from_recordings(
        name="watch",
        classes=tuple(labels),
        modalities=MODALITIES,
        recordings=tuple(recordings),
        test_groups=TEST_SUBJECTS,
        invariances={m.name: INVARIANT_TO for m in MODALITIES},
    )


def _read() -> dict:
    try:
        path = metadata.distribution("seglearn").locate_file(FILE)
    except metadata.PackageNotFoundError:
        raise MissingExtraError("seglearn", "train") from None
    with open(str(path), "rb") as file:
        content = file.read()
    digest = hashlib.sha256(content).hexdigest()
    # The file is a pickle, which could run anything: only the known bytes are opened.
    if digest != SHA256:
        raise SpecError(
            f"{path} has sha256 {digest[:12]}…, not the known {SHA256[:12]}…; "
            "mend: pip install --force-reinstall seglearn==1.2.5"
        )
    return np.load(io.BytesIO(content), allow_pickle=True).item()
