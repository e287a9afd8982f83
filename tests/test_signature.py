"""robult_edge.signature, export.sign: a bundle is what its maker signed, or it is not served."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from export import sign
from robult_edge import bundle, signature
from robult_edge.bundle import Bundle
from robult_edge.errors import BundleError, MissingExtraError, RobultError
from tests.runtime.test_tensorrt import give_engines


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A secret key; its public half lies beside it."""
    assert sign.main(["--new-key", "--key", str(tmp_path / "maker")]) == 0
    return tmp_path / "maker"


@pytest.fixture
def signed(shipped: Bundle, tmp_path: Path, key: Path) -> Path:
    shutil.copytree(shipped.path, tmp_path / "engines")
    assert sign.main(["--bundle", str(tmp_path), "--key", str(key)]) == 0
    return tmp_path / "engines"


def test_a_signed_bundle_is_loaded_with_the_public_key_and_without(signed: Path, key: Path) -> None:
    public = f"{key}.pub"
    assert bundle.load(signed, public).manifest == bundle.load(signed).manifest
    assert len((signed / signature.SIGNATURE).read_bytes()) == 129


def test_a_secret_key_is_its_owners_alone(key: Path) -> None:
    assert key.stat().st_mode & 0o077 == 0


def unsigned(engines: Path) -> None:
    (engines / signature.SIGNATURE).unlink()


def changed(engines: Path) -> None:
    manifest = json.loads((engines / bundle.MANIFEST).read_text())
    (engines / bundle.MANIFEST).write_text(json.dumps(manifest | {"coverage": 0.5}))


def signed_by_another(engines: Path) -> None:
    another = engines.parent / "another"
    signature.new_key(another)
    assert sign.main(["--bundle", str(engines), "--key", str(another)]) == 0


def garbled(engines: Path) -> None:
    (engines / signature.SIGNATURE).write_bytes(b"\xff\xfenot hex")


def cut_short(engines: Path) -> None:
    (engines / signature.SIGNATURE).write_text("ab" * 63)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (unsigned, "manifest.sig: missing, and"),
        (changed, "manifest.sig: not the signature of"),
        (signed_by_another, "manifest.sig: not the signature of"),
        (garbled, "manifest.sig: not the signature of"),
        (cut_short, "manifest.sig: not the signature of"),
    ],
)
def test_a_bundle_that_is_not_signed_or_not_by_this_key_is_refused_in_one_sentence(
    signed: Path, key: Path, damage: Callable[[Path], None], says: str
) -> None:
    damage(signed)
    with pytest.raises(BundleError) as refused:
        bundle.load(signed, f"{key}.pub")
    assert says in str(refused.value)
    assert "mend" in str(refused.value) or "sign it with" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert bundle.load(signed).path == signed, "without a key configured it is served"


def test_a_signature_covers_every_file_through_the_manifest(signed: Path, key: Path) -> None:
    graph = bytearray((signed / "acc.onnx").read_bytes())
    graph[1000] ^= 1
    (signed / "acc.onnx").write_bytes(graph)
    with pytest.raises(BundleError, match=r"acc\.onnx: sha256 is"):
        bundle.load(signed, f"{key}.pub")


def test_a_bundle_with_a_broken_engine_is_not_signed(
    signed: Path, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    give_engines(signed)
    assert sign.main(["--bundle", str(signed), "--key", str(key)]) == 0
    (signed / "acc.plan").write_bytes(b"another")
    assert sign.main(["--bundle", str(signed), "--key", str(key)]) == 2
    assert "acc.plan: sha256 is" in capsys.readouterr().err


def test_a_broken_bundle_is_not_signed(
    signed: Path, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (signed / "acc.onnx").unlink()
    assert sign.main(["--bundle", str(signed), "--key", str(key)]) == 2
    assert "acc.onnx: missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "says"), [(None, "no key"), (b"zz", "no key"), (b"abcd", "2 bytes; an Ed25519")]
)
def test_what_is_no_key_is_refused(
    signed: Path, tmp_path: Path, content: bytes | None, says: str
) -> None:
    if content is not None:
        (tmp_path / "other.pub").write_bytes(content)
    with pytest.raises(RobultError, match=says):
        bundle.load(signed, tmp_path / "other.pub")


def test_a_key_is_never_overwritten(key: Path) -> None:
    before = key.read_text()
    with pytest.raises(RobultError, match=r"maker: cannot be made \(File exists\)"):
        signature.new_key(key)
    assert key.read_text() == before


def test_without_pynacl_the_extra_is_named(
    signed: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nacl", None)
    with pytest.raises(MissingExtraError, match=r"robult-edge\[security\]"):
        bundle.load(signed, f"{key}.pub")


def test_serve_refuses_an_unsigned_bundle(shipped: Bundle, key: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "runtime.serve", "--engines", str(shipped.path),
         "--bundle-key", f"{key}.pub"],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("runtime.serve: ")
    assert "manifest.sig: missing" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
