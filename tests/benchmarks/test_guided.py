"""benchmarks.guided: what it starts from, how bytes become messages, and that it finds a fault."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import fuzz, guided, messages
from robult_edge.bundle import Bundle
from runtime.ingest import Ingest
from runtime.rigs import Rigs

PARTS = st.lists(st.binary(max_size=40), min_size=1, max_size=messages.MOST_PARTS)


@given(st.lists(st.tuples(st.integers(0, 65535), PARTS)))
def test_messages_survive_being_one_string(given_: list[tuple[int, list[bytes]]]) -> None:
    assert list(messages.unpack(messages.pack(given_))) == given_


@given(st.binary(max_size=300))
def test_any_bytes_are_messages(data: bytes) -> None:
    assert all(1 <= len(parts) <= messages.MOST_PARTS for _, parts in messages.unpack(data))


def test_it_starts_from_frames_that_are_accepted_and_frames_that_are_not(shipped: Bundle) -> None:
    ingest, sent = Ingest(shipped.manifest.modalities), 0
    for seed in guided.seeds():
        for _, parts in messages.unpack(seed):
            ingest.read(parts)
            sent += 1
    assert sent == guided.SEEDS * guided.IN_A_ROW
    assert ingest.received >= sent / 2
    assert len(ingest.rejected) >= 5


def test_without_atheris_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(guided, "find_spec", lambda _: None)
    monkeypatch.setattr("sys.argv", ["guided"])
    assert guided.main() == 0
    assert "pip install 'robult-edge[fuzz]'" in capsys.readouterr().out


def test_a_second_of_it_finds_nothing(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="no atheris here: pip install 'robult-edge[fuzz]'")
    figures, said = guided.guided(1, tmp_path)
    assert figures["failures"] == 0, said
    assert figures["inputs"] > guided.SEEDS
    assert figures["branches_covered"] > 100


def test_a_message_that_changes_another_sensor_is_told(
    shipped: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What both fuzzers rest on, with an ingest that mixes sensors up."""
    rigs, ingest = Rigs(shipped.manifest, 4), Ingest(shipped.manifest.modalities)
    random = Random(1)
    for seq in range(40):
        parts = fuzz.honest(random, shipped.manifest, seq, fuzz.START_NS + seq)
        assert fuzz.keeps_to_itself(ingest, rigs, parts, fuzz.START_NS + seq)
    place = Rigs.place

    def also_elsewhere(self, frame, now_ns):
        for stream in next(iter(self.rigs.values())).streams:
            stream.counts["fresh"] += 1
        return place(self, frame, now_ns)

    monkeypatch.setattr(Rigs, "place", also_elsewhere)
    parts = fuzz.honest(random, shipped.manifest, 40, fuzz.START_NS + 40)
    assert not fuzz.keeps_to_itself(ingest, rigs, parts, fuzz.START_NS + 40)
