"""runtime.doctor: says what is here and what is missing, and dies of none of it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from robult_edge import bundle, nvidia
from robult_edge.bundle import Bundle, Engine
from robult_edge.nvidia import Gpu
from runtime import checkup, config, doctor
from runtime.checkup import Finding
from runtime.config import Config
from tests.conftest import ROOT
from tests.runtime.test_jetson import nvpmodel, orin


def ask(*options: str | Path, prelude: str = "") -> tuple[int, dict[str, Any]]:
    """Exit status and report of a doctor in a process of its own.

    Args:
        options: of the command line.
        prelude: Python that runs before it.
    """
    code = f"{prelude}\nimport sys; from runtime.doctor import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, options), "--json"],
        capture_output=True, text=True, cwd=ROOT, timeout=60,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout)


def states(report: dict[str, Any], topic: str) -> dict[str, str]:
    """State by name of one topic's findings."""
    return {f["name"]: f["state"] for f in report["findings"] if f["topic"] == topic}


def find(findings: list[Finding], topic: str, name: str) -> Finding:
    (found,) = [f for f in findings if (f.topic, f.name) == (topic, name)]
    return found


@pytest.fixture
def copy(shipped: Bundle, tmp_path: Path) -> Path:
    """The shipped bundle, to be harmed."""
    return Path(shutil.copytree(shipped.path, tmp_path / "engines"))


def test_the_shipped_bundle_can_be_served_here() -> None:
    code, report = ask()
    assert code == 0
    assert report["servable"]
    assert states(report, "serving") == {
        "acc": "ok",
        "gyro": "ok",
        "fusion head": "ok",
        "all on the GPU": "lacking",
    }
    assert states(report, "packages").keys() == {*checkup.CORE, "providers", "compiled helper"}
    for f in report["findings"]:
        if f["topic"] == "onnxruntime-cpu":
            assert f["numbers"]["deviation"] < 1e-3
            assert 0 < f["numbers"]["median_us"] <= f["numbers"]["p99_us"]


def test_what_is_lacking_comes_with_what_to_do() -> None:
    _, report = ask()
    lacking = [f for f in report["findings"] if f["state"] == "lacking"]
    assert "signature" in {f["name"] for f in lacking}
    assert [f["name"] for f in lacking if not f["mend"]] == []


def test_the_terminal_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["--engines", str(ROOT / "export")]) == 0
    shown = capsys.readouterr().out
    assert "\n  ok  numpy " in shown
    assert shown.endswith("can be served here\n")


@pytest.mark.parametrize(
    ("file", "harm", "says"),
    [
        ("acc.onnx", lambda f: f.write_bytes(b"no graph"), "acc.onnx: sha256"),
        ("acc.onnx", Path.unlink, "acc.onnx: missing"),
        ("manifest.json", Path.unlink, "no manifest.json"),
        ("manifest.json", lambda f: f.write_text("{"), "not JSON"),
    ],
)
def test_a_broken_bundle_cannot_be_served(file: str, harm: Any, says: str, copy: Path) -> None:
    harm(copy / file)
    code, report = ask("--engines", copy)
    assert code == 1
    assert not report["servable"]
    (said,) = [f["said"] for f in report["findings"] if f["state"] == "broken"]
    assert says in said


def replace_graph(folder: Path, content: bytes) -> None:
    """Exchange the accelerometer's graph for another, and have the manifest vouch for it."""
    manifest = bundle.load(folder).manifest
    graph = bundle.write_bytes(folder / "acc.onnx", content)
    acc = msgspec.structs.replace(manifest.branches[0], onnx=graph)
    branches = (acc, *manifest.branches[1:])
    bundle.write_manifest(folder, msgspec.structs.replace(manifest, branches=branches))


def test_a_branch_that_no_backend_runs_cannot_be_served(copy: Path) -> None:
    replace_graph(copy, b"no graph")
    code, report = ask("--engines", copy)
    assert code == 1
    assert states(report, "serving") == {"acc": "broken", "gyro": "ok", "fusion head": "ok"}


def test_a_graph_off_its_golden_vectors_is_found(copy: Path) -> None:
    manifest = bundle.load(copy).manifest
    arrays = bundle.load(copy).golden()
    arrays["logits.acc"] = arrays["logits.acc"] + np.float32(1)
    arrays["head"] = arrays["head"] + np.float32(1)
    golden = bundle.write_arrays(copy / "golden.npz", arrays)
    bundle.write_manifest(copy, msgspec.structs.replace(manifest, golden=golden))
    code, report = ask("--engines", copy)
    assert code == 1
    assert states(report, "serving") == {"acc": "broken", "gyro": "ok", "fusion head": "lacking"}
    off = {f["name"]: f for f in report["findings"] if f["topic"] == "onnxruntime-cpu"}
    assert off["acc"]["numbers"]["deviation"] > 1e-3


