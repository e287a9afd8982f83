"""``mmimdb:PATH``: which of 23 genres a film has, from its plot and its poster.

The file ``multimodal_imdb.hdf5`` of MM-IMDb (Arevalo et al. 2017, arXiv 1702.01992), as MultiBench
takes it too: ``features``, the mean word2vec of the plot [N, 300]; ``vgg_features``, VGG-16's of
the poster [N, 4096]; ``genres`` [N, 23]. Its attribute ``split`` says which rows are the official
test part; validation belongs to training. Reading takes 1.4 GB of memory.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from robult_edge.data.captioned import blocks, vector
from robult_edge.data.dataset import Dataset, from_windows
from robult_edge.errors import MissingExtraError, SpecError

FEATURES = {"text": "features", "image": "vgg_features"}


def load(source: str) -> Dataset:
    """The data set of a source such as ``mmimdb:multimodal_imdb.hdf5``.

    Raises:
        MissingExtraError: h5py is not installed.
        SpecError: the file is missing or is not in this layout.
    """
    try:
        import h5py
    except ImportError:
        raise MissingExtraError("h5py", "datasets") from None
    path = Path(source.partition(":")[2])
    try:
        with h5py.File(path, "r") as file:
            genres = np.asarray(file["genres"], np.int64)
            names = json.loads(file["genres"].attrs["target_names"])
            test = _test_rows(file.attrs["split"], len(genres))
            windows = {m: np.asarray(file[key], np.float32)[:, :, None]
                       for m, key in FEATURES.items()}  # fmt: skip
    except (OSError, KeyError, ValueError) as error:
        raise SpecError(
            f"{path}: not the file of MM-IMDb ({error}); "
            "mend: give the path of multimodal_imdb.hdf5 as its project distributes it"
        ) from None
    groups = np.array(blocks(map(str, range(len(genres))), test))
    return from_windows(
        name="mmimdb",
        classes=tuple(names),
        modalities=tuple(vector(m, w.shape[1]) for m, w in windows.items()),
        windows=windows,
        y=genres,
        groups=groups,
        test_groups=tuple(np.unique(groups[test]).tolist()),
        invariances={m: () for m in windows},
        task="multilabel",
    )


def _test_rows(split: Any, n: int) -> np.ndarray:
    """[n] bool out of the table that fuel writes: split, source, start, stop, ..."""
    test = np.zeros(n, bool)
    for row in split:
        if (row["split"], row["source"]) == (b"test", b"genres"):
            test[int(row["start"]) : int(row["stop"])] = True
    if not test.any() or test.all():
        raise ValueError("its attribute 'split' names no test rows")
    return test
