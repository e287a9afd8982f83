"""The paper's data sets, in the layout they are distributed in, become what training takes."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from robult_edge.data import Dataset, load
from robult_edge.data.captioned import SIZE, WORDS
from robult_edge.errors import MissingExtraError, SpecError
from robult_edge.task import labelled
from train.__main__ import train
from train.config import TrainConfig

torch.set_num_threads(1)  # the tensors are small: threads cost more than they bring
RNG = np.random.default_rng(0)
QUICK = TrainConfig(
    missing=0.2, epochs=1, folds=2, workers=1, device="cpu", steps=2, width=8, batch_unlabelled=16
)
GENRES = ["Drama", "Comedy", "Romance"]


def multibench(folder: Path) -> str:
    """CMU-MOSI as MultiBench has it: videos of 8 segments, ids of three columns."""
    folder.mkdir(exist_ok=True)
    parts = {}
    for part, videos in (("train", "abc"), ("valid", "d"), ("test", "ef")):
        n = 8 * len(videos)
        labels = np.tile([-2.4, -1, -0.2, 0, 0.2, 1, 1.8, 3], len(videos)).astype(np.float32)
        parts[part] = {
            "vision": RNG.normal(size=(n, 50, 5)).astype(np.float32),
            "audio": RNG.normal(size=(n, 50, 4)),
            "text": RNG.normal(size=(n, 50, 6)).astype(np.float32) + labels[:, None, None],
            "labels": labels[:, None, None],
            "id": np.array([[v, str(i), str(i + 1)] for v in videos for i in range(8)]),
        }
    parts["train"]["audio"][0, :3] = -np.inf
    (folder / "mosi_raw.pkl").write_bytes(pickle.dumps(parts))
    return f"mosi:{folder / 'mosi_raw.pkl'}"


def mmsa(folder: Path) -> str:
    """CMU-MOSEI as MMSA has it, not aligned: lengths differ, ids are text."""
    folder.mkdir(exist_ok=True)
    parts = {}
    for part, videos in (("train", "ab"), ("valid", "d"), ("test", "e")):
        n = 8 * len(videos)
        parts[part] = {
            "raw_text": np.array(["well"] * n, object),
            "audio": RNG.normal(size=(n, 30, 4)).astype(np.float32),
            "vision": RNG.normal(size=(n, 20, 5)).astype(np.float32),
            "text": RNG.normal(size=(n, 10, 6)).astype(np.float32),
            "text_bert": RNG.normal(size=(n, 3, 10)),
            "id": [f"-{v}_x$_${i}" for v in videos for i in range(8)],
            "regression_labels": RNG.uniform(-3, 3, n),
            "classification_labels": np.zeros(n),
            "annotations": ["Neutral"] * n,
        }
    (folder / "unaligned_50.pkl").write_bytes(pickle.dumps(parts))
    return f"mosei:{folder / 'unaligned_50.pkl'}"


def mmimdb(folder: Path) -> str:
    """As gmu-mmimdb writes it: rows of train, dev and test one after another, fuel's table."""
    folder.mkdir(exist_ok=True)
    n = 60
    with h5py.File(folder / "multimodal_imdb.hdf5", "w") as file:
        file["features"] = RNG.normal(size=(n, 7)).astype(np.float32)
        file["features"][5] = np.nan  # a plot of unknown words has no mean
        file["vgg_features"] = RNG.normal(size=(n, 9)).astype(np.float32)
        file["genres"] = RNG.integers(2, size=(n, 3)).astype(np.int32)
        file["genres"].attrs["target_names"] = json.dumps(GENRES)
        kinds = [("split", "S5"), ("source", "S12"), ("start", "i8"), ("stop", "i8")]
        rows = [
            (split, source, start, stop)
            for split, start, stop in (("train", 0, 30), ("dev", 30, 40), ("test", 40, 60))
            for source in ("features", "genres")
        ]
        file.attrs["split"] = np.array(rows, kinds)
    return f"mmimdb:{folder / 'multimodal_imdb.hdf5'}"


def food101(folder: Path) -> str:
    """UPMC Food-101: a title with commas, a broken picture, a missing one."""
    (folder / "texts").mkdir(parents=True)
    for part, n in (("train", 12), ("test", 4)):
        lines = []
        for dish, colour in (("apple_pie", (200, 0, 0)), ("waffles", (0, 0, 200))):
            (folder / "images" / part / dish).mkdir(parents=True)
            for i in range(n):
                name = f"{dish}_{i}.jpg"
                lines.append(f'{name},"Best {dish}, number {i} | recipes",{dish}')
                if (part, name) != ("train", "waffles_1.jpg"):
                    Image.new("RGB", (90, 70), colour).save(folder / "images" / part / dish / name)
        (folder / "texts" / f"{part}_titles.csv").write_text("\n".join(lines) + "\n")
    (folder / "images" / "train" / "apple_pie" / "apple_pie_0.jpg").write_bytes(b"\xff\xd8\xff")
    return f"food101:{folder}"


