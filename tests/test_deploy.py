"""deploy/: the images copy what exists and install what is declared; the unit is one."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path

import pytest

from runtime import serve
from tests.conftest import ROOT

if sys.version_info >= (3, 11):
    import tomllib as toml
else:
    import tomli as toml

IMAGES = sorted((ROOT / "deploy").glob("Dockerfile.*"))
UNIT = ROOT / "deploy" / "robult-edge.service"
EXTRAS = toml.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
KNOWN = {
    "FROM", "RUN", "COPY", "ENV", "USER", "HEALTHCHECK", "ENTRYPOINT", "CMD",
}  # fmt: skip


def instructions(image: Path) -> list[tuple[str, str]]:
    """Name and text of each instruction, comments and continued lines resolved."""
    lines = [line for line in image.read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line]  # type: ignore


def of(image: Path, name: str) -> list[str]:
    """The texts of every instruction of that name."""
    return [text for each, text in instructions(image) if each == name]


@pytest.mark.parametrize("image", IMAGES, ids=lambda f: f.name)
class TestImage:
    def test_begins_with_a_base_of_a_fixed_version_and_has_known_instructions(
        self, image: Path
    ) -> None:
        assert instructions(image)[0][0] == "FROM"
        assert {name for name, _ in instructions(image)} <= KNOWN
        for base in of(image, "FROM"):
            assert re.fullmatch(r"[\w./-]+:[\w.-]*\d[\w.-]*( AS build)?", base)

    def test_copies_what_is_there_and_is_sent_to_the_builder(self, image: Path) -> None:
        sent = {
            line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines()
            if line.startswith("!")
        }  # fmt: skip
        for text in of(image, "COPY"):
            if text.startswith("--from=build "):
                continue
            *sources, _ = text.split()
            for source in sources:
                assert (ROOT / source).exists(), source
                assert Path(source).parts[0] in sent, source

    def test_copies_all_that_its_install_needs(self, image: Path) -> None:
        copied = {source for text in of(image, "COPY") for source in text.split()[:-1]}
        assert {"pyproject.toml", "README.md", "LICENSE", "robult_edge", "runtime"} <= copied

    def test_installs_extras_that_are_declared(self, image: Path) -> None:
        (install,) = (run for run in of(image, "RUN") if "/pip install --no-cache-dir /src" in run)
        (asked,) = re.findall(r"/src(?:\[([\w,-]+)\])?(?=\s|$)", install)
        assert set(filter(None, asked.split(","))) <= set(EXTRAS)

    def test_does_not_serve_as_root(self, image: Path) -> None:
        order = [name for name, _ in instructions(image)]
        assert order.index("USER") < order.index("ENTRYPOINT")
        assert of(image, "USER") == ["robult"]
        assert any("useradd --system" in run and run.endswith("robult") for run in of(image, "RUN"))

    def test_asks_livez_for_its_health(self, image: Path) -> None:
        (check,) = of(image, "HEALTHCHECK")
        command = toml.loads(f"c = {check.partition('CMD ')[2]}")["c"]
        compile(command[2], "healthcheck", "exec")
        assert "http://127.0.0.1:8555/livez" in command[2]

    def test_serves_by_options_that_exist(self, image: Path) -> None:
        (entry,), (options,) = of(image, "ENTRYPOINT"), of(image, "CMD")
        assert toml.loads(f"e = {entry}")["e"] == ["python", "-m", "runtime.serve"]
        assert serve.parse(toml.loads(f"o = {options}")["o"]).engines == "/bundle"

    def test_names_no_host_but_its_base_images(self, image: Path) -> None:
        assert re.findall(r"https?://([\w.-]+)", image.read_text()) == ["127.0.0.1"]


def unit() -> RawConfigParser:
    parser = RawConfigParser(strict=True)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(UNIT)
    return parser


def test_the_unit_serves_and_waits_for_ready() -> None:
    service = unit()["Service"]
    _, _, module, *options = shlex.split(service["ExecStart"])
    assert module == "runtime.serve"
    assert serve.parse([o for o in options if o != "$ROBULT_OPTIONS"]).engines
    assert service["Type"] == "notify"
    assert service["Restart"] == "always"
    assert service["RestartPreventExitStatus"] == "2"  # what runtime.serve says of bad settings
    assert float(service["WatchdogSec"]) > 1


@pytest.mark.parametrize("setting", ["PrivateDevices", "ProtectClock", "MemoryDenyWriteExecute"])
def test_the_unit_leaves_the_gpu_within_reach(setting: str) -> None:
    assert setting not in unit()["Service"]


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    here = tmp_path / UNIT.name
    here.write_text(UNIT.read_text().replace("/opt/robult-edge/bin/python", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", here], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_command_of_the_jetson_page_is_one() -> None:
    page = (ROOT / "docs" / "JETSON.md").read_text()
    for module in {*re.findall(r"python3? -m ((?:runtime|export)[\w.]*)", page)}:
        done = subprocess.run(
            [sys.executable, "-m", module, "--help"], capture_output=True, cwd=ROOT
        )
        assert done.returncode == 0, module
    for file in re.findall(r"\bdeploy/[\w.-]+", page):
        assert (ROOT / file.rstrip(".")).exists(), file
    for extra in re.findall(r"\.\[([\w,-]+)\]", page):
        assert set(extra.split(",")) <= set(EXTRAS), extra
