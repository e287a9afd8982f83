"""What `benchmarks.guided` fuzzes: ``python -m benchmarks.guided_target CORPUS [OPTIONS]``.

An input is a few messages, one after the other, given to the runtime's ingest and rigs as the
server gives them. Whatever is raised, or changes a sensor that the message does not name, ends it.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["robult_edge", "runtime"]):
    from benchmarks import fuzz, messages
    from robult_edge import bundle
    from runtime.ingest import Ingest
    from runtime.rigs import Rigs

MANIFEST = bundle.load(Path(__file__).parents[1] / "export").manifest


def one_input(data: bytes) -> None:
    """Take in what ``data`` holds.

    Raises:
        AssertionError: a message changed a sensor that it does not name.
    """
    ingest, rigs, now_ns = Ingest(MANIFEST.modalities), Rigs(MANIFEST, 4), fuzz.START_NS
    for wait_ms, parts in messages.unpack(data):
        now_ns += wait_ms * 1_000_000
        assert fuzz.keeps_to_itself(ingest, rigs, parts, now_ns), "another sensor changed"


if __name__ == "__main__":
    logging.disable()
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