def hateful_memes(folder: Path) -> str:
    """The Hateful Memes Challenge: words shared by memes, grey and transparent pictures."""
    (folder / "img").mkdir(parents=True)
    number = 0
    for part, n in (("train", 24), ("dev_seen", 6), ("test_seen", 8)):
        lines = []
        for i in range(n):
            number += 1
            mode = ("RGB", "L", "RGBA")[i % 3]
            Image.new(mode, (80, 60), 255 if mode == "L" else "white").save(
                folder / "img" / f"{number:05d}.png"
            )
            line = {"id": number, "img": f"img/{number:05d}.png", "text": f"look {i // 2}"}
            lines.append(json.dumps(line | {"label": i % 2}))
        (folder / f"{part}.jsonl").write_text("\n".join(lines))
    return f"hateful_memes:{folder}"


MAKERS = [multibench, mmsa, mmimdb, food101, hateful_memes]


def shapes(data: Dataset) -> dict[str, tuple[int, ...]]:
    return {m.name: m.window_shape for m in data.modalities}


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_it_trains_and_is_judged_by_the_official_test_part(
    make: Callable[[Path], str], tmp_path: Path
) -> None:
    source, out = make(tmp_path / "data"), tmp_path / "run"
    train(source, QUICK, out, False, Console(quiet=True))
    run = json.loads((out / "run.json").read_text())
    data = load(run["dataset"])  # as export does
    assert run["task"] == data.task
    assert {f"test/head/{m.name}" for m in data.modalities} <= set(run["metrics"])
    oof = np.load(out / "oof.npz", allow_pickle=False)
    assert not data.test[oof["index"]].any()


def test_mosi_asks_for_the_sentiment_and_holds_out_by_video(tmp_path: Path) -> None:
    data = load(multibench(tmp_path))
    assert (data.task, data.classes, data.units) == ("regression", ("sentiment",), ("1",))
    assert shapes(data) == {"text": (6, 50), "audio": (4, 50), "vision": (5, 50)}
    assert data.present.all()  # what is infinite has become 0
    assert (data.windows["audio"][0, :, :3] == 0).all()
    assert set(data.groups.tolist()) == {"a", "b", "c", "d", "test:e", "test:f"}
    assert data.test_groups == ("test:e", "test:f")
    assert data.test.sum() == 16
    raw = pickle.loads((tmp_path / "mosi_raw.pkl").read_bytes())
    np.testing.assert_array_equal(data.windows["text"][data.test].transpose(0, 2, 1),
                                  raw["test"]["text"])  # fmt: skip
    np.testing.assert_array_equal(data.y[data.test], raw["test"]["labels"][:, :, 0])


def test_mosi_asks_for_the_sign_and_leaves_zeros_out(tmp_path: Path) -> None:
    data = load(multibench(tmp_path) + ",task=classification")
    assert (data.task, data.classes, data.units) == ("classification", ("negative", "positive"), ())
    assert data.y[:7].tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert (len(data.y), data.test.sum()) == (6 * 7, 2 * 7)


def test_mosei_may_have_lengths_of_its_own_per_modality(tmp_path: Path) -> None:
    data = load(mmsa(tmp_path))
    assert shapes(data) == {"text": (6, 10), "audio": (4, 30), "vision": (5, 20)}
    assert set(data.groups.tolist()) == {"-a_x", "-b_x", "-d_x", "test:-e_x"}


@pytest.mark.parametrize("form", ["{}[{}]", "{}_{}", "{}$_${}"])
@pytest.mark.parametrize("kind", ["U", "S", "O"])
def test_segments_of_a_video_are_one_group(form: str, kind: str, tmp_path: Path) -> None:
    source = multibench(tmp_path)
    path = tmp_path / "mosi_raw.pkl"
    parts = pickle.loads(path.read_bytes())
    for part in parts.values():
        ids = [form.format(f"03b_nISJM-{video}", start) for video, start, _ in part["id"]]
        part["id"] = np.array(ids, kind)
    path.write_bytes(pickle.dumps(parts))
    data = load(source)
    videos = [f"03b_nISJM-{v}" for v in "abcd"] + [f"test:03b_nISJM-{v}" for v in "ef"]
    assert set(data.groups.tolist()) == set(videos)


def test_mmimdb_has_genres_by_name_and_the_test_rows_of_its_table(tmp_path: Path) -> None:
    data = load(mmimdb(tmp_path))
    assert (data.task, data.classes) == ("multilabel", tuple(GENRES))
    assert shapes(data) == {"text": (7, 1), "image": (9, 1)}
    assert data.y.shape == (60, 3)
    assert np.flatnonzero(data.test).tolist() == list(range(40, 60))
    assert np.argwhere(~data.present).tolist() == [[5, 0]]


