"""runtime.enginecache: engines for a bundle that must not change; none that others put there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec
import pytest

from robult_edge import bundle
from robult_edge.bundle import Bundle
from robult_edge.errors import EngineError
from runtime import enginecache
from tests.runtime.test_tensorrt import give_engines


@pytest.fixture
def served(shipped: Bundle, tmp_path: Path) -> Bundle:
    """The shipped bundle, in a place where it could change."""
    shutil.copytree(shipped.path, tmp_path / "engines")
    return bundle.load(tmp_path)


@pytest.fixture
def filled(served: Bundle, tmp_path: Path) -> Path:
    """A cache with an engine of each graph."""
    cache = enginecache.prepare(served, tmp_path / "cache")
    give_engines(cache)
    return cache


def engines(found: Bundle) -> list[str]:
    return [engine.plan.file for engine in bundle.engines(found.manifest)]


def test_engines_of_the_cache_are_the_bundles(served: Bundle, filled: Path) -> None:
    joined = enginecache.joined(served, filled)
    assert engines(joined) == ["acc.plan", "gyro.plan", "fusion.plan"]
    assert [joined.flaw(engine) for engine in bundle.engines(joined.manifest)] == [None] * 3
    assert engines(served) == []
    assert not list(served.path.glob("*.plan"))


def test_nothing_but_engines_is_taken_from_it(served: Bundle, filled: Path) -> None:
    manifest = bundle.load(filled).manifest
    bundle.write_manifest(filled, msgspec.structs.replace(manifest, name="another", coverage=0.1))
    (filled / "golden.npz").write_bytes((served.path / "golden.npz").read_bytes())
    joined = enginecache.joined(served, filled)
    assert joined.path == served.path
    assert joined.manifest.name == served.manifest.name
    assert joined.manifest.coverage == served.manifest.coverage
    assert joined.file(joined.manifest.golden).parent == served.path


def test_an_engine_of_another_graph_is_not_taken(served: Bundle, filled: Path) -> None:
    acc, *others = served.manifest.branches
    other = bundle.write_bytes(served.path / "acc.onnx", b"exported anew")
    branches = (msgspec.structs.replace(acc, onnx=other), *others)
    manifest = msgspec.structs.replace(served.manifest, branches=branches)
    bundle.write_manifest(served.path, manifest)
    assert engines(enginecache.joined(bundle.load(served.path), filled)) == [
        "gyro.plan",
        "fusion.plan",
    ]


def test_a_damaged_engine_is_not_read(served: Bundle, filled: Path) -> None:
    (filled / "acc.plan").write_bytes(b"another")
    joined = enginecache.joined(served, filled)
    flaws = [joined.flaw(engine) for engine in bundle.engines(joined.manifest)]
    assert [flaw is None for flaw in flaws] == [False, True, True]


def for_others(cache: Path, _: pytest.MonkeyPatch) -> None:
    cache.chmod(0o777)


def for_the_group(cache: Path, _: pytest.MonkeyPatch) -> None:
    cache.chmod(0o770)


def of_another(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = cache.stat().st_uid
    os.chown(cache, 4711, -1) if owner == 0 else monkeypatch.setattr("os.geteuid", lambda: 4711)


@pytest.mark.parametrize(
    ("become", "says"),
    [
        (for_others, "may be written by others; mend: chmod go-w"),
        (for_the_group, "may be written by others; mend: chmod go-w"),
        (of_another, "belongs to another user"),
    ],
)
def test_what_others_may_have_put_there_is_left_alone(
    served: Bundle,
    filled: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    become,
    says: str,
) -> None:
    become(filled, monkeypatch)
    assert enginecache.joined(served, filled) == served
    assert says in caplog.text
    with pytest.raises(EngineError, match=says):
        enginecache.prepare(served, filled)


def test_a_cache_that_is_not_there_yet_is_empty(served: Bundle, tmp_path: Path) -> None:
    assert enginecache.joined(served, tmp_path / "none") == served


def test_a_broken_cache_is_left_out(
    served: Bundle, filled: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (filled / bundle.MANIFEST).write_text("{")
    assert enginecache.joined(served, filled) == served
    assert "is left out" in caplog.text
    assert engines(bundle.load(enginecache.prepare(served, filled))) == []


def test_it_is_its_owners_alone(served: Bundle, tmp_path: Path) -> None:
    cache = enginecache.prepare(served, tmp_path / "new" / "cache")
    assert cache.stat().st_mode & 0o777 == 0o700


def test_what_it_has_of_the_same_bundle_stays_and_of_another_goes(
    served: Bundle, filled: Path
) -> None:
    enginecache.prepare(served, filled)
    assert engines(bundle.load(filled)) == ["acc.plan", "gyro.plan", "fusion.plan"]
    (filled / "mine.txt").write_text("not the bundle's")
    newer = msgspec.structs.replace(served.manifest, name="newer")
    bundle.write_manifest(served.path, newer)
    enginecache.prepare(bundle.load(served.path), filled)
    assert bundle.load(filled).manifest.name == "newer"
    assert not list(filled.glob("*.plan"))
    assert (filled / "mine.txt").exists()


def test_a_cache_that_cannot_be_made_is_one_sentence(served: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EngineError, match=r"file/cache cannot be filled: Not a directory"):
        enginecache.prepare(served, tmp_path / "file" / "cache")
