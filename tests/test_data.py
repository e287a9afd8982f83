"""Data sets: built in, brought along, cut, split."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from robult_edge.data import load, splits, synthetic, windows
from robult_edge.data.mapped import MappedWindows
from robult_edge.data.stats import channel_stats
from robult_edge.errors import MissingExtraError, SpecError
from robult_edge.modality import ModalitySpec, common_hop_ns

ROOT = Path(__file__).parent.parent
TOML = """
name = "mine"
classes = ["off", "on"]
form = "windows"
data = "mine.npz"
labels = "label"
groups = "who"
test_groups = ["2"]

[modality.acc]
channels = ["x", "y"]
unit = "g"
rate_hz = 10.0
window = 8
invariant_to = ["jitter"]

[modality.level]
array = "fill"
channels = ["l"]
unit = "m"
rate_hz = 1.25
window = 1
"""


@pytest.fixture
def mine(tmp_path):
    """A folder with dataset.toml and its windows: 6 rows, 3 groups, one hole, one unknown label."""
    rng = np.random.default_rng(0)
    acc = rng.normal(size=(6, 2, 8)).astype(np.float32)
    acc[1, 0, 3] = np.nan
    np.savez(
        tmp_path / "mine.npz",
        acc=acc,
        fill=rng.normal(size=(6, 1)),
        label=np.array([0, 1, 0, 1, 1, -1]),
        who=np.array([0, 0, 1, 1, 2, 2]),
    )
    (tmp_path / "dataset.toml").write_text(TOML, encoding="utf-8")
    return tmp_path


def test_own_windows_make_the_round_trip(mine):
    data = load(str(mine))
    raw = np.load(mine / "mine.npz")
    assert data.classes == ("off", "on")
    assert data.windows["acc"].shape == (6, 2, 8)
    assert data.windows["level"].shape == (6, 1, 1)
    assert data.present[:, 0].tolist() == [True, False, True, True, True, True]
    assert data.present[:, 1].all()
    np.testing.assert_array_equal(data.windows["acc"][2], raw["acc"][2])
    assert (data.windows["acc"][1] == 0).all()
    assert data.y.tolist() == [0, 1, 0, 1, 1, -1]
    assert data.test.tolist() == [False] * 4 + [True] * 2
    assert data.invariances == {"acc": ("jitter",), "level": ()}
    assert common_hop_ns(data.modalities) == 800_000_000
    stats = data.modalities[1].stats
    assert stats is not None
    assert stats.mean[0] == pytest.approx(raw["fill"][:4].mean(), rel=1e-5)


def test_a_folder_of_npy_is_read_as_their_npz(mine):
    packed = load(str(mine))
    with zipfile.ZipFile(mine / "mine.npz") as file:
        file.extractall(mine / "mine")
    (mine / "dataset.toml").write_text(TOML.replace("mine.npz", "mine"), encoding="utf-8")
    spread = load(str(mine))
    assert spread.modalities == packed.modalities
    for name, there in packed.windows.items():
        assert isinstance(spread.windows[name], MappedWindows)
        assert spread.windows[name].shape == there.shape
        for rows in (slice(1, 3), np.array([5, 0]), packed.test):
            np.testing.assert_array_equal(spread.windows[name][rows], there[rows])
    (mine / "mine" / "label.npy").unlink()
    with pytest.raises(SpecError, match=r"labels is 'label'.*in mine: "):
        load(str(mine))


def test_windows_come_back_out_of_their_recordings(mine):
    data = load(str(mine))
    again = [windows.cut_all(r.samples, r.labels, data.modalities) for r in data.recordings]
    for name in data.windows:
        np.testing.assert_array_equal(
            np.concatenate([w[name] for w, _, _ in again]), data.windows[name]
        )
    np.testing.assert_array_equal(np.concatenate([p for _, p, _ in again]), data.present)
    np.testing.assert_array_equal(np.concatenate([y for _, _, y in again]), data.y)


def test_data_file_is_looked_up_in_robult_data(mine, tmp_path_factory, monkeypatch):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (mine / "mine.npz").rename(elsewhere / "mine.npz")
    monkeypatch.delenv("ROBULT_DATA", raising=False)
    with pytest.raises(SpecError, match=r"data is 'mine\.npz'.*\$ROBULT_DATA"):
        load(str(mine))
    assert len(load(str(mine), data_dir=elsewhere).y) == 6
    monkeypatch.setenv("ROBULT_DATA", str(elsewhere))
    assert len(load(str(mine / "dataset.toml")).y) == 6


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("rate_hz = 10.0", 'rate_hz = "fast"', "modality.acc.rate_hz is 'fast'"),
        ("rate_hz = 10.0", "rate_hz = -1", "modality.acc.rate_hz is -1"),
        ("rate_hz = 10.0", "rate_hz = 20.0", r"dataset\.toml: modalities hop apart"),
        ('["x", "y"]', '["x"]', r"modality.acc.array is 'acc'.*\(6, 1, 8\).*\(6, 2, 8\)"),
        ('["x", "y"]', "0", "modality.acc.channels is 0.*names, or how many"),
        ('["x", "y"]', "2.5", "modality.acc.channels is 2.5"),
        ('array = "fill"', 'array = "full"', "modality.level.array is 'full'.*fill"),
        ('array = "fill"', 'colour = "red"', "modality.level.colour is 'red'.*left out"),
        ('form = "windows"', 'form = "images"', "form is 'images'"),
        ('form = "windows"', 'form = "windows"\nhop_s = 1.0', "hop_s is 1.0"),
        ('labels = "label"', "", "labels is None.*given"),
        ('["off", "on"]', '["off"]', r"classes is \['off'\]"),
        ('labels = "label"', 'labels = "who"', "labels is 'who'.*it holds 2"),
        ('["2"]', '["7"]', r"test_groups is \['7'\].*'0', '1', '2'"),
        ('test_groups = ["2"]', "", "test_groups is None.*test_share"),
        ('test_groups = ["2"]', "test_share = 1.5", "test_share is 1.5"),
        ('["jitter"]', '["magic"]', r"modality.acc.invariant_to is \['magic'\]"),
        ('["jitter"]', '["flip"]', r"invariant_to is \['flip'\].*time series"),
        ('["jitter"]', '["rotate"]', r"invariant_to is \['rotate'\].*series of 2 channels"),
        ('name = "mine"', "name = mine", "cannot be read as TOML"),
        ('labels = "label"', 'labels = ["label", "who"]', "labels is .*one array of classes"),
        ('labels = "label"', 'labels = "label"\ncodes = [[0, 1]]', "codes is .*left out"),
        ('labels = "label"', 'labels = "acc"', r"labels is 'acc'.*shape \(6,\); it is \(6, 2, 8\)"),
        ('labels = "label"', 'labels = "label"\ntask = "ranking"', "task is 'ranking'"),
        ('labels = "label"', 'labels = "label"\ntask = "regression"', "regression.*targets"),
    ],
)  # fmt: skip
def test_a_bad_toml_names_file_field_and_value(mine, old, new, said):
    toml = mine / "dataset.toml"
    assert old in TOML
    toml.write_text(TOML.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(SpecError, match=said) as caught:
        load(str(mine))
    assert "\n" not in str(caught.value)


def test_channels_may_be_counted_instead_of_named(mine):
    toml = mine / "dataset.toml"
    toml.write_text(TOML.replace('["x", "y"]', "2", 1), encoding="utf-8")
    assert load(str(mine)).modalities[0].channels == ("acc0", "acc1")


def test_a_source_that_is_nothing_says_what_could_be_given():
    with pytest.raises(SpecError, match=r"'wotch' does not exist.*watch, synthetic"):
        load("wotch")


def test_pickles_are_not_opened(mine):
    np.savez(mine / "mine.npz", acc=np.array([{}], object), allow_pickle=True)
    with pytest.raises(SpecError, match="plain arrays"):
        load(str(mine))


def recordings_toml(data: str, extra: str = "") -> str:
    return f"""
