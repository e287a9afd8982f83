"""Where native/'s kernels lie, compiled for GPUs; the server works without them."""

from __future__ import annotations

import os
from pathlib import Path

from robult_edge.errors import EngineError

VARIABLE = "ROBULT_FATBIN"
PACKAGED = Path(__file__).with_name("robult_native.fatbin")
"""Where `make native` puts them, if nvcc is there; a wheel made afterwards brings them along."""


def place() -> Path:
    """Where they are looked for: the file that `VARIABLE` names, else `PACKAGED`."""
    return Path(os.environ.get(VARIABLE) or PACKAGED)


def find() -> Path:
    """The fatbin.

    Raises:
        EngineError: there is none.
    """
    here = place()
    if not here.is_file():
        raise EngineError(
            f"no kernels: {here} is not there; make native, where nvcc is, or name their file in "
            f"{VARIABLE}"
        )
    return here
