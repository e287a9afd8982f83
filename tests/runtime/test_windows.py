"""runtime.windows: whatever becomes of its frames, a ring gives whole windows or none."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from robult_edge.frames import Frame
from robult_edge.modality import ModalitySpec
from runtime.windows import ClockMap, Placed, SampleRing

PERIOD_NS = 10_000_000
START_NS = 1_700_000_000_000_000_000
WINDOW, HOP = 50, 5
MEND = 2
"""Four per cent of a window: the longest hole that is bridged."""
SPEC = ModalitySpec(
    name="acc", channels=("x", "y"), unit="g", rate_hz=100.0, window=WINDOW, hop=HOP, timeout_s=1.0
)
CAPACITY = SPEC.capacity


def values(count: int, first: int = 0) -> np.ndarray:
    """Samples [count, 2] that follow no line, so that a bridge shows."""
    j = np.arange(first, first + count)
    return np.stack([np.sin(1.7 * j), np.cos(0.9 * j * j)], 1).astype(np.float32)


def frame(first: int, count: int, jitter: float = 0.0, at: int | None = None) -> Frame:
    """A frame of samples ``first`` on; captured when sample ``at`` (itself) should be."""
    t_ns = START_NS + round(((first if at is None else at) + jitter) * PERIOD_NS)
    return Frame("acc", "rig", 0, t_ns, values(count, first))


def ring_after(*frames: Frame) -> tuple[SampleRing, list[Placed]]:
    ring = SampleRing(SPEC)
    return ring, [ring.place(f) for f in frames]


class Model:
    """The same promises, kept by a dictionary from sample index to value."""

    def __init__(self) -> None:
        self.samples: dict[int, np.ndarray] = {}
        self.newest = -1
        self.shift = 0

    def place(self, first: int, samples: np.ndarray) -> Placed:
        """``first`` counts periods since START_NS; held samples are kept by the ring's index."""
        if self.newest < 0:
            self.shift = -first
        first += self.shift
        expected = self.newest + 1
        ahead, behind = first > expected + CAPACITY, first < expected - CAPACITY
        if ahead or behind:
            self.samples.clear()
            self.shift += expected + CAPACITY - first
            self._take(expected + CAPACITY, samples)
            return "gap" if ahead else "clock step"
        if first + len(samples) <= expected:
            oldest = self.newest - CAPACITY + 1
            new = [
                i for i in range(first, first + len(samples))
                if i >= oldest and i not in self.samples
            ]  # fmt: skip
            self._take(first, samples)
            return "late" if new else "duplicate"
        skip = max(0, expected - first)
        self._take(first + skip, samples[skip:])
        return "gap" if first - expected > MEND else "fresh"

    def _take(self, first: int, samples: np.ndarray) -> None:
        for i, sample in enumerate(samples, first):
            self.samples.setdefault(i, sample)
        self.newest = max(self.newest, first + len(samples) - 1)

    def window(self, end: int) -> tuple[bool | None, np.ndarray | None]:
        """Whether the window is whole (None: a hole at the ring's edge decides), and its samples.

        Short holes lie on the line between what surrounds them.
        """
        first, oldest = end - WINDOW + 1, max(0, self.newest - CAPACITY + 1)
        if first < oldest:
            return False, None
        held = sorted(i for i in self.samples if i >= 0)
        whole: bool | None = True
        line = {}
        for before, after in pairwise(held):
            if after <= first:
                continue
            if after - before - 1 > MEND:
                return False, None
            if before < oldest and after > before + 1:
                whole = None
            for i in range(before + 1, after):
                share = (i - before) / (after - before)
                line[i] = self.samples[before] * (1 - share) + self.samples[after] * share
        if held[0] > first:
            return False, None
        known = {**self.samples, **line}
        return whole, np.stack([known[i] for i in range(first, end + 1)])


step = st.tuples(
    st.integers(1, 8),  # samples in the frame
    st.sampled_from([0] * 12 + [1, 2, 3, 9, 40, 300, -20, -300]),  # samples skipped before it
    st.sampled_from(["sent"] * 8 + ["lost", "twice"]),
    st.sampled_from([0] * 6 + [1, 3, 10]),  # frames that overtake it
    st.floats(-0.1, 0.1),  # jitter, samples
)


SENT = (8, 0, "sent", 0, 0.0)


