"""runtime.reload: another bundle between two turns; a bad one is refused, and the old one stays."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from export import sign
from robult_edge import bundle, subsets
from robult_edge.bundle import Bundle, Manifest
from robult_edge.frames import Frame
from runtime import reload as reload_module
from runtime.reload import Reload
from runtime.rigs import Rigs
from tests.runtime.live import START_NS, Stage, staged

WARM_UP = 6


@pytest.fixture
def copy(shipped: Bundle, tmp_path: Path) -> Bundle:
    """The shipped bundle, in a place where it may change."""
    shutil.copytree(shipped.path, tmp_path / "engines")
    return bundle.load(tmp_path)


@pytest.fixture
def stage(copy: Bundle, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    with staged(copy, monkeypatch, "cpu") as stage:
        assert stage.play(WARM_UP)[-1].alive == ["acc", "gyro"]
        yield stage


def change(copy: Bundle, **fields: object) -> None:
    """Write another manifest, called ``next``, over the bundle's."""
    bundle.write_manifest(copy.path, msgspec.structs.replace(copy.manifest, name="next", **fields))


def change_gyro(copy: Bundle, **fields: object) -> None:
    acc, gyro = copy.manifest.modalities
    change(copy, modalities=(acc, msgspec.structs.replace(gyro, **fields)))


def reloaded(stage: Stage) -> Reload:
    """Ask for a reload, and turn the loop until it is over."""
    future = stage.server.reloader.start("test")
    assert future is not None
    while not future.done():
        stage.server.turn(0.001)
    return future.result()


def test_answers_go_on_from_the_new_bundle_without_a_hole(stage: Stage, copy: Bundle) -> None:
    change(copy)
    seq = stage.latest.seq
    assert stage.latest.bundle == copy.manifest.name
    outcome = reloaded(stage)
    assert (outcome.ok, outcome.bundle, outcome.error) == (True, "next", None)
    answers = stage.play(3)
    assert [a.seq for a in answers] == [seq + 1, seq + 2, seq + 3]
    assert {a.bundle for a in answers} == {"next"}
    assert all(a.alive == ["acc", "gyro"] for a in answers), "their windows outlive the bundle"


def test_sensor_whose_spec_changed_starts_anew_and_the_others_do_not(
    stage: Stage, copy: Bundle
) -> None:
    change_gyro(copy, timeout_s=3.0)
    reloaded(stage)
    (answer,) = stage.play(1)
    assert answer.alive == ["acc"]
    assert answer.modalities["gyro"].state == "absent"
    assert stage.play(WARM_UP)[-1].alive == ["acc", "gyro"]


def test_tick_that_is_half_in_rests_on_the_new_bundle_alone_and_keeps_its_deadline(
    stage: Stage, copy: Bundle
) -> None:
    rig = stage.server.rigs.rigs["rig"]
    stage.hear(only="acc")
    stage.server.turn()
    assert rig.tick.mask == 0b01
    deadline_ns = rig.due_ns
    change(copy)
    reloaded(stage)
    assert rig.due_ns == deadline_ns
    assert rig.tick.mask == 0b01, "its window was taken from the ring again"
    stage.clock.now = deadline_ns
    stage.server.turn()
    assert (stage.latest.bundle, stage.latest.alive) == ("next", ["acc"])


def halved(copy: Bundle) -> None:
    graph = copy.file(copy.manifest.branches[1].onnx)
    graph.write_bytes(graph.read_bytes()[: graph.stat().st_size // 2])


def without_manifest(copy: Bundle) -> None:
    (copy.path / bundle.MANIFEST).unlink()


def with_another_graph(copy: Bundle) -> None:
    """Whole, signed off by its checksums, and wrong: a branch in place of another."""
    acc, gyro = copy.manifest.branches
    change(copy, branches=(acc, msgspec.structs.replace(gyro, onnx=acc.onnx)))


def with_other_golden_vectors(copy: Bundle) -> None:
    arrays = {name: a + np.float32(0.1) for name, a in copy.golden().items()}
    change(copy, golden=bundle.write_arrays(copy.path / "golden.npz", arrays))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (halved, "gyro.onnx: sha256 is"),
        (without_manifest, "no manifest.json there"),
        (with_another_graph, "acc.onnx: no backend runs it (cpu: off its golden vectors by"),
        (with_other_golden_vectors, "acc.onnx: no backend runs it (cpu: off its golden vectors by"),
    ],
)
def test_bad_bundle_is_refused_and_the_old_one_goes_on(
    stage: Stage, copy: Bundle, damage: Callable[[Bundle], None], sentence: str
) -> None:
    before = stage.server.serving
    damage(copy)
    outcome = reloaded(stage)
    assert not outcome.ok
    assert outcome.error is not None
    assert sentence in outcome.error
    assert stage.server.reloader.last is outcome
    assert stage.server.reloader.counts == {"ok": 0, "refused": 1}
    assert stage.server.serving is before
    answer = stage.play(1)[0]
    assert (answer.bundle, answer.alive) == (copy.manifest.name, ["acc", "gyro"])