name = "walks"
classes = ["still", "walk"]
form = "recordings"
data = "{data}"
labels = "label"
groups = "who"
hop_s = 0.5
test_groups = ["b"]
{extra}

[modality.fast]
channels = ["x"]
unit = "g"
rate_hz = 8.0
window = 8

[modality.slow]
channels = ["p", "q"]
unit = "Pa"
rate_hz = {2.0 if not extra else 8.0}
window = {2 if not extra else 8}
"""


def test_own_recordings_in_a_folder_at_their_own_rates(tmp_path):
    folder = tmp_path / "walks"
    folder.mkdir()
    fast, slow = np.arange(20.0)[:, None], np.arange(10.0).reshape(5, 2)
    np.savez(folder / "1.npz", fast=fast, slow=slow, label="walk", who="a")
    labels = np.repeat(["still", "walk"], 10)
    np.savez(folder / "2.npz", fast=fast, label=labels, who="b")
    (tmp_path / "dataset.toml").write_text(recordings_toml("walks"), encoding="utf-8")
    data = load(str(tmp_path))
    # Ticks at 1.0, 1.5, 2.0 and 2.5 s; the second recording's at 1.5 s spans two labels.
    first = data.groups == "a"
    assert data.y[first].tolist() == [1, 1, 1, 1]
    assert data.windows["fast"][first][:, 0, -1].tolist() == [7, 11, 15, 19]
    assert data.windows["slow"][first][:, 0].tolist() == [[0, 2], [2, 4], [4, 6], [6, 8]]
    assert data.y[~first].tolist() == [0, 1]
    assert data.present[~first].tolist() == [[True, False]] * 2


def test_own_recordings_in_one_file(tmp_path):
    n = 40
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "walks.npz",
        fast=rng.normal(size=(n, 1)),
        slow=rng.normal(size=(n, 2)),
        label=np.ones(n, int),
        who=np.repeat(["a", "b"], n // 2),
        part=np.repeat([4, 9], n // 2),
    )
    toml = tmp_path / "walks.toml"
    toml.write_text(recordings_toml("walks.npz", 'recordings = "part"'), encoding="utf-8")
    data = load(str(toml))
    assert [r.name for r in data.recordings] == ["4", "9"]
    assert data.groups.tolist() == ["a"] * 4 + ["b"] * 4
    toml.write_text(recordings_toml("walks.npz", 'recordings = "parts"'), encoding="utf-8")
    with pytest.raises(SpecError, match="recordings is 'parts'"):
        load(str(toml))


def test_cut_ends_at_the_index_given():
    samples = np.arange(20.0).reshape(10, 2)
    assert windows.cut(samples, 7, 3)[0].tolist() == [8, 10, 12]
    with pytest.raises(IndexError, match="no window of 3 ends at 2"):
        windows.cut(samples, 2, 3)


def test_channel_stats_leave_nan_out_and_see_stillness():
    rng = np.random.default_rng(1)
    x = np.stack([rng.normal(5, 2, 4000), np.full(4000, 3.0)], 1).astype(np.float32)
    x[10] = np.nan
    stats = channel_stats(lambda: [x], hop=20)
    assert stats.mean[0] == pytest.approx(5, abs=0.1)
    assert stats.std == (pytest.approx(2, abs=0.1), 1.0)
    assert stats.low[0] < -0.5 < 10.5 < stats.high[0]
    assert stats.spread[0] > 2
    assert stats.spread[1] == 0


def test_hop_stats_tell_how_a_channel_moves_and_leave_nan_out():
    rng = np.random.default_rng(1)
    x = np.stack([rng.normal(5, 1, 4000), np.repeat(rng.normal(0, 1, 1000), 4)], 1)
    x[10] = np.nan
    hop = channel_stats(lambda: [x.astype(np.float32)], hop=20).hop
    assert hop is not None
    assert hop.level[0] == (pytest.approx(4.5, abs=0.15), pytest.approx(5.5, abs=0.15))
    # A second difference of white noise has √6 its standard deviation, and √(2/π) that as mean.
    assert hop.usual[0] == pytest.approx(np.sqrt(6 * 2 / np.pi), rel=0.05)
    assert hop.roughness[0][0] < np.sqrt(6 * 2 / np.pi) < 1.3 * hop.roughness[0][1]
    assert hop.repeats == (0.0, pytest.approx(15 / 19))
    assert hop.length[0] > 4
    assert 4.8 < hop.lean < 5.6


@pytest.mark.parametrize(
    ("shape", "hop"), [((100, 2), 5), ((20, 2), 15), ((60, 2, 4, 4), 20)], ids=str
)
def test_of_short_hops_short_recordings_and_images_no_motion_is_told(shape, hop):
    assert channel_stats(lambda: [np.random.default_rng(0).normal(size=shape)], hop).hop is None


@pytest.mark.parametrize(("run", "longest"), [(1, 1), (2, 2), (7, 7)])
def test_how_many_images_in_a_row_are_the_same_is_told(run, longest):
    rng = np.random.default_rng(0)
    images = [np.repeat(rng.normal(size=(n, 2, 4, 4)), run, 0) for n in (10, 30)]
    stats = channel_stats(lambda: images, 1)
    assert stats.longest_run == longest


def test_missing_images_are_no_run_and_what_moves_in_hops_needs_none():
    lost = np.full((20, 1, 4, 4), np.nan)
    assert channel_stats(lambda: [lost, np.arange(320.0).reshape(20, 1, 4, 4)], 1).longest_run == 1
    series = np.random.default_rng(0).normal(size=(400, 2))
    assert channel_stats(lambda: [series], 20).longest_run is None


def test_watch_is_what_seglearn_ships():
    data = load("watch")
    assert data.classes == ("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW")
    assert len(data.recordings) == 140
    assert data.windows["acc"].shape[1:] == data.windows["gyro"].shape[1:] == (3, 128)
    assert data.present.all()
    assert not set(data.groups[data.test]) & set(data.groups[~data.test])
    assert set(data.groups[data.test]) == set(data.test_groups)
    recording = data.recordings[5]
    of_it = np.flatnonzero(data.groups == recording.group)
    k = -(-128 // 32)
    first = windows.cut(recording.samples["gyro"], k * 32, 128)
    assert any(np.array_equal(data.windows["gyro"][i], first) for i in of_it)


def test_watch_without_seglearn_names_the_extra(monkeypatch):
    from importlib import metadata

    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    with pytest.raises(MissingExtraError, match=r"robult-edge\[train\]"):
        load("watch")


def test_watch_refuses_other_bytes(tmp_path, monkeypatch):
    from robult_edge.data import watch

    monkeypatch.setattr(watch, "SHA256", "0" * 64)
    with pytest.raises(SpecError, match=r"sha256.*reinstall"):
        load("watch")


@pytest.mark.parametrize("file", ["hydraulic", "hydraulic_pump", "room_occupancy"])
def test_example_data_sets_load(file, monkeypatch):
    folder = Path(os.environ.get("ROBULT_DATA", ROOT.parent / "shared" / "data"))
    npz = folder / f"{file.removesuffix('_pump')}.npz"
    if not npz.exists():
        pytest.skip(f"{npz.name} is not in $ROBULT_DATA or ../shared/data")
    data = load(str(ROOT / "examples" / "datasets" / f"{file}.toml"), data_dir=folder)
    assert data.present.all()
    assert len(data.modalities) == 5
    # Every class is to be learned as well as tested.
    assert set(data.y[data.test]) == set(data.y[~data.test]) == set(range(len(data.classes)))


def test_example_questions_of_other_tasks_load(benchmark_data):
    folder = ROOT / "examples" / "datasets"
    worn = load(str(folder / "hydraulic_faults.toml"), data_dir=benchmark_data)
    bar = load(str(folder / "hydraulic_pressure.toml"), data_dir=benchmark_data)
    assert np.unique(worn.y).tolist() == [0, 1]
    assert np.unique(bar.y).tolist() == [90, 100, 115, 130]
    # The accumulator is worn below its 130 bar.
    np.testing.assert_array_equal(worn.y[:, 3] == 1, bar.y[:, 0] < 130)


def test_synthetic_words_carry_the_information_stated():
    mix = synthetic.Mixture(redundant=0.0, unique=0.7, synergy=1.0, modalities=3, windows=40_000)
    rng = np.random.default_rng(0)
    y = rng.integers(mix.classes, size=mix.windows)
    unique, synergy = synthetic._words(mix, y, rng)

    def information(a, b):
        joint = np.zeros((a.max() + 1, b.max() + 1))
        np.add.at(joint, (a, b), 1 / len(a))
        outer = joint.sum(1, keepdims=True) * joint.sum(0)
        return (joint[joint > 0] * np.log2(joint[joint > 0] / outer[joint > 0])).sum()

    stated = synthetic.bits(0.7, mix.classes)
    for i in range(3):
        assert information(unique[:, i], y) == pytest.approx(stated, abs=0.02)
        assert information(synergy[:, i], y) < 0.002
    assert information(synergy[:, 0] * 4 + synergy[:, 1], y) < 0.002
    assert (synergy.sum(1) % mix.classes == y).all()
    assert synthetic.bits(1.0, 4) == 2.0
    assert synthetic.bits(0.0, 4) == pytest.approx(0.0)


def test_synthetic_settings_are_checked():
    assert len(load("synthetic:windows=60,modalities=2,groups=4").modalities) == 2
    with pytest.raises(SpecError, match=r"unknown setting 'modalitys'.*modalities"):
        load("synthetic:modalitys=2")
    with pytest.raises(SpecError, match=r"synergy is 2.0"):
        load("synthetic:synergy=2")
    with pytest.raises(SpecError, match="classes is 'many'"):
        load("synthetic:classes=many")


@pytest.mark.parametrize("seed", range(5))
def test_folds_never_share_a_group_and_spread_the_labels(seed):
    rng = np.random.default_rng(seed)
    groups = rng.integers(17, size=600).astype(str)
    y = rng.integers(3, size=600)
    known = splits.draw_labels(y, 0.1, rng)
    fold = splits.group_folds(groups, y, known, 4, rng)
    assert set(fold) == {0, 1, 2, 3}
    for group in np.unique(groups):
        assert len(set(fold[groups == group])) == 1
    counts = np.array(
        [[(known & (y == k) & (fold == f)).sum() for k in range(3)] for f in range(4)]
    )
    assert counts.min() >= 1
    # Labels outside the budget change nothing.
    other = np.where(known, y, 0)
    again = np.random.default_rng(seed)
    first = splits.group_folds(groups, y, known, 4, again)
    again = np.random.default_rng(seed)
    assert (first == splits.group_folds(groups, other, known, 4, again)).all()


@pytest.mark.parametrize("fraction", [0.001, 0.05, 0.5, 1.0])
def test_label_budget_is_kept_per_class(fraction):
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2, -1], [400, 100, 1, 50])
    known = splits.draw_labels(y, fraction, rng)
    assert not known[y < 0].any()
    for k, n in ((0, 400), (1, 100), (2, 1)):
        assert known[y == k].sum() == max(1, round(fraction * n))


def test_missing_at_random_keeps_one_of_those_that_were_there():
    rng = np.random.default_rng(0)
    present = rng.random((5000, 4)) < 0.8
    present[0] = False
    kept = splits.drop_at_random(present, 0.6, rng)
    assert not (kept & ~present).any()
    assert (kept.any(1) == present.any(1)).all()
    wide = present.sum(1) > 2
    assert 0.5 < 1 - kept[wide].sum() / present[wide].sum() < 0.62


def test_each_sensor_may_lose_a_share_of_its_own():
    present = np.ones((5000, 4), bool)
    kept = splits.drop_at_random(present, np.array([0.0, 0.3, 0.6, 0.9]), np.random.default_rng(0))
    np.testing.assert_allclose(1 - kept.mean(0), [0.0, 0.3, 0.6, 0.9], atol=0.03)


def test_picked_groups_are_a_share_and_never_all():
    groups = np.repeat([f"g{i}" for i in range(8)], 3)
    assert len(splits.pick_groups(groups, 0.25, 0)) == 2
    assert splits.pick_groups(groups, 0.25, 0) == splits.pick_groups(groups, 0.25, 0)
    assert len(splits.pick_groups(groups, 0.99, 0)) == 7


def test_a_hop_that_is_no_whole_number_of_samples_is_refused(tmp_path):
    text = recordings_toml("walks").replace("hop_s = 0.5", "hop_s = 0.3")
    (tmp_path / "walks").mkdir()
    (tmp_path / "dataset.toml").write_text(text, encoding="utf-8")
    with pytest.raises(SpecError, match=r"hop_s is 0.3.*modality.fast.rate_hz 8"):
        load(str(tmp_path))


def test_images_keep_their_planes():
    spec = ModalitySpec(
        name="cam", channels=("r", "g"), unit="1", rate_hz=2.0, window=1, hop=1, timeout_s=1.0,
        size=(4, 5),
    )  # fmt: skip
    frames = np.random.default_rng(0).random((3, 2, 4, 5)).astype(np.float32)
    cut, present, _ = windows.cut_all({"cam": frames}, np.zeros(3, int), (spec,))
    np.testing.assert_array_equal(cut["cam"], frames)
    assert present.all()
    assert len(channel_stats(lambda: [frames], 1).mean) == 2


def asking(folder, task):
    """The TOML of ``mine`` with another question."""
    toml = folder / "dataset.toml"
    old = ('classes = ["off", "on"]\n', 'labels = "label"\n')
    assert all(line in TOML for line in old)
    toml.write_text(TOML.replace(old[0], "").replace(old[1], task), encoding="utf-8")


def add_arrays(folder, **arrays):
    with np.load(folder / "mine.npz") as file:
        np.savez(folder / "mine.npz", **{name: file[name] for name in file}, **arrays)


@pytest.mark.parametrize(
    ("task", "y"),
    [
        ('labels = "both"', [[0, 1], [1, 1], [-1, -1], [0, 0], [1, 0], [-1, -1]]),
        (
            'labels = ["label", "state"]\ncodes = [[0, 1], [0, 1, 1]]',
            [[0, 0], [1, 1], [0, 1], [1, 0], [1, 1], [-1, -1]],
        ),
    ],
)
def test_labels_come_as_one_array_or_one_each_and_half_known_is_unknown(mine, task, y):
    both = np.array([[0, 1], [1, 1], [-1, 1], [0, 0], [1, 0], [-1, -1]])
    add_arrays(mine, both=both, state=np.array([0, 1, 2, 0, 2, 1]))
    asking(mine, f'task = "multilabel"\nclasses = ["hot", "wet"]\n{task}\n')
    data = load(str(mine))
    assert (data.task, data.classes, data.units) == ("multilabel", ("hot", "wet"), ())
    assert data.y.tolist() == y
    assert data.y.dtype == np.int64


@pytest.mark.parametrize(
    ("labels", "y"),
    [
        ('labels = "level_m"', [1.5, -1.0, np.nan, 2.5, 3.5, 4.5]),
        ('labels = "label"\ncodes = [[90, 130]]', [90, 130, 90, 130, 130, np.nan]),
    ],
)
def test_values_are_read_in_their_unit(mine, labels, y):
    add_arrays(mine, level_m=np.array([1.5, -1.0, np.nan, 2.5, 3.5, 4.5]))
    asking(mine, f'task = "regression"\ntargets = [{{ name = "oil", unit = "bar" }}]\n{labels}\n')
    data = load(str(mine))
    assert (data.task, data.classes, data.units) == ("regression", ("oil",), ("bar",))
    np.testing.assert_array_equal(data.y[:, 0], np.array(y, np.float32))
    assert data.y.dtype == np.float32


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ('task = "multilabel"\nlabels = "label"\n', "classes is"),
        ('task = "multilabel"\nclasses = ["a", "b"]\nlabels = "label"\n', r"shape \(6, 2\)"),
        ('task = "multilabel"\nclasses = ["a"]\nlabels = "who"\n', "of 0 and 1.*it holds 2"),
        ('task = "multilabel"\nclasses = ["a"]\nlabels = ["label", "who"]\n', "one for each of a"),
        ('task = "multilabel"\nclasses = ["a"]\nlabels = "who"\ncodes = [[0, 1]]\n', "2 is there"),
        ('task = "regression"\nlabels = "label"\n', "targets is None"),
        ('task = "regression"\nclasses = ["a"]\nlabels = "label"\n', "task is 'regression'"),
        ('task = "regression"\ntargets = [{ name = "a" }]\nlabels = "label"\n', "targets is"),
        ('targets = [{ name = "a", unit = "1" }]\nlabels = "label"\n', "task is 'classification'"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(mine, task, said):
    asking(mine, task)
    with pytest.raises(SpecError, match=said) as caught:
        load(str(mine))
    assert "\n" not in str(caught.value)


def test_a_windows_value_is_the_last_and_its_labels_hold_all_through():
    spec = (
        ModalitySpec(
            name="x", channels=("c",), unit="1", rate_hz=1.0, window=4, hop=2, timeout_s=1.0
        ),
    )
    samples = {"x": np.zeros((8, 1), np.float32)}
    values = np.arange(8, dtype=np.float32)[:, None]
    assert windows.cut_all(samples, values, spec)[2].tolist() == [[3], [5], [7]]
    labels = np.array([[0, 1]] * 5 + [[1, 1]] * 3)
    y = windows.cut_all(samples, labels, spec)[2]
    assert windows.mixed(y).tolist() == [False, True, True]
    assert y[0].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("task", "classes"), [("multilabel", ("bit0", "bit1")), ("regression", ("y",))]
)
def test_synthetic_asks_the_same_question_in_other_forms(task, classes):
    plain = load("synthetic:windows=80,classes=3")
    other = load(f"synthetic:windows=80,classes=3,task={task}")
    assert (other.task, other.classes) == (task, classes)
    np.testing.assert_array_equal(other.windows["s0"], plain.windows["s0"])
    np.testing.assert_array_equal(other.y @ ([1, 2] if task == "multilabel" else [1]), plain.y)
