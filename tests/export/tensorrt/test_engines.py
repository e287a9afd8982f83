"""python -m export.tensorrt: engines come into the bundle by their key, proven, and once."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import msgspec
import numpy as np
import pytest

from export.tensorrt import engines
from export.tensorrt.__main__ import main
from export.tensorrt.build import Settings
from export.tensorrt.engines import Order, build_engines, note, proof
from export.tensorrt.graphs import Run, on_cpu
from export.tensorrt.parity import difference
from robult_edge import bundle, nvidia, signature
from robult_edge.bundle import Engine, Manifest
from robult_edge.errors import EngineError
from robult_edge.golden import graphs
from robult_edge.nvidia import Gpu
from tests.conftest import ROOT

RTX3060 = nvidia.target("rtx", "1.7.1.116", Gpu("8.6", ""))
ORDER = Order(RTX3060, "fp32", Settings(compute_capability="8.6"))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Engines that are the graphs themselves; the list grows with every build."""
    built: list[bytes] = []

    def build(trt: object, model: bytes, settings: Settings) -> bytes:
        built.append(model)
        return model

    monkeypatch.setattr(engines, "build", build)
    return built


def fill(path: Path, order: Order = ORDER, runner: Callable[[bytes], Run] | None = None) -> list:
    return build_engines(path, ModuleType("tensorrt"), order, runner, lambda line: None)


def all_engines(manifest: Manifest) -> list[Engine]:
    return [e for graph in (*manifest.branches, manifest.head) for e in graph.engines]


def plans(path: Path) -> set[str]:
    return {file.name for file in path.glob("*.plan")}


def test_real_engines_are_found_by_their_key(rtx: ModuleType, copied: Path) -> None:
    assert main(["--bundle", str(copied.parent), "--flavour", "rtx", "--target", "sm86"]) == 0
    found = bundle.load(copied)
    here = nvidia.target("rtx", rtx.__version__, Gpu("8.6", "RTX 3060"))
    for graph in (*found.manifest.branches, found.manifest.head):
        engine = nvidia.find(graph.engines, graph.onnx.sha256, "fp32", here)
        assert engine is not None
        assert engine.batch == (1, 1, 64)
        assert found.file(engine.plan).read_bytes()[:4] == b"vtrt"


def test_what_is_up_to_date_is_not_built_again(copied: Path, fake: list[bytes]) -> None:
    assert fill(copied) == []
    before = (copied / bundle.MANIFEST).read_bytes()
    assert len(fake) == 3
    assert fill(copied) == []
    assert len(fake) == 3
    assert (copied / bundle.MANIFEST).read_bytes() == before


def test_another_target_or_precision_stands_beside(copied: Path, fake: list[bytes]) -> None:
    other = nvidia.target("rtx", "1.7.1.116", Gpu("12.0", ""))
    for order in (ORDER, Order(other, "fp32", Settings(compute_capability="12.0"))):
        fill(copied, order)
    fill(copied, Order(RTX3060, "fp16", ORDER.settings))
    manifest = bundle.load(copied).manifest
    for graph in (*manifest.branches, manifest.head):
        kinds = [(e.compute_capability, e.precision) for e in graph.engines]
        assert kinds == [("8.6", "fp32"), ("12.0", "fp32"), ("8.6", "fp16")]
    assert plans(copied) == {engine.plan.file for engine in all_engines(manifest)}


def test_another_batch_range_replaces_the_engine_and_its_file(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "build", lambda trt, model, settings: str(settings).encode())
    fill(copied)
    before = plans(copied)
    fill(copied, Order(RTX3060, "fp32", Settings(batch=(1, 8, 16), compute_capability="8.6")))
    found = all_engines(bundle.load(copied).manifest)
    assert [engine.batch for engine in found] == [(1, 8, 16)] * 3
    assert plans(copied) == {engine.plan.file for engine in found}
    assert not before & plans(copied)