def test_food101_keeps_its_pictures_shrunk_and_counts_unreadable_ones_as_absent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = food101(tmp_path / "food")
    data = load(source)
    assert (data.task, data.classes) == ("classification", ("apple_pie", "waffles"))
    assert shapes(data) == {"image": (3, SIZE, SIZE), "text": (WORDS, 1)}
    assert np.argwhere(~data.present).tolist() == [[0, 0], [13, 0]]
    assert data.test.tolist() == [False] * 24 + [True] * 8
    assert not set(data.groups[data.test]) & set(data.groups[~data.test])
    colour = data.windows["image"][-1:].mean((0, 2, 3))
    np.testing.assert_allclose(colour, [0, 0, 200], atol=5)
    assert "2 of 32 pictures unread" in capsys.readouterr().err
    for picture in (tmp_path / "food" / "images").rglob("*.jpg"):
        picture.unlink()
    again = load(source)
    np.testing.assert_array_equal(again.windows["image"][:], data.windows["image"][:])


def test_hateful_memes_never_tear_equal_words_apart(tmp_path: Path) -> None:
    source = hateful_memes(tmp_path / "memes")
    data = load(source)
    assert data.classes == ("benign", "hateful")
    assert data.test.tolist() == [False] * 30 + [True] * 8
    for i in range(12):
        assert len(set(data.groups[2 * i : 2 * i + 2].tolist())) == 1
    np.testing.assert_array_equal(data.windows["image"][:3], 255)  # whatever mode they came in


def test_memes_without_a_label_are_unlabelled(tmp_path: Path) -> None:
    source = hateful_memes(tmp_path)
    path = tmp_path / "test_seen.jsonl"
    path.write_text(path.read_text().replace(', "label": 0', "").replace(', "label": 1', ""))
    data = load(source)
    np.testing.assert_array_equal(labelled(data.y), ~data.test)


@pytest.mark.parametrize(
    ("make", "spoil", "said"),
    [
        (multibench, "mosi_raw.pkl", r"mosi_raw\.pkl cannot be read .*give the path"),
        (mmimdb, "multimodal_imdb.hdf5", r"multimodal_imdb\.hdf5: not the file .*mend: "),
        (food101, "texts/test_titles.csv", r"test_titles\.csv cannot be read .*mend: .*images/"),
        (hateful_memes, "dev_seen.jsonl", r"dev_seen\.jsonl cannot be read .*mend: .*img/"),
    ],
)
def test_a_missing_file_is_named_with_the_mend(
    make: Callable[[Path], str], spoil: str, said: str, tmp_path: Path
) -> None:
    source = make(tmp_path / "data")
    (tmp_path / "data" / spoil).unlink()
    with pytest.raises(SpecError, match=said):
        load(source)


def test_pictures_that_were_never_unpacked_are_named(tmp_path: Path) -> None:
    source = hateful_memes(tmp_path)
    for picture in (tmp_path / "img").iterdir():
        picture.unlink()
    with pytest.raises(SpecError, match=r"00001\.png: neither .* mend: unpack"):
        load(source)
    assert not list(tmp_path.glob("pictures*"))  # the next try begins anew


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: p.pop("valid"), "no part 'valid'"),
        (lambda p: p["test"].pop("audio"), "no 'audio' or 'acoustic' among .*MultiBench or MMSA"),
        (lambda p: p["test"].update(id=["v"]), "16 regression_labels|16 labels for 1 id"),
        (lambda p: p["test"].update(text=np.zeros((16, 3))), r"text is \(16, 3\)"),
    ],
)
def test_a_pickle_of_another_layout_is_refused(
    change: Callable[[Any], Any], said: str, tmp_path: Path
) -> None:
    source = multibench(tmp_path)
    path = tmp_path / "mosi_raw.pkl"
    parts = pickle.loads(path.read_bytes())
    change(parts)
    path.write_bytes(pickle.dumps(parts))
    with pytest.raises(SpecError, match=f"mosi_raw.pkl: .*{said}"):
        load(source)


def test_another_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="task is 'ranking'; it must be regression or"):
        load(multibench(tmp_path) + ",task=ranking")


@pytest.mark.parametrize(
    ("make", "module", "said"),
    [
        (mmimdb, "h5py", "h5py is not installed"),
        (hateful_memes, "PIL", "is not installed"),
        (food101, "sklearn.feature_extraction.text", "scikit-learn is not installed"),
    ],
)
def test_what_is_not_installed_is_named_with_its_extra(
    make: Callable[[Path], str],
    module: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = make(tmp_path / "data")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"{said}.*robult-edge\[datasets\]"):
        load(source)
