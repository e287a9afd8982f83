"""robult_edge.data.replay: recordings end to end, all sensors in step, answers checkable."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from robult_edge import data
from robult_edge.data.dataset import Dataset, Recording, from_recordings
from robult_edge.data.replay import Replay, replays
from robult_edge.modality import ModalitySpec

START_NS = 1_700_000_000_000_000_000


def spec(name: str, **changes: Any) -> ModalitySpec:
    given = {"channels": ("x", "y"), "rate_hz": 50.0, "window": 8, "hop": 4, **changes}
    return ModalitySpec(name=name, unit="g", timeout_s=1.0, **given)


ACC = spec("acc")
MIC = spec("mic", channels=("p",), rate_hz=100.0, window=16, hop=8)
CAM = spec("cam", channels=("r",), rate_hz=12.5, window=1, hop=1, size=(2, 3))
ALL = (ACC, MIC, CAM)


def recording(name: str, group: str, labels: list[int], spare: int = 0) -> Recording:
    """A recording of ``len(labels)`` hops, ``spare`` acc samples longer than whole hops."""
    rng = np.random.default_rng(len(name))
    hops = len(labels)
    return Recording(
        name=name,
        group=group,
        samples={
            "acc": rng.normal(size=(4 * hops + spare, 2)).astype(np.float32),
            "mic": rng.normal(size=(8 * hops, 1)).astype(np.float32),
            "cam": rng.normal(size=(hops, 1, 2, 3)).astype(np.float32),
        },
        labels=np.r_[np.repeat(labels, 4), np.zeros(spare, int)].astype(np.int64),
    )


def dataset(*recordings: Recording, test: tuple[str, ...] = ()) -> Dataset:
    return from_recordings("tiny", ("a", "b"), ALL, recordings, test, {m.name: () for m in ALL})


FIRST = recording("r1", "anna", [0, 0, 0, 1], spare=3)
SECOND = recording("second", "anna", [1, 1, 0])
OTHER = recording("r3", "bert", [1, 1, 1])


@pytest.fixture(scope="module")
def anna() -> Replay:
    return replays(dataset(FIRST, SECOND, OTHER, test=("anna",)))[0]


def test_only_held_out_groups_are_played() -> None:
    played = replays(dataset(FIRST, SECOND, OTHER, test=("anna",)))
    assert [p.source for p in played] == ["anna"]


def test_where_nothing_is_held_out_every_group_is_played() -> None:
    assert [p.source for p in replays(dataset(FIRST, SECOND, OTHER))] == ["anna", "bert"]


def test_recordings_are_gone_through_once_however_many_groups() -> None:
    class Counted(list[Recording]):
        times = 0

        def __iter__(self) -> Iterator[Recording]:
            self.times += 1
            return super().__iter__()

    recordings = Counted([FIRST, SECOND, OTHER])
    replays(replace(dataset(FIRST, SECOND, OTHER), recordings=recordings))
    assert recordings.times == 1


def test_recordings_are_laid_end_to_end_and_cut_to_whole_hops(anna: Replay) -> None:
    assert anna.hops == 7
    assert {name: len(x) for name, x in anna.samples.items()} == {"acc": 28, "mic": 56, "cam": 7}
    np.testing.assert_array_equal(anna.samples["acc"][:16], FIRST.samples["acc"][:16])
    np.testing.assert_array_equal(anna.samples["acc"][16:], SECOND.samples["acc"])
    np.testing.assert_array_equal(anna.samples["mic"][32:], SECOND.samples["mic"])
    np.testing.assert_array_equal(anna.labels, [0, 0, 0, 1, 1, 1, 0])


def test_a_hop_over_which_the_label_changes_has_none() -> None:
    changing = recording("r", "anna", [0, 0, 0, 1])
    changing.labels[10:12] = 1
    (played,) = replays(dataset(changing))
    np.testing.assert_array_equal(played.labels, [0, 0, -1, 1])
    assert [played.truth("acc", end) for end in (7, 11, 15)] == [0, -1, -1]


@pytest.mark.parametrize("m", ALL, ids=lambda m: m.name)
def test_a_sample_is_found_by_the_time_it_is_captured(anna: Replay, m: ModalitySpec) -> None:
    for index in range(len(anna.samples[m.name])):
        at = anna.captured_ns(m.name, index, START_NS)
        assert anna.index_at(m.name, at, START_NS) == index


@pytest.mark.parametrize("m", ALL, ids=lambda m: m.name)
def test_a_hops_last_sample_is_captured_half_a_period_before_its_end(
    anna: Replay, m: ModalitySpec
) -> None:
    last = anna.captured_ns(m.name, 3 * m.hop - 1, START_NS)
    assert last == START_NS + round(3 * m.hop_s * 1e9 - 0.5e9 / m.rate_hz)


@pytest.mark.parametrize("m", ALL, ids=lambda m: m.name)
def test_windows_are_those_of_the_data_set(anna: Replay, m: ModalitySpec) -> None:
    (whole,) = replays(dataset(FIRST))
    for hop in range(2, whole.hops + 1):
        window = whole.window(m.name, hop * m.hop - 1)
        assert window.shape == m.window_shape
        samples = FIRST.samples[m.name][hop * m.hop - m.window : hop * m.hop]
        np.testing.assert_array_equal(window, samples[0] if m.size else samples.T)


@pytest.mark.parametrize(
    ("hop", "truth"),
    [(2, 0), (3, 0), (4, -1), (5, 1), (6, 1), (7, -1)],
)
def test_a_windows_truth_is_its_class_or_nothing_where_it_changes(
    anna: Replay, hop: int, truth: int
) -> None:
    assert anna.truth("acc", 4 * hop - 1) == truth
    assert anna.truth("mic", 8 * hop - 1) == truth


def test_an_images_truth_is_that_of_its_own_hop(anna: Replay) -> None:
    assert [anna.truth("cam", i) for i in range(7)] == anna.labels.tolist()


def test_the_truth_of_ready_windows_played_back_to_back_is_their_own() -> None:
    synthetic = data.load("synthetic:windows=60,groups=4,modalities=2")
    for played in replays(synthetic):
        y = synthetic.y[synthetic.groups == played.source]
        window = played.modalities["s0"].window
        got = [played.truth("s0", (k + 1) * window - 1) for k in range(len(y))]
        assert got == y.tolist()
        rows = synthetic.windows["s1"][synthetic.groups == played.source]
        for k, row in enumerate(rows):
            np.testing.assert_array_equal(played.window("s1", (k + 1) * window - 1), row)


def test_a_replay_goes_round(anna: Replay) -> None:
    for name, m in anna.modalities.items():
        n = len(anna.samples[name])
        np.testing.assert_array_equal(anna.window(name, n + m.window), anna.window(name, m.window))
        assert anna.truth(name, n + m.window - 1) == anna.truth(name, m.window - 1)


def test_rigs_share_out_a_groups_recordings() -> None:
    dataset = data.load("watch")
    one, four = replays(dataset), replays(dataset, rigs=4)
    assert [r.source for r in four[:4]] == [f"{one[0].source}-{i}" for i in (1, 2, 3, 4)]
    assert sum(r.hops for r in four[:4]) == one[0].hops
