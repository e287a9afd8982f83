"""robult_edge.bundle: a bundle is whole, understood and unchanged, or refused in one sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from robult_edge import bundle, plausibility, subsets
from robult_edge.bundle import (
    Branch,
    Bundle,
    Engine,
    FileRef,
    Head,
    Manifest,
    Measured,
    SubsetEntry,
    find,
    load,
)
from robult_edge.errors import BundleError, RobultError
from robult_edge.modality import ModalitySpec

NAMES = ("acc", "gyro")
SCORES = Measured(
    accuracy=0.8, balanced_accuracy=0.8, macro_f1=0.8, ece=0.02, coverage=0.9, set_size=1.5, n=90
)


def entry(mask: int) -> SubsetEntry:
    alive = tuple(NAMES[i] for i in subsets.members(mask))
    return SubsetEntry(
        alive=alive, uses=alive, weights=(0.5, 0.5), head_weight=0.0, threshold=0.1, expected=SCORES
    )


def modality(name: str) -> ModalitySpec:
    return ModalitySpec(
        name=name, channels=("x",), unit="g", rate_hz=50.0, window=50, hop=25, timeout_s=1.0
    )


def write(path: Path) -> Path:
    """A bundle whose graphs are no graphs, but whose manifest is a manifest."""
    path.mkdir(parents=True)
    refs = {}
    for name in ("acc.onnx", "gyro.onnx", "head.onnx", "acc.plan"):
        (path / name).write_bytes(name.encode())
        refs[name] = bundle.reference(path / name)
    golden = bundle.write_arrays(path / "golden.npz", {"x.acc": np.ones((2, 1, 50), np.float32)})
    engine = Engine(
        plan=refs["acc.plan"], key="0" * 64, flavour="trt", tensorrt="10.3",
        platform="linux-aarch64", compute_capability="8.7", device="Orin", precision="fp16",
        batch=(1, 1, 8),
    )  # fmt: skip
    table = tuple(entry(mask) for mask in subsets.all_subsets(2))
    manifest = Manifest(
        format=bundle.FORMAT,
        name="demo",
        task="classification",
        classes=("rest", "walk"),
        modalities=tuple(map(modality, NAMES)),
        width=4,
        branches=(
            Branch(modality="acc", onnx=refs["acc.onnx"], temperature=1.0, engines=(engine,)),
            Branch(modality="gyro", onnx=refs["gyro.onnx"], temperature=1.2),
        ),
        head=Head(onnx=refs["head.onnx"], temperature=1.0),
        tables={"pool": table, "mean": table},
        coverage=0.9,
        conflict=0.3,
        golden=golden,
        provenance={"seed": 1},
    )
    bundle.write_manifest(path, manifest)
    return path


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return write(tmp_path / "engines")


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest as JSON."""
    file = path / bundle.MANIFEST
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def refusal(path: Path) -> str:
    with pytest.raises(BundleError) as refused:
        load(path)
    text = str(refused.value)
    assert isinstance(refused.value, RobultError)
    assert "\n" not in text
    return text


def test_a_whole_bundle_is_loaded(whole: Path) -> None:
    got = load(whole)
    assert got.path == whole
    assert got.manifest.names == NAMES
    assert got.manifest.hop_ns == 500_000_000
    assert got.file(got.manifest.head.onnx).read_bytes() == b"head.onnx"
    np.testing.assert_array_equal(got.golden()["x.acc"], np.ones((2, 1, 50)))


def test_the_bundle_that_is_shipped_is_whole(shipped: Bundle) -> None:
    names = shipped.manifest.names
    assert {f"x.{name}" for name in names} <= shipped.golden().keys()
    assert shipped.manifest.entry("pool", subsets.full(len(names))).alive == names


@pytest.mark.parametrize(("mask", "alive"), [(1, ("acc",)), (2, ("gyro",)), (3, ("acc", "gyro"))])
def test_a_subset_is_looked_up_by_its_mask(whole: Path, mask: int, alive: tuple[str, ...]) -> None:
    assert load(whole).manifest.entry("pool", mask).alive == alive


def test_the_directory_or_its_parent_may_be_named(whole: Path) -> None:
    assert find(whole) == find(whole.parent) == find(str(whole.parent)) == whole


def test_a_directory_without_a_manifest_is_refused_with_the_command_that_makes_one(
    whole: Path,
) -> None:
    (whole / bundle.MANIFEST).unlink()
    text = refusal(whole.parent)
    assert text.startswith(f"{whole.parent}: no manifest.json there or in {whole}; make a bundle")
    assert "python -m export RUN --out DIR" in text


@pytest.mark.parametrize("name", ["acc.onnx", "gyro.onnx", "head.onnx", "golden.npz"])
def test_a_missing_file_is_named(whole: Path, name: str) -> None:
    (whole / name).unlink()
    assert refusal(whole) == f"{whole / name}: missing; copy the whole bundle again"