def test_one_reload_at_a_time(stage: Stage) -> None:
    first = stage.server.reloader.start("test")
    assert stage.server.reloader.start("test") is None
    while first and not first.done():
        stage.server.turn(0.001)
    assert reloaded(stage).ok


def test_loop_that_does_not_turn_is_not_reloaded_behind_its_back(
    stage: Stage, copy: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reload_module, "SWAP_S", 0.0)
    change(copy)
    future = stage.server.reloader.start("test")
    assert future is not None
    outcome = future.result(20)
    assert outcome.error == "the loop has not turned for 0 s; see /livez, and reload again"
    assert stage.play(1)[0].bundle == copy.manifest.name


def with_sensors(manifest: Manifest, *names: str) -> Manifest:
    """The bundle's manifest for fewer of its sensors, or for others of its kinds."""
    kind = manifest.modalities[0]
    table = tuple(
        msgspec.structs.replace(
            manifest.tables["mean"][0],
            alive=tuple(names[i] for i in subsets.members(mask)),
            weights=(1 / len(names),) * len(names),
        )
        for mask in subsets.all_subsets(len(names))
    )
    return msgspec.structs.replace(
        manifest,
        modalities=tuple(msgspec.structs.replace(kind, name=name) for name in names),
        branches=tuple(
            msgspec.structs.replace(manifest.branches[0], modality=name) for name in names
        ),
        tables={"pool": table, "mean": table},
    )


def test_sensors_that_come_and_go_with_a_bundle(shipped: Bundle) -> None:
    rigs = Rigs(with_sensors(shipped.manifest, "acc", "gyro"), max_sources=4)
    rig = rigs.place(_frame(shipped, "gyro"), START_NS)
    rig.seq = 41
    gyro = rig.streams[1]
    rigs.adopt(with_sensors(shipped.manifest, "mic", "gyro", "mag"), 4, START_NS)
    assert [s.spec.name for s in rig.streams] == ["mic", "gyro", "mag"]
    assert rig.streams[1] is gyro, "whatever its place is now"
    assert rig.tick.logits.shape == (3, len(shipped.manifest.classes))
    assert rig.seq == 41
    rigs.adopt(with_sensors(shipped.manifest, "mic"), 4, START_NS)
    assert rigs.ended["gyro"] == {"fresh": 1}, "counts of what is gone never go down"


def test_other_hop_begins_a_new_grid_in_the_future(shipped: Bundle) -> None:
    rigs = Rigs(with_sensors(shipped.manifest, "acc", "gyro"), max_sources=4)
    rig = rigs.place(_frame(shipped, "gyro"), START_NS)
    before = shipped.manifest.modalities[0]
    doubled = msgspec.structs.replace(before, hop=2 * before.hop)
    names = [msgspec.structs.replace(doubled, name=name) for name in ("acc", "gyro")]
    now_ns = rig.tick.end_ns + 1
    rigs.adopt(msgspec.structs.replace(shipped.manifest, modalities=tuple(names)), 4, now_ns)
    assert rig.hop_ns == 2 * shipped.manifest.hop_ns
    assert rig.tick.end_ns % rig.hop_ns == 0
    assert now_ns < rig.tick.end_ns <= now_ns + rig.hop_ns


def _frame(shipped: Bundle, modality: str) -> Frame:
    m = shipped.manifest.modalities[0]
    samples = np.zeros((m.hop, len(m.channels)), np.float32)
    return Frame(modality, "rig", 0, START_NS, samples)


def test_bundle_with_larger_frames_than_the_socket_takes_is_refused(
    stage: Stage, copy: Bundle
) -> None:
    stage.server.largest_part_bytes = 100
    change(copy)
    outcome = reloaded(stage)
    assert outcome.error is not None
    assert "more than the 100 that this server listens for; restart it" in outcome.error
    assert stage.play(1)[0].bundle == copy.manifest.name


def test_where_a_key_is_configured_a_reload_wants_the_signature_too(
    copy: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "maker"
    sign.main(["--new-key", "--key", str(key)])
    sign.main(["--bundle", str(copy.path), "--key", str(key)])
    with staged(copy, monkeypatch, "cpu", bundle_key=f"{key}.pub") as stage:
        stage.play(WARM_UP)
        change(copy)
        refused = reloaded(stage)
        assert refused.error is not None
        assert "sign" in refused.error
        sign.main(["--bundle", str(copy.path), "--key", str(key)])
        assert reloaded(stage).ok
        assert stage.play(1)[0].bundle == "next"
