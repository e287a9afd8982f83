"""``hateful_memes:PATH``: whether a meme is hateful, which picture and words say only together.

The folder of the Hateful Memes Challenge (Kiela et al. 2020, arXiv 2005.04790)::

    img/<id>.png
    {train,dev_seen,test_seen}.jsonl    # {"id": 1, "img": "img/1.png", "label": 0, "text": "…"}

``test_seen`` is held out, ``dev_seen`` belongs to training. Memes that share their words are never
on two sides of a fold. Pictures are shrunk once to ``pictures-64-….npy`` in the folder, 240 MB.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from robult_edge.data.captioned import Example, dataset
from robult_edge.data.dataset import Dataset
from robult_edge.errors import SpecError

PARTS = ("train", "dev_seen", "test_seen")


class _Line(msgspec.Struct, frozen=True):
    img: str
    text: str
    label: int = -1


def load(source: str) -> Dataset:
    """The data set of a source such as ``hateful_memes:data``.

    Raises:
        MissingExtraError: pillow or scikit-learn is not installed.
        SpecError: a file is missing or is not in this layout.
    """
    root = Path(source.partition(":")[2])
    examples = [
        Example(line.img, line.text, line.label, part == "test_seen")
        for part in PARTS
        for line in _lines(root / f"{part}.jsonl")
    ]
    return dataset("hateful_memes", root, ("benign", "hateful"), examples, ("crop", "jitter"))


def _lines(path: Path) -> list[_Line]:
    try:
        return msgspec.json.Decoder(_Line).decode_lines(path.read_bytes())
    except OSError as error:
        raise SpecError(
            f"{path} cannot be read ({error.strerror}); mend: give the folder that holds img/ and "
            f"{', '.join(f'{part}.jsonl' for part in PARTS)} of the Hateful Memes Challenge"
        ) from None
    except msgspec.MsgspecError as error:
        raise SpecError(f"{path}: {error}; each line must hold img, text and label") from None
