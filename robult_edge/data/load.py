"""Reading a data set by name or by path."""

from __future__ import annotations

from pathlib import Path

from robult_edge.data import food101, hateful_memes, mmimdb, mosei, spec, synthetic, watch
from robult_edge.data.dataset import Dataset

READERS = {
    "synthetic": synthetic.load,
    "mosi": mosei.load,
    "mosei": mosei.load,
    "mmimdb": mmimdb.load,
    "food101": food101.load,
    "hateful_memes": hateful_memes.load,
}
"""Of sources ``name:…``; the paper's own data sets as they are distributed."""


def load(source: str, data_dir: Path | None = None) -> Dataset:
    """Read a data set.

    Args:
        source: "watch"; "synthetic" or "synthetic:synergy=0.9,modalities=3"; one of the paper's,
            "mosi:PATH", "mosei:PATH", "mmimdb:PATH", "food101:PATH" or "hateful_memes:PATH"; or
            the path of a TOML (see ``robult_edge.data.spec``) or of a folder that holds one
            dataset.toml.
        data_dir: where the TOML's data file is looked for first.

    Raises:
        MissingExtraError: what reads it is not installed.
        SpecError: the source is none of these, or its TOML or data are wrong.
    """
    if source == "watch":
        return watch.load()
    if reader := READERS.get(source.partition(":")[0]):
        return reader(source)
    return spec.load(Path(source), data_dir)