@settings(max_examples=400, deadline=None)
@given(st.lists(step, min_size=1, max_size=90), st.integers(0, CAPACITY + 10))
@example([SENT] * 90, CAPACITY - WINDOW)
@example([SENT] * 90, CAPACITY - WINDOW + 1)
@example([SENT] * 40 + [(1, 0, "lost", 0, 0.0)] + [SENT] * 9, 9)
# Five samples are lost in a row; the middle one comes late and leaves two holes of two.
@example(
    [SENT] * 30
    + [(2, 0, "lost", 0, 0.0), (1, 0, "sent", 3, 0.0), (2, 0, "lost", 0, 0.0)]
    + [SENT] * 9,
    0,
)
def test_a_ring_keeps_what_a_dictionary_would(
    steps: list[tuple[int, int, str, int, float]], back: int
) -> None:
    sent: list[tuple[int, int, int, float]] = []
    taken, moment = 0, 0
    for position, (count, skip, fate, delay, jitter) in enumerate(steps):
        moment += skip
        for copy in range({"lost": 0, "sent": 1, "twice": 2}[fate]):
            sent.append((position + delay + 2 * copy, taken, moment, jitter))
        taken, moment = taken + count, moment + count
    ring, model = SampleRing(SPEC), Model()
    counts = dict(zip(np.cumsum([0, *(s[0] for s in steps)]).tolist(), steps, strict=False))
    for _, first, at, jitter in sorted(sent, key=lambda s: s[0]):
        count = counts[first][0]
        placed = ring.place(frame(first, count, jitter, at))
        assert placed == model.place(at, values(count, first))
        assert ring.newest == model.newest
        for end in {ring.newest, max(ring.newest - back, 0)}:
            whole, want = model.window(end)
            has = ring.has_window(end)
            assert whole is None or has == whole
            if has:
                assert want is not None
                np.testing.assert_allclose(ring.window(end).T, want, atol=1e-5)


@settings(max_examples=100, deadline=None)
@given(st.permutations(range(0, CAPACITY, 5)))
def test_frames_in_any_order_make_every_window_from_the_first_that_came(order: list[int]) -> None:
    ring, _ = ring_after(*(frame(first, 5) for first in order))
    for end in range(order[0] + WINDOW - 1, CAPACITY):
        index = end - order[0]  # the first sample that came is sample 0
        assert ring.has_window(index)
        np.testing.assert_array_equal(ring.window(index).T, values(WINDOW, end - WINDOW + 1))


def test_frames_in_order_make_every_window() -> None:
    ring = SampleRing(SPEC)
    for first in range(0, 5 * CAPACITY, 7):
        assert ring.place(frame(first, 7)) == "fresh"
        assert ring.has_window(ring.newest) == (ring.newest >= WINDOW - 1)
        if ring.has_window(ring.newest):
            window = ring.window(ring.newest)
            assert window.shape == SPEC.window_shape
            np.testing.assert_array_equal(window.T, values(WINDOW, ring.newest - WINDOW + 1))


def test_a_window_across_the_rings_seam_is_one_view_without_a_copy() -> None:
    ring, _ = ring_after(*(frame(first, 8) for first in range(0, CAPACITY + 24, 8)))
    window = ring.window(ring.newest)
    assert window.base is not None
    assert (ring.newest % CAPACITY) < WINDOW
    np.testing.assert_array_equal(window.T, values(WINDOW, ring.newest - WINDOW + 1))


def test_the_largest_frame_allowed_fills_the_ring() -> None:
    ring, placed = ring_after(frame(0, 30), frame(30, CAPACITY))
    assert placed == ["fresh", "fresh"]
    np.testing.assert_array_equal(ring.samples(30, ring.newest), values(CAPACITY, 30))


@pytest.mark.parametrize("hole", range(1, MEND + 1))
def test_a_short_hole_is_bridged_by_a_straight_line(hole: int) -> None:
    ring, placed = ring_after(frame(0, 60), frame(60 + hole, 5))
    assert placed == ["fresh", "fresh"]
    assert ring.has_window(ring.newest)
    a, b = values(1, 59)[0], values(1, 60 + hole)[0]
    line = [a + (b - a) * i / (hole + 1) for i in range(hole + 2)]
    np.testing.assert_allclose(ring.samples(59, 60 + hole), line, atol=1e-6)


