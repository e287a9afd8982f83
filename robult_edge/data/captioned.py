"""Pictures with a line of text each: pictures shrunk once and kept on disk, words hashed."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from robult_edge.data.dataset import Dataset, from_windows
from robult_edge.data.mapped import MappedWindows
from robult_edge.errors import MissingExtraError, SpecError
from robult_edge.modality import ModalitySpec

SIZE = 64
"""Height and width of a shrunk picture."""
WORDS = 512
"""Places that words are hashed to."""
BLOCKS = 100
"""Groups that examples of a part are dealt to: equal texts to the same."""


@dataclass(frozen=True)
class Example:
    """A picture, its text and its class.

    Attributes:
        picture: file, relative to the data set's folder.
        text: title or caption.
        label: class, −1 unknown.
        test: of the official test part.
    """

    picture: str
    text: str
    label: int
    test: bool


def dataset(
    name: str,
    root: Path,
    classes: Sequence[str],
    examples: Sequence[Example],
    invariant_to: tuple[str, ...],
) -> Dataset:
    """The data set of these examples; a picture that cannot be read is absent.

    Raises:
        MissingExtraError: pillow or scikit-learn is not installed.
        SpecError: no picture can be read, or ``root`` cannot be written to.
    """
    test = np.array([e.test for e in examples])
    groups = np.array(blocks((e.text for e in examples), test))
    image = ModalitySpec(
        name="image",
        channels=("red", "green", "blue"),
        unit="1",
        rate_hz=1.0,
        window=1,
        hop=1,
        timeout_s=2.0,
        size=(SIZE, SIZE),
    )
    return from_windows(
        name=name,
        classes=tuple(classes),
        modalities=(image, vector("text", WORDS)),
        windows={
            "image": MappedWindows(shrunk(root, [e.picture for e in examples]), image.window_shape),
            "text": hashed([e.text for e in examples])[:, :, None],
        },
        y=np.array([e.label for e in examples], np.int64),
        groups=groups,
        test_groups=tuple(np.unique(groups[test]).tolist()),
        invariances={"image": invariant_to, "text": ()},
    )


def vector(name: str, size: int) -> ModalitySpec:
    """A modality of ``size`` features that come all at once."""
    return ModalitySpec(
        name=name,
        channels=tuple(f"{name}{i}" for i in range(size)),
        unit="1",
        rate_hz=1.0,
        window=1,
        hop=1,
        timeout_s=2.0,
    )


def blocks(keys: Iterable[str], test: np.ndarray) -> list[str]:
    """Group of each row [N]: few enough to be held out by, equal keys of a part in the same."""
    return [
        f"{'test' if held_out else 'train'}-{crc32(key.encode()) % BLOCKS:02d}"
        for key, held_out in zip(keys, test, strict=True)
    ]


def hashed(texts: Sequence[str]) -> np.ndarray:
    """Bags of words float32 [N, WORDS] of length 1; without a word, 0."""
    try:
        from sklearn.feature_extraction.text import HashingVectorizer
    except ImportError:
        raise MissingExtraError("scikit-learn", "datasets") from None
    bags = HashingVectorizer(n_features=WORDS, alternate_sign=False, dtype=np.float32)
    return np.asarray(bags.transform(texts).toarray())


def shrunk(root: Path, pictures: Sequence[str]) -> Path:
    """The ``.npy`` in ``root`` that holds these pictures, float16 [N, 3, SIZE, SIZE], 0 to 255.

    Written when it is first asked for, 24 KiB a picture; NaN where one could not be read.
    """
    digest = hashlib.sha256("\n".join(pictures).encode()).hexdigest()
    kept = root / f"pictures-{SIZE}-{digest[:12]}.npy"
    if not kept.exists():
        half_done = kept.with_suffix(f".{os.getpid()}")
        try:
            _shrink(root, pictures, half_done)
            half_done.replace(kept)
        except OSError as error:
            raise SpecError(f"{kept} cannot be written: {error}; make room or allow it") from None
        finally:
            half_done.unlink(missing_ok=True)
    return kept


def _shrink(root: Path, pictures: Sequence[str], to: Path) -> None:
    try:
        from PIL import Image
        from rich.console import Console
        from rich.progress import track
    except ImportError as error:
        raise MissingExtraError(str(error.name), "datasets") from None

    def read(path: Path) -> Any:
        try:
            with Image.open(path) as picture:
                picture.draft("RGB", (2 * SIZE, 2 * SIZE))  # JPEG: decodes no more than needed
                return np.moveaxis(np.asarray(picture.convert("RGB").resize((SIZE, SIZE))), -1, 0)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            return np.nan

    shape = (len(pictures), 3, SIZE, SIZE)
    array = np.lib.format.open_memmap(to, "w+", np.float16, shape)
    unread = 0
    for i in track(range(len(pictures)), f"shrinking {root}", console=Console(stderr=True)):
        array[i] = read(root / pictures[i])
        unread += bool(np.isnan(array[i, 0, 0, 0]))
    array.flush()
    if unread == len(pictures):
        raise SpecError(
            f"{root / pictures[0]}: neither this nor any other picture can be read; "
            "mend: unpack the pictures there"
        )
    if unread:
        print(f"{root}: {unread} of {len(pictures)} pictures unread, now absent", file=sys.stderr)