@pytest.mark.parametrize("module", list(checkup.CORE.values()))
def test_a_missing_package_is_a_finding(module: str) -> None:
    code, report = ask(prelude=f"import sys; sys.modules[{module!r}] = None")
    assert code == 1
    broken = [name for name, state in states(report, "packages").items() if state == "broken"]
    assert module in [checkup.CORE[name] for name in broken]


def test_an_uncompiled_hot_path_is_lacking_and_no_obstacle() -> None:
    code, report = ask(prelude="import sys; sys.modules['robult_edge._native'] = None")
    assert code == 0
    assert states(report, "packages")["compiled helper"] == "lacking"


def test_a_tensorrt_that_crashes_at_import_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "tensorrt.py").write_text("raise RuntimeError('libnvinfer\\nis of another time')")
    code, report = ask(prelude=f"import sys; sys.path.insert(0, {str(tmp_path)!r})")
    assert code == 0
    (said,) = [f["said"] for f in report["findings"] if f["name"] == "tensorrt"]
    assert said == "cannot be imported (libnvinfer is of another time)"


def test_a_check_that_fails_is_a_finding_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> Any:
        raise OSError("out of sockets")
        yield

    monkeypatch.setattr(checkup, "ports", fail)
    found = list(checkup.examine(str(ROOT / "export")))
    assert find(found, "ports", "unexpected").said == "OSError: out of sockets"
    assert find(found, "serving", "acc").state == "ok"


def test_a_port_in_use_is_found_and_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setattr(config, "Config", partial(Config, frames=address))
        found = list(checkup.ports())
    assert [f.state for f in found if f.name == "frames"] == ["lacking"]
    assert "--frames ADDRESS" in found[0].mend


def test_a_jetsons_power_and_clocks_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvpmodel(tmp_path, monkeypatch, "NV Power Mode: 15W\\n0\\n")
    found = list(checkup.machine(orin(tmp_path)))
    assert find(found, "machine", "jetson linux").said == "R36.4.0"
    assert find(found, "machine", "power mode").said == "15W (0)"
    assert find(found, "machine", "17000000.gpu").state == "ok"
    assert "jetson_clocks" in find(found, "machine", "policy0").mend


def test_engines_for_here_are_told_from_others(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        __version__ = "10.3.0"

    monkeypatch.setattr(nvidia, "gpu", lambda: Gpu("8.7", "Orin"))
    monkeypatch.setattr(nvidia, "library", lambda _flavour: Library)
    here = nvidia.target("trt", "10.3.0", Gpu("8.7", "Orin"))
    other = msgspec.structs.replace(here, tensorrt="10.7.0", device="Orin Nano")
    manifest = bundle.load(copy).manifest
    acc = manifest.branches[0]
    engines = tuple(
        Engine(
            plan=bundle.write_bytes(copy / f"{i}.plan", b"plan"),
            key=nvidia.key(acc.onnx.sha256, "fp16", target),
            precision="fp16", batch=(1, 1, 8), **msgspec.structs.asdict(target),
        )
        for i, target in enumerate((here, other))
    )  # fmt: skip
    branches = (msgspec.structs.replace(acc, engines=engines), *manifest.branches[1:])
    bundle.write_manifest(copy, msgspec.structs.replace(manifest, branches=branches))
    found = [f for f in checkup.examine(str(copy)) if f.topic == "engines"]
    assert [(f.state, f.said) for f in found] == [
        ("ok", "0.plan: fp16, for this machine"),
        ("lacking", "1.plan: tensorrt 10.7.0, here 10.3.0; device Orin Nano, here Orin"),
    ]


def test_a_signature_is_checked_where_a_key_is_given(copy: Path, tmp_path: Path) -> None:
    signature = pytest.importorskip("robult_edge.signature")
    public = signature.new_key(tmp_path / "maker")
    code, report = ask("--engines", copy, "--bundle-key", public)
    assert code == 1
    signed = signature.sign((copy / bundle.MANIFEST).read_bytes(), tmp_path / "maker")
    (copy / signature.SIGNATURE).write_bytes(signed)
    code, report = ask("--engines", copy, "--bundle-key", public)
    assert (code, states(report, "bundle")["signature"]) == (0, "ok")
    _, report = ask("--engines", copy)
    assert states(report, "bundle")["signature"] == "lacking"
