"""robult_edge.data.pickled: what numpy wrote comes back, and nothing asked for is run."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robult_edge.data import pickled
from robult_edge.errors import SpecError

ARRAYS = {
    "single": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "column-wise": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big-endian": np.arange(3, dtype=">i4"),
    "bytes": np.array([[b"v1", b"0.5"], [b"v2", b"1.5"]]),
    "texts": np.array(["übung", "b"]),
    "objects": np.array(["a", None, np.arange(2)], object),
    "empty": np.zeros((0, 5)),
}


@pytest.mark.parametrize(
    ("protocol", "core"),
    [(2, "core"), (3, "core"), (2, "_core"), (3, "_core"), (4, "_core"), (5, "_core")],
)
def test_arrays_come_back_as_they_were(protocol: int, core: str, tmp_path: Path) -> None:
    item = {"train": ARRAYS, "id": ["a", ("b", 2)], "scalar": np.float32(1.5)}
    content = re.sub(
        rb"cnumpy\._?core", f"cnumpy.{core}".encode(), pickle.dumps(item, protocol)
    )  # numpy 2 or numpy 1; from protocol 4 on names are of a stated length
    (tmp_path / "x.pkl").write_bytes(content)
    found = pickled.load(tmp_path / "x.pkl")
    assert (found["id"], found["scalar"]) == (item["id"], 1.5)
    for name, array in ARRAYS.items():
        assert found["train"][name].dtype == array.dtype
        if name != "objects":
            np.testing.assert_array_equal(found["train"][name], array)
    assert found["train"]["objects"][:2].tolist() == ["a", None]
    assert found["train"]["objects"][2].tolist() == [0, 1]


def test_bytes_that_python_2_wrote_as_text_are_numbers(tmp_path: Path) -> None:
    array = np.arange(3, dtype=np.uint8)
    content = pickle.dumps(array, 2)  # Python 3 wrote a text and how to encode it
    encoded = content[content.rindex(b"h\x03X") : content.rindex(b"tq\x14b.")]
    (tmp_path / "x.pkl").write_bytes(content.replace(encoded, b"U\x03\x00\x01\x02"))
    np.testing.assert_array_equal(pickled.load(tmp_path / "x.pkl"), array)


class Calls:
    def __init__(self, function: Callable, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


class ForgedObjects(np.ndarray):
    """Says of its bytes that they are pointers."""

    def __reduce__(self) -> tuple:  # type: ignore[override]
        make, arguments, _ = np.zeros(0).__reduce__()
        return make, arguments, (1, (1,), np.dtype(object), False, b"AAAAAAAA")


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (Calls(os.system, "touch ran"), "asks for [a-z]+.system"),
        (Calls(eval, "open('ran', 'w')"), "asks for builtins.eval"),
        (Calls(subprocess.check_call, ["touch", "ran"]), "asks for subprocess.check_call"),
        ({"train": [Calls(np.fromfile, "x.pkl")]}, "asks for numpy"),
        (Calls(getattr, 1, "real"), "asks for builtins.getattr"),
        (np.zeros(1, [("a", "f4")]), r"dtype '\|V4'"),
        (np.zeros(0).view(ForgedObjects), "not a pickle of plain arrays"),
        (np.array([Calls(os.system, "touch ran")], object), "asks for [a-z]+.system"),
    ],
    ids=lambda item: item if isinstance(item, str) else "",
)
def test_what_a_pickle_must_not_do_is_refused(
    item: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("x.pkl")
    path.write_bytes(pickle.dumps(item))
    with pytest.raises(SpecError, match=f"x.pkl: .*{said}"):
        pickled.load(path)
    assert list(tmp_path.iterdir()) == [tmp_path / "x.pkl"]  # nothing was touched


@pytest.mark.parametrize("content", [b"", b"\x80\x04", b"no pickle", pickle.dumps(ARRAYS)[:-9]])
def test_a_broken_pickle_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(content)
    with pytest.raises(SpecError, match=r"x\.pkl: not a pickle of plain arrays .* mend: "):
        pickled.load(tmp_path / "x.pkl")


def test_a_missing_pickle_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"x\.pkl cannot be read \(No such file"):
        pickled.load(tmp_path / "x.pkl")