@pytest.mark.parametrize("name", ["acc.onnx", "gyro.onnx", "head.onnx", "golden.npz"])
def test_a_file_that_changed_is_named_with_both_hashes(whole: Path, name: str) -> None:
    said = bundle.sha256(whole / name)
    with (whole / name).open("ab") as file:
        file.write(b"!")
    got = bundle.sha256(whole / name)
    assert refusal(whole) == (
        f"{whole / name}: sha256 is {got[:12]}…, the manifest says {said[:12]}…; "
        "copy the whole bundle again"
    )


@pytest.mark.parametrize(
    ("harm", "says"),
    [(Path.unlink, "missing"), (lambda f: f.write_bytes(b"another"), "sha256 is")],
)
def test_an_engine_that_is_not_as_it_was_is_never_read_and_the_bundle_is_loaded(
    whole: Path, harm: Any, says: str
) -> None:
    (engine,) = bundle.engines(load(whole).manifest)
    assert load(whole).plan(engine) == b"acc.plan"
    assert load(whole).flaw(engine) is None
    harm(whole / "acc.plan")
    found = load(whole)
    flaw = found.flaw(engine)
    assert flaw is not None
    assert flaw.startswith(f"{whole / 'acc.plan'}: {says}")
    assert flaw.endswith("; build it again with python -m export.tensorrt")
    with pytest.raises(BundleError, match=says):
        found.plan(engine)


def test_an_engine_that_changes_after_the_bundle_was_loaded_is_not_read_either(
    whole: Path,
) -> None:
    found = load(whole)
    (engine,) = bundle.engines(found.manifest)
    assert found.flaw(engine) is None
    (whole / "acc.plan").write_bytes(b"another")
    with pytest.raises(BundleError, match="sha256 is"):
        found.plan(engine)


def test_an_engine_outside_the_bundle_is_no_engine(whole: Path) -> None:
    edit(whole, lambda m: m["branches"][0]["engines"][0]["plan"].update(file="../acc.plan"))
    assert refusal(whole).endswith("file '../acc.plan' lies outside the bundle")


def test_a_directory_in_a_files_place_is_a_missing_file(whole: Path) -> None:
    (whole / "acc.onnx").unlink()
    (whole / "acc.onnx").mkdir()
    assert "acc.onnx: missing" in refusal(whole)


@pytest.mark.parametrize("file", ["../acc.onnx", "/etc/passwd", "sub/acc.onnx", "./acc.onnx", "."])
def test_a_file_outside_the_bundle_is_never_opened(whole: Path, file: str) -> None:
    shutil.copy(whole / "acc.onnx", whole.parent / "acc.onnx")
    edit(whole, lambda m: m["branches"][0]["onnx"].update(file=file))
    assert refusal(whole).endswith(f"file {file!r} lies outside the bundle")


@pytest.mark.parametrize("file", ["", ".."])
def test_a_name_that_is_no_file_is_refused(whole: Path, file: str) -> None:
    edit(whole, lambda m: m["golden"].update(file=file))
    assert "missing" in refusal(whole)


@pytest.mark.parametrize("version", [0, 2, 99, "1", None])
def test_another_version_is_refused_by_name(whole: Path, version: Any) -> None:
    edit(whole, lambda m: m.update(format=version, something_new=True))
    assert refusal(whole) == (
        f"{whole / bundle.MANIFEST}: format is {version!r}, this version reads 1; "
        "upgrade robult-edge or export the bundle again"
    )


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"not JSON", b"[]", b"null", b"\xff\xfe", b'{"format": 1', b'{"a": "\xff"}'],
)
def test_a_manifest_that_is_not_json_is_refused(whole: Path, raw: bytes) -> None:
    (whole / bundle.MANIFEST).write_bytes(raw)
    text = refusal(whole)
    assert text.startswith(f"{whole / bundle.MANIFEST}: not JSON (")
    assert text.endswith("; export the bundle again")


