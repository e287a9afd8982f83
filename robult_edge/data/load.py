"""Reading a data set by name or by path."""

from __future__ import annotations

from pathlib import Path

from robult_edge.data import spec, synthetic, watch
from robult_edge.data.dataset import Dataset


def load(source: str, data_dir: Path | None = None) -> Dataset:
    """Read a data set.

    Args:
        source: "watch"; "synthetic" or "synthetic:synergy=0.9,modalities=3"; or the path of a
            TOML (see ``robult_edge.data.spec``) or of a folder that holds one dataset.toml.
        data_dir: where the TOML's data file is looked for first.

    Raises:
        SpecError: the source is none of these, or its TOML or data are wrong.
    """
    if source == "watch":
        return watch.load()
    if source.partition(":")[0] == "synthetic":
        return synthetic.load(source)
    return spec.load(Path(source), data_dir)