def test_a_long_hole_restarts_the_window() -> None:
    lost = 60 + MEND + 1
    ring, placed = ring_after(frame(0, 60), frame(lost, 5))
    assert placed == ["fresh", "gap"]
    assert ring.oldest_solid == lost
    ring.place(frame(lost + 5, WINDOW - 6))
    assert not ring.has_window(ring.newest)
    ring.place(frame(lost + WINDOW - 1, 1))
    assert ring.has_window(ring.newest)


def test_a_late_frame_mends_its_hole() -> None:
    ring, placed = ring_after(frame(0, 60), frame(65, 5), frame(60, 5))
    assert placed == ["fresh", "gap", "late"]
    assert ring.has_window(ring.newest)
    np.testing.assert_array_equal(ring.window(ring.newest).T, values(WINDOW, 70 - WINDOW))


def test_a_late_frame_replaces_the_bridge() -> None:
    ring, placed = ring_after(frame(0, 60), frame(62, 5), frame(60, 2))
    assert placed == ["fresh", "fresh", "late"]
    np.testing.assert_array_equal(ring.samples(58, 64), values(7, 58))


def test_a_hole_made_short_by_a_late_frame_holds_a_line_and_nothing_old() -> None:
    laps = [frame(first, 8) for first in range(0, 2 * CAPACITY, 8)]
    end = 2 * CAPACITY
    ring, placed = ring_after(*laps, frame(end + 5, 8), frame(end + 2, 1))
    assert placed[-2:] == ["gap", "late"]
    assert ring.has_window(ring.newest)
    for before in (end - 1, end + 2):
        a, b = values(1, before)[0], values(1, before + 3)[0]
        line = [a, a + (b - a) / 3, a + (b - a) * 2 / 3, b]
        np.testing.assert_allclose(ring.samples(before, before + 3), line, atol=1e-5)


def test_what_is_left_of_a_long_hole_at_the_rings_edge_is_not_taken_for_a_short_one() -> None:
    before, after = range(0, 160, 8), range(168, 280, 8)
    ring, placed = ring_after(
        *(frame(first, 8) for first in (*before, *after)), frame(281, 5), frame(280, 1)
    )
    assert placed[-1] == "late"
    edge = ring.newest - CAPACITY + 1
    assert edge == 166  # of the hole, samples 166 and 167 are left
    assert not ring.has_window(edge + WINDOW - 1)
    assert not ring.has_window(edge + WINDOW)
    assert ring.has_window(edge + WINDOW + 1)


def test_a_hole_at_the_seam_is_forgotten_when_the_next_lap_fills_it() -> None:
    before, after = range(0, CAPACITY, 6), range(CAPACITY + 6, 2 * CAPACITY - 6, 6)
    ring, _ = ring_after(*(frame(first, 6) for first in (*before, *after)))
    across = frame(2 * CAPACITY - 6, 12)
    assert [ring.place(across), ring.place(across)] == ["fresh", "duplicate"]


def test_a_frame_again_is_a_duplicate_and_changes_nothing() -> None:
    again = Frame("acc", "rig", 9, START_NS + 10 * PERIOD_NS, np.full((5, 2), 77, np.float32))
    ring, placed = ring_after(frame(0, 60), again)
    assert placed == ["fresh", "duplicate"]
    np.testing.assert_array_equal(ring.samples(0, 59), values(60))


def test_a_frame_that_overlaps_the_last_adds_only_what_is_new() -> None:
    ring, placed = ring_after(frame(0, 60), frame(55, 10))
    assert placed == ["fresh", "fresh"]
    np.testing.assert_array_equal(ring.samples(50, 64), values(15, 50))


def test_the_oldest_frame_kept_is_still_known_to_be_a_duplicate() -> None:
    frames = [frame(first, 8) for first in range(0, 2 * CAPACITY, 8)]
    ring, placed = ring_after(*frames, frame(CAPACITY, 8))
    assert placed[-1] == "duplicate"
    np.testing.assert_array_equal(ring.window(ring.newest).T, values(WINDOW, 240 - WINDOW))