def drop(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda m: m.pop(key)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: m.update(colour="red"), "unknown field `colour`"),
        (lambda m: m["head"].update(colour="red"), "unknown field `colour`"),
        (lambda m: m["modalities"][0].update(colour="red"), "unknown field `colour`"),
        (drop("classes"), "missing required field `classes`"),
        (drop("golden"), "missing required field `golden`"),
        (lambda m: m.update(width="4"), "Expected `int`, got `str`"),
        (lambda m: m.update(task="ranking"), "Invalid enum value 'ranking'"),
        (lambda m: m.update(task="regression"), "0 scales for regression of ('rest', 'walk')"),
        (lambda m: m.update(task="multilabel"), "tables.pool: expected must hold micro_f1 for mul"),
        (lambda m: m["tables"]["mean"][1]["expected"].pop("accuracy"), "must hold accuracy for cl"),
        (lambda m: m["tables"]["pool"][2].update(half_widths=[1.0]), "half_widths must be one num"),
        (lambda m: m["modalities"][0].update(window=0), "window is 0; it must be above 0"),
        (lambda m: m["modalities"][1].update(hop=50), "modalities hop apart (acc 0.5 s, gyro 1 s)"),
        (lambda m: m["branches"].reverse(), "branches ['gyro', 'acc'] are not ('acc', 'gyro')"),
        (lambda m: m["branches"].pop(), "branches ['acc'] are not ('acc', 'gyro')"),
        (lambda m: m.update(modalities=[], branches=[]), "0 modalities; 1 to 12 are served"),
        (lambda m: m.update(tables={}), "tables.pool must hold the subsets acc, gyro, acc+gyro"),
        (lambda m: m["tables"].pop("mean"), "tables.mean must hold the subsets acc, gyro, acc+"),
        (lambda m: m["tables"]["pool"].pop(), "tables.pool must hold the subsets"),
        (lambda m: m["tables"]["mean"].reverse(), "tables.mean must hold the subsets"),
        (lambda m: m["tables"]["pool"][0].update(alive=["gyro"]), "tables.pool must hold"),
        (lambda m: m["tables"]["pool"][1].update(weights=[1.0]), "weights must be one number per"),
        (lambda m: m["tables"].update(best=[]), "Invalid enum value 'best'"),
    ],
)  # fmt: skip
def test_a_manifest_that_contradicts_itself_is_refused(
    whole: Path, change: Callable[[dict[str, Any]], object], says: str
) -> None:
    edit(whole, change)
    text = refusal(whole)
    assert says in text
    assert text.startswith(f"{whole / bundle.MANIFEST}: ")
    assert text.endswith("; export the bundle again")


def test_a_manifest_survives_being_written_and_read(whole: Path) -> None:
    before = load(whole).manifest
    bundle.write_manifest(whole, before)
    assert load(whole).manifest == before


def test_the_manifest_is_replaced_in_one_step(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (whole / bundle.MANIFEST).read_bytes()
    renamed = msgspec.structs.replace(load(whole).manifest, name="newer")

    def full_disk(_: int) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("robult_edge.bundle.os.fsync", full_disk)
        with pytest.raises(OSError, match="no space"):
            bundle.write_manifest(whole, renamed)
    assert (whole / bundle.MANIFEST).read_bytes() == before
    bundle.write_manifest(whole, renamed)
    assert load(whole).manifest.name == "newer"
    assert not list(whole.glob("*.new"))


def test_every_file_that_the_manifest_names_is_listed_once(whole: Path) -> None:
    listed = [ref.file for ref in bundle.files(load(whole).manifest)]
    there = {file.name for file in whole.iterdir()} - {bundle.MANIFEST}
    assert sorted(listed) == sorted(there)


def test_the_shipped_bundle_knows_what_training_windows_look_like(shipped: Bundle) -> None:
    usual = shipped.usual()
    assert set(usual) == set(shipped.manifest.names)
    for known in usual.values():
        assert 0 < known.limits[0] < known.limits[1]


def test_looks_of_other_channels_are_refused_by_name(whole: Path) -> None:
    looks = {f"acc.{field}": np.ones((2, 7), np.float32) for field in plausibility.FIELDS}
    ref = bundle.write_arrays(whole / "usual.npz", looks)
    edit(whole, lambda m: m.update(usual={"file": ref.file, "sha256": ref.sha256}))
    with pytest.raises(BundleError, match=r"usual\.npz: acc does not fit"):
        load(whole).usual()


def test_a_bundle_without_looks_still_loads(whole: Path) -> None:
    assert load(whole).usual() == {}


def test_golden_vectors_never_run_code(whole: Path) -> None:
    np.savez(whole / "golden.npz", evil=np.array([print], dtype=object))
    edit(whole, lambda m: m["golden"].update(sha256=bundle.sha256(whole / "golden.npz")))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        load(whole).golden()


def test_a_reference_is_the_bare_name_and_the_hash(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert bundle.reference(tmp_path / "a") == FileRef(file="a", sha256=digest)


def test_the_shipped_graphs_carry_no_trace_of_where_they_were_made(shipped: Bundle) -> None:
    for ref in bundle.files(shipped.manifest):
        content = shipped.file(ref).read_bytes()
        for trace in (b"stack_trace", b".py", b"site-packages"):
            assert trace not in content, ref.file


def test_a_classification_manifest_has_no_keys_of_other_tasks(whole: Path) -> None:
    """So that a version that knows no other task reads it."""
    content = json.loads((whole / bundle.MANIFEST).read_text())
    assert "scales" not in content
    for row in content["tables"]["pool"]:
        assert "half_widths" not in row
        assert row["expected"].keys() == {
            "accuracy", "balanced_accuracy", "macro_f1", "ece", "coverage", "set_size", "n",
        }  # fmt: skip
