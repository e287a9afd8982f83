"""Ed25519 signatures over a manifest, which holds the sha256 of every other file of its bundle.

PyNaCl does the mathematics: it is libsodium, which CURVE on the wire rests on too, and a fifth of
the size of the alternatives. It is imported only where a key is configured.
"""

from __future__ import annotations

import os
from pathlib import Path

from robult_edge.errors import BundleError, MissingExtraError, RobultError

SIGNATURE = "manifest.sig"


def new_key(file: Path) -> Path:
    """Write a secret key to ``file``, and its public half beside it as ``.pub``; the latter's path.

    Raises:
        RobultError: there is such a file already.
    """
    secret = _nacl().SigningKey.generate()
    public = file.with_name(file.name + ".pub")
    for path, key, mode in ((file, secret, 0o600), (public, secret.verify_key, 0o644)):
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        except OSError as error:
            raise RobultError(f"{path}: cannot be made ({error.strerror})") from None
        with open(descriptor, "w", encoding="ascii") as out:
            out.write(bytes(key).hex() + "\n")
    return public


def sign(manifest: bytes, key_file: Path) -> bytes:
    """The content of `SIGNATURE` for a manifest: 128 hex digits and a newline."""
    signed = _nacl().SigningKey(_read_key(key_file)).sign(manifest)
    return signed.signature.hex().encode() + b"\n"


def verify(bundle: Path, manifest: bytes, public_key: Path) -> None:
    """Check that ``manifest`` is what the key's owner signed.

    Raises:
        BundleError: it is not signed, or not so.
    """
    nacl, key = _nacl(), _read_key(public_key)
    where = bundle / SIGNATURE
    mend = f"sign it with: python -m export.sign --bundle {bundle} --key SECRET"
    if not where.is_file():
        raise BundleError(f"{where}: missing, and {public_key} is configured; {mend}")
    try:
        nacl.VerifyKey(key).verify(manifest, bytes.fromhex(where.read_text("ascii")))
    except Exception:  # nacl and fromhex each have errors of their own; all mean the same
        raise BundleError(
            f"{where}: not the signature of {public_key} over this manifest; {mend}"
        ) from None


def _read_key(file: Path) -> bytes:
    try:
        key = bytes.fromhex(file.read_text("ascii"))
    except (OSError, ValueError) as error:
        raise RobultError(f"{file}: no key ({error}); make one with --new-key") from None
    if len(key) != 32:
        raise RobultError(f"{file}: {len(key)} bytes; an Ed25519 key has 32")
    return key


def _nacl():
    try:
        from nacl import signing
    except ImportError:
        raise MissingExtraError("pynacl", "security") from None
    return signing