def test_a_graph_that_cannot_be_built_leaves_the_others_whole(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = (copied / "acc.onnx").read_bytes()

    def build(trt: object, model: bytes, settings: Settings) -> bytes:
        if model == bad:
            raise EngineError("no engine can be built: out of memory")
        return model

    monkeypatch.setattr(engines, "build", build)
    assert fill(copied) == ["acc.onnx, fp32: no engine can be built: out of memory"]
    manifest = bundle.load(copied).manifest
    assert [len(g.engines) for g in (*manifest.branches, manifest.head)] == [0, 1, 1]
    assert proof(copied, ORDER, on_cpu) is None


def test_a_graph_that_cannot_be_converted_is_one_sentence(copied: Path, fake: list[bytes]) -> None:
    manifest = bundle.load(copied).manifest
    file = bundle.write_bytes(copied / "acc.onnx", b"not a graph")
    acc = msgspec.structs.replace(manifest.branches[0], onnx=file)
    bundle.write_manifest(
        copied, msgspec.structs.replace(manifest, branches=(acc, *manifest.branches[1:]))
    )
    (failure,) = fill(copied, Order(RTX3060, "fp16", ORDER.settings))
    assert failure.startswith("acc.onnx, fp16: the graph cannot be converted: ")
    assert "\n" not in failure


def test_a_full_disk_leaves_the_bundle_as_it_was(
    copied: Path, fake: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError("no space left on device")

    before = bundle.load(copied).manifest
    monkeypatch.setattr("robult_edge.bundle.os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        fill(copied)
    assert bundle.load(copied).manifest == before


def test_an_engine_of_a_graph_exported_anew_meanwhile_is_not_noted(copied: Path) -> None:
    old = graphs(bundle.load(copied))[0]
    manifest = bundle.load(copied).manifest
    shutil.copy(copied / "gyro.onnx", copied / "acc.onnx")
    acc = msgspec.structs.replace(manifest.branches[0], onnx=bundle.reference(copied / "acc.onnx"))
    newer = msgspec.structs.replace(manifest, branches=(acc, *manifest.branches[1:]))
    bundle.write_manifest(copied, newer)
    with pytest.raises(EngineError, match="exported anew meanwhile"):
        note(copied, old, ORDER, b"engine")
    assert not plans(copied)


def test_an_engine_that_runs_is_proven_over_every_subset(copied: Path, fake: list[bytes]) -> None:
    assert fill(copied, runner=on_cpu) == []
    report = proof(copied, ORDER, on_cpu)
    assert report is not None
    assert list(report.graphs) == ["acc", "gyro", "fusion head"]
    assert list(report.fused) == list(report.agreement) == ["acc", "gyro", "acc+gyro"]
    assert all(d.max_rel < 1e-5 for d in (*report.graphs.values(), *report.fused.values()))
    assert set(report.agreement.values()) == {1.0}
    assert len(str(report).splitlines()) == 7


def lying(plan: bytes) -> Run:
    run = on_cpu(plan)
    return lambda *arrays: [out + 0.1 * np.abs(out).max() for out in run(*arrays)]


def test_an_engine_off_its_golden_vectors_is_not_kept(copied: Path, fake: list[bytes]) -> None:
    failures = fill(copied, runner=lying)
    assert len(failures) == 3
    assert all("off its golden vectors by 0.1" in failure for failure in failures)
    assert all_engines(bundle.load(copied).manifest) == []
    assert not plans(copied)


def test_a_fault_shows_in_the_report(copied: Path, fake: list[bytes]) -> None:
    fill(copied)
    report = proof(copied, ORDER, lying)
    assert report is not None
    assert all(d.max_rel > 0.05 for d in report.graphs.values())
    assert report.fused["acc+gyro"].max_abs > 0


def test_a_difference_is_told_in_quantiles() -> None:
    want = np.zeros((1, 1000), np.float32)
    got = want.copy()
    got[0, :2] = 8
    d = difference([got], [want + 0.5])
    assert (d.max_abs, d.max_rel, d.median, d.p99) == (7.5, 7.5, 0.5, 0.5)
    assert difference([np.full((1, 2), np.nan)], [np.ones((1, 2))]).max_abs == np.inf


REFUSED = [
    ([], "no CUDA driver here .*; name the GPUs to build for, e.g. --target sm86"),
    (["--target", "sm87"], "builds for sm75, .*, not for sm87"),
    (
        ["--target", "sm86", "--timing-cache", "t"],
        "--timing-cache: not to be had with",
    ),
    (["--target", "sm86", "--hardware-compatible", "same"], "--hardware-compatible: .* leave"),
    (["--target", "sm86", "--version-compatible"], "--version-compatible: .* leave it out"),
    (["--target", "sm86", "--batch", "8", "4"], r"batch is \(1, 8, 4\); it must rise"),
]


@pytest.mark.parametrize(("arguments", "says"), REFUSED)
def test_what_cannot_be_had_is_one_sentence(
    rtx: ModuleType,
    copied: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    says: str,
) -> None:
    def no_gpu() -> Gpu:
        raise EngineError("no CUDA driver here (libcuda.so.1 cannot be loaded)")

    monkeypatch.setattr(nvidia, "gpu", no_gpu)
    assert main(["--bundle", str(copied), "--flavour", "rtx", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert re.search(says, said)


def test_turing_in_fp32_fails_graph_by_graph(
    rtx: ModuleType, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--bundle", str(copied), "--flavour", "rtx", "--target", "sm75"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in lines] == [
        "acc.onnx, fp32", "gyro.onnx, fp32", "fusion.onnx, fp32"
    ]  # fmt: skip
    assert all("FP32 GEMM is not supported" in line for line in lines)


def test_a_machine_that_cannot_run_the_engines_says_that_nothing_was_checked(
    rtx: ModuleType,
    copied: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nvidia, "gpu", lambda: Gpu("12.0", "RTX 5090"))
    assert main(["--bundle", str(copied), "--flavour", "rtx", "--target", "sm86"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        "parity with the golden vectors was not checked: the GPU here is no sm86 but a RTX 5090"
    )


@pytest.fixture
def orin(rtx: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Jetson, as far as the command can tell; TensorRT for RTX stands in for its TensorRT."""
    monkeypatch.setattr(nvidia, "gpu", lambda: Gpu("8.7", "Orin"))
    monkeypatch.setattr(nvidia, "library", lambda flavour: rtx)


@pytest.mark.parametrize(
    ("arguments", "compute_capability", "device"),
    [
        ([], "8.7", "Orin"),
        (["--hardware-compatible", "same"], "8.7", ""),
        (["--hardware-compatible", "ampere+"], "8.0+", ""),
    ],
)
@pytest.mark.usefixtures("orin")
def test_on_a_device_engines_are_for_that_device(
    rtx: ModuleType, copied: Path, arguments: list[str], compute_capability: str, device: str
) -> None:
    assert main(["--bundle", str(copied), *arguments]) == 0
    here = nvidia.target("trt", rtx.__version__, Gpu("8.7", "Orin"))
    manifest = bundle.load(copied).manifest
    for graph in (*manifest.branches, manifest.head):
        engine = nvidia.find(graph.engines, graph.onnx.sha256, "fp32", here)
        assert engine is not None
        assert (engine.compute_capability, engine.device) == (compute_capability, device)
        assert engine.platform == nvidia.here()


@pytest.mark.usefixtures("orin")
def test_on_a_device_another_target_is_refused(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--bundle", str(copied), "--target", "sm86"]) == 2
    assert "--target: TensorRT builds for the GPU that it runs on" in capsys.readouterr().err


def test_it_runs_where_nothing_but_numpy_msgspec_and_tensorrt_is(
    rtx: ModuleType, copied: Path
) -> None:
    heavy = ("torch", "onnx", "onnxruntime", "scipy", "sklearn", "rich")
    command = (
        f"import sys; sys.modules.update(dict.fromkeys({heavy!r})); "
        "from export.tensorrt.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    call = [sys.executable, "-W", "error", "-c", command, "--bundle", str(copied)]
    done = subprocess.run(
        [*call, "--flavour", "rtx", "--target", "sm86"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert len(all_engines(bundle.load(copied).manifest)) == 3
    done = subprocess.run(
        [*call, "--flavour", "rtx", "--target", "sm86", "--precision", "fp16"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 2
    assert "onnx is not installed; mend: pip install 'robult-edge[rtx]'" in done.stderr


def test_a_damaged_engine_is_built_again(fake: list[bytes], copied: Path) -> None:
    fill(copied)
    acc, gyro, _ = all_engines(bundle.load(copied).manifest)
    (copied / acc.plan.file).unlink()
    (copied / gyro.plan.file).write_bytes(b"half a cop")
    fake.clear()
    assert fill(copied) == []
    assert len(fake) == 2
    found = bundle.load(copied)
    assert [found.flaw(engine) for engine in bundle.engines(found.manifest)] == [None] * 3
    assert plans(copied) == {e.plan.file for e in bundle.engines(found.manifest)}


def test_who_builds_into_a_signed_bundle_is_told_how_to_sign_it_again(
    fake: list[bytes],
    copied: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    library = ModuleType("tensorrt_rtx")
    library.__version__ = "1.7.1.116"  # type: ignore[attr-defined]
    library.ComputeCapability = SimpleNamespace(__members__={"SM86": 0})  # type: ignore[attr-defined]
    monkeypatch.setattr(nvidia, "library", lambda _flavour: library)
    build = ["--bundle", str(copied), "--flavour", "rtx", "--target", "sm86", "--precision"]
    again = "sign it again: python -m export.sign --bundle"
    assert main([*build, "fp32"]) == 0
    assert again not in capsys.readouterr().out, "it was never signed"
    (copied / signature.SIGNATURE).write_text("00" * 64)
    assert main([*build, "fp32"]) == 0
    assert again not in capsys.readouterr().out, "nothing has changed"
    assert main([*build, "fp16"]) == 0
    assert f"{again} {copied} --key SECRET\n" in capsys.readouterr().out
