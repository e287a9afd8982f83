"""Arrays out of a pickle that nobody vouches for, without letting it run anything.

A pickle names the functions it wants called. Those by which numpy's arrays are written are given
stand-ins made here; any other name is refused. Not even numpy's own are called: they believe a
forged dtype, and then bytes of the file become pointers.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

from robult_edge.errors import SpecError

PLAIN = re.compile(r"[<>=|][biufSUO]\d+")
"""Dtypes that are understood: numbers, texts, and lists of objects."""


def load(path: Path) -> Any:
    """Dicts, lists, numbers, texts and arrays as they were pickled.

    Raises:
        SpecError: there is no such file, or it holds or asks for anything else.
    """
    try:
        with open(path, "rb") as file:
            return _plain(_Unpickler(file, encoding="latin1").load())
    except OSError as error:
        raise SpecError(
            f"{path} cannot be read ({error.strerror}); give the path of the pickle itself"
        ) from None
    except Exception as error:  # a broken pickle raises whatever its instructions stumble over
        raise SpecError(
            f"{path}: not a pickle of plain arrays ({str(error) or type(error).__name__}); "
            "mend: take the file as its project distributes it"
        ) from None


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a function or class that the pickle asks for."""
        # numpy.core is what numpy._core was called before numpy 2.
        stand_in = STAND_INS.get((module.replace("numpy.core", "numpy._core"), name))
        if stand_in is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is refused")
        return stand_in


class _Dtype:
    """``numpy.dtype``: its code and byte order, nothing else of what the pickle says."""

    def __init__(self, code: str, align: bool = False, copy: bool = False) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]

    def plain(self) -> np.dtype:
        whole = self.order + self.code
        if not PLAIN.fullmatch(whole):
            raise ValueError(f"dtype {whole!r}")
        return np.dtype(whole)


class _Array:
    """``numpy.ndarray`` in the making."""

    def __setstate__(self, state: tuple) -> None:
        _, self.shape, self.dtype, self.fortran, self.content = state

    def plain(self) -> np.ndarray:
        dtype = self.dtype.plain()
        if dtype.hasobject:
            flat = np.fromiter(map(_plain, self.content), object, len(self.content))
        else:
            flat = _from_bytes(self.content, dtype)
        return flat.reshape(self.shape, order="F" if self.fortran else "C")


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _frombuffer(content: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", content))
    return array


def _scalar(dtype: _Dtype, content: bytes) -> Any:
    return _from_bytes(content, dtype.plain())[0]


def _encode(text: str, encoding: str) -> bytes:
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""


STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy._core.numeric", "_frombuffer"): _frombuffer,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
}


def _from_bytes(content: bytes | str, dtype: np.dtype) -> np.ndarray:
    """Values [n]; Python 2 pickled bytes as text. numpy refuses objects here."""
    return np.frombuffer(content.encode("latin1") if isinstance(content, str) else content, dtype)


def _plain(item: Any) -> Any:
    """The same with arrays in place of what stood in for them."""
    if isinstance(item, _Array):
        return item.plain()
    if isinstance(item, dict):
        return {key: _plain(value) for key, value in item.items()}
    if isinstance(item, list | tuple):
        return type(item)(_plain(value) for value in item)
    return item