@pytest.mark.parametrize(
    ("samples", "becomes"),
    [
        (CAPACITY + 1, "gap"),
        (1_000_000, "gap"),
        (-2 * CAPACITY, "clock step"),
        (-(10**9), "clock step"),
    ],
)
def test_a_jump_longer_than_the_ring_starts_the_window_anew(samples: int, becomes: Placed) -> None:
    ring, _ = ring_after(frame(0, 100))
    before = ring.newest
    assert ring.place(frame(100, 10, at=100 + samples)) == becomes
    assert ring.newest > before + CAPACITY
    assert not ring.has_window(ring.newest)
    for first in range(110, 150, 10):
        assert ring.place(frame(first, 10, at=first + samples)) == "fresh"
    assert ring.has_window(ring.newest)
    np.testing.assert_array_equal(ring.window(ring.newest).T, values(WINDOW, 100))


def test_a_restarted_sender_keeps_nothing_of_the_old() -> None:
    ring, _ = ring_after(frame(0, 100))
    assert ring.restart(frame(0, 10)) == "clock step"
    assert ring.oldest_solid == ring.newest - 9
    np.testing.assert_array_equal(ring.samples(ring.newest - 9, ring.newest), values(10))


@pytest.mark.parametrize("ppm", [-2000, 2000])
def test_a_sensor_that_samples_a_little_fast_or_slow_is_followed(ppm: int) -> None:
    ring = SampleRing(SPEC)
    for first in range(0, 100_000, 10):
        stamp = START_NS + round(first * PERIOD_NS * (1 + ppm * 1e-6))
        assert ring.place(Frame("acc", "rig", 0, stamp, values(10, first))) == "fresh"
    assert ring.newest == 99_999


@pytest.mark.parametrize("index", [0, 1, 99, 12_345])
def test_index_and_time_undo_each_other(index: int) -> None:
    ring, _ = ring_after(frame(0, 100))
    at = ring.time_of(index)
    assert at == START_NS + index * PERIOD_NS
    assert ring.index_at(at) == ring.index_at(at + PERIOD_NS - 1) == index
    assert ring.index_at(at - 1) == index - 1


def test_an_image_is_a_window_of_its_own() -> None:
    camera = ModalitySpec(
        name="cam", channels=("r",), unit="1", rate_hz=10.0, window=1, hop=1, timeout_s=1.0,
        size=(2, 3),
    )  # fmt: skip
    ring = SampleRing(camera)
    images = np.arange(24, dtype=np.float32).reshape(4, 1, 2, 3)
    assert ring.place(Frame("cam", "rig", 0, START_NS, images)) == "fresh"
    for i in range(4):
        assert ring.has_window(i)
        np.testing.assert_array_equal(ring.window(i), images[i])


SECOND = 1_000_000_000


def offset_errors_ms(sender_ns: object, seconds: int = 60, seed: int = 0) -> list[float]:
    """How far the map is off, per frame, under random network delays of 1 to 40 ms."""
    assert callable(sender_ns)
    rng, clock, errors = np.random.default_rng(seed), ClockMap(), []
    for i in range(seconds * 20):
        captured = START_NS + i * SECOND // 20
        received = captured + int(rng.uniform(1e6, 40e6))
        clock.observe(sender_ns(captured), received)
        errors.append((sender_ns(captured) + clock.offset_ns - captured) / 1e6)
    return errors


@pytest.mark.parametrize("skew_s", [0, 3600, -3600, -1_700_000_000])
def test_a_skewed_clock_is_mapped_to_within_the_least_delay(skew_s: int) -> None:
    errors = offset_errors_ms(lambda t: t + skew_s * SECOND)
    assert all(1 <= e < 3 for e in errors[100:])


@pytest.mark.parametrize("ppm", [-200, 200])
def test_a_drifting_clock_is_followed(ppm: int) -> None:
    errors = offset_errors_ms(lambda t: t + (t - START_NS) * ppm // 1_000_000, seconds=300)
    # In ten seconds, the span that is looked at, the clock drifts two milliseconds.
    assert all(-1.5 <= e < 5 for e in errors[200:])


def test_after_a_step_and_a_reset_the_first_frame_is_enough() -> None:
    clock = ClockMap()
    clock.observe(1000, 5000)
    assert clock.offset_ns == 4000
    clock.reset()
    clock.observe(9_000_000, 5500)
    assert clock.offset_ns == 5500 - 9_000_000


def test_a_step_that_nobody_tells_is_forgotten_after_the_span() -> None:
    clock = ClockMap()
    clock.observe(0, 10)
    late = 2 * ClockMap.SPAN_NS
    for t in range(0, late, ClockMap.SPAN_NS // 8):
        clock.observe(t - 5 * SECOND, t + 10)
    assert clock.offset_ns == 5 * SECOND + 10
