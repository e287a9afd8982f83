"""CURVE, the encryption of ZeroMQ: who a client is, and whom it trusts (docs/SECURITY.md).

A folder of keys is all that one machine needs, made by ``python -m runtime.keys``. A client's holds
its own ``NAME.key_secret`` and the runtime's public ``server.key``.
"""

from __future__ import annotations

from pathlib import Path

import zmq
from zmq.auth import load_certificate

from robult_edge.errors import KeysError

SERVER = "server"


def client_socket(kind: int, folder: str | Path | None) -> zmq.Socket[bytes]:
    """A socket that proves itself and encrypts when it connects; a plain one without a folder.

    Args:
        kind: ``zmq.PUB`` of a sensor, ``zmq.SUB`` of a consumer.
        folder: this client's keys.

    Raises:
        KeysError: the folder lacks a key.
    """
    keys = _client_keys(Path(folder)) if folder is not None else None
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(kind)
    if keys is not None:
        socket.curve_serverkey, socket.curve_publickey, socket.curve_secretkey = keys
    return socket


def read_key(file: Path) -> tuple[bytes, bytes | None]:
    """The public key in a file and, if it holds one, the secret key.

    Raises:
        KeysError: there is none.
    """
    try:
        return load_certificate(file)
    except (OSError, ValueError) as error:
        raise KeysError(
            f"{file}: no key ({error}); make it with: python -m runtime.keys DIR --client NAME"
        ) from None


def _client_keys(folder: Path) -> tuple[bytes, bytes, bytes | None]:
    secrets = sorted(folder.glob("*.key_secret"))
    if len(secrets) != 1:
        raise KeysError(
            f"{folder}: {len(secrets)} files *.key_secret; a client's folder holds one; "
            "make it with: python -m runtime.keys DIR --client NAME"
        )
    server, _ = read_key(folder / f"{SERVER}.key")
    return (server, *read_key(secrets[0]))
