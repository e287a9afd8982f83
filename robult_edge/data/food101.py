"""``food101:PATH``: which of 101 dishes a recipe page is of, from its picture and its title.

The folder of UPMC Food-101 (Wang et al. 2015, doi:10.1109/ICMEW.2015.7169757)::

    images/{train,test}/<class>/<id>
    texts/{train,test}_titles.csv       # id, title, class

The official test part is held out. Pictures are shrunk once to ``pictures-64-….npy`` in the folder,
2.2 GB; mapped, not read into memory.
"""

from __future__ import annotations

import csv
from pathlib import Path

from robult_edge.data.captioned import Example, dataset
from robult_edge.data.dataset import Dataset
from robult_edge.errors import SpecError


def load(source: str) -> Dataset:
    """The data set of a source such as ``food101:UPMC_Food101``.

    Raises:
        MissingExtraError: pillow or scikit-learn is not installed.
        SpecError: a file is missing or is not in this layout.
    """
    root = Path(source.partition(":")[2])
    rows = [(part, *row) for part in ("train", "test") for row in _titles(root, part)]
    classes = sorted({label for part, _, _, label in rows if part == "train"})
    place = {label: k for k, label in enumerate(classes)}
    examples = [
        Example(f"images/{part}/{label}/{name}", title, place.get(label, -1), part == "test")
        for part, name, title, label in rows
    ]
    return dataset("food101", root, classes, examples, ("flip", "crop", "jitter"))


def _titles(root: Path, part: str) -> list[tuple[str, str, str]]:
    """Name of the picture, title and class of each line."""
    path = root / "texts" / f"{part}_titles.csv"
    try:
        with open(path, encoding="utf-8", errors="replace", newline="") as file:
            rows = [row for row in csv.reader(file) if row]
    except OSError as error:
        raise SpecError(
            f"{path} cannot be read ({error.strerror}); mend: give the folder that holds "
            "images/ and texts/ of UPMC Food-101"
        ) from None
    for line, row in enumerate(rows, 1):
        if len(row) < 3:
            raise SpecError(f"{path}: row {line} is {row!r}; it must be id, title, class")
    return [(row[0], ",".join(row[1:-1]), row[-1]) for row in rows]
