"""docs/SECURITY.md does what it says, and nothing anywhere opens a pickle."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from robult_edge import bundle
from robult_edge.bundle import Bundle
from robult_edge.curve import read_key
from robult_edge.data import pickled
from robult_edge.data.pickled import STAND_INS
from tests.conftest import ROOT

PACKAGES = ("robult_edge", "runtime", "train", "export", "benchmarks", "examples")
KNOWN_BYTES = "robult_edge/data/watch.py"
"""A data set that comes as a pickle; it is opened only if its sha256 is the known one."""
RESTRICTED = "robult_edge/data/pickled.py"
"""The one reader of other pickles: with stand-ins for all that they may call."""


def test_every_command_of_the_page_does_what_it_says(shipped: Bundle, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "SECURITY.md").read_text()
    blocks = re.findall(r"^```bash\n(.*?)^```$", page, re.M | re.S)
    shutil.copytree(shipped.path, tmp_path / "export" / "engines")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-ec", "".join(blocks)], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert bundle.load(tmp_path / "export", tmp_path / "maker.pub").manifest == shipped.manifest
    allowed = {f.stem for f in (tmp_path / "keys" / "runtime" / "clients").iterdir()}
    assert allowed == {"wrist-1", "dashboard"}
    for name in allowed:
        public, secret = read_key(tmp_path / "keys" / name / f"{name}.key_secret")
        assert secret
        assert (public, None) == read_key(tmp_path / f"keys/runtime/clients/{name}.key")
    assert len((tmp_path / "token").read_text().strip()) == 64


SOURCES = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize("file", SOURCES, ids=lambda f: str(f.relative_to(ROOT)))
def test_no_pickle_is_opened(file: Path) -> None:
    tree = ast.parse(file.read_text())
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else
                     [alias.name for alias in node.names])
    }  # fmt: skip
    if str(file.relative_to(ROOT)) == RESTRICTED:
        used = [n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)
                and ast.unparse(n.value) == "pickle"]  # fmt: skip
        assert set(used) == {"Unpickler", "UnpicklingError"}
        assert used.count("Unpickler") == 1  # the base of the one that finds stand-ins alone
        assert {stand_in.__module__ for stand_in in STAND_INS.values()} == {pickled.__name__}
        return
    assert not imported & {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal"}
    if str(file.relative_to(ROOT)) == KNOWN_BYTES:
        assert "if digest != SHA256:" in file.read_text()
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("np.load", "torch.load"):
            said = {k.arg: ast.unparse(k.value) for k in node.keywords}
            assert said.get("allow_pickle") == "False" or said.get("weights_only") == "True", (
                f"{file}:{node.lineno}"
            )
