"""The runtime's side of CURVE: only clients whose public key it holds may connect."""

from __future__ import annotations

from pathlib import Path

import zmq

from robult_edge.curve import SERVER, read_key
from robult_edge.errors import KeysError

DOMAIN = "robult"
CLIENTS = "clients"


class Gate:
    """Answers, on a thread of its own, whether a client may connect to the sockets it guards.

    Args:
        context: of the sockets.
        folder: ``server.key_secret``, and ``clients/`` with the public key of each that may.

    Raises:
        KeysError: the folder lacks a key, or allows nobody.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], folder: str | Path) -> None:
        path = Path(folder)
        self._public, self._secret = read_key(path / f"{SERVER}.key_secret")
        allowed = sorted((path / CLIENTS).glob("*.key"))
        if not allowed:
            raise KeysError(
                f"{path / CLIENTS}: allows nobody; "
                "allow a client with: python -m runtime.keys DIR --client NAME"
            )
        for file in allowed:
            read_key(file)
        from zmq.auth.thread import ThreadAuthenticator  # brings asyncio, for no-one else's sake

        self._authenticator = ThreadAuthenticator(context)
        self._authenticator.start()
        self._authenticator.configure_curve(domain=DOMAIN, location=path / CLIENTS)

    def guard(self, socket: zmq.Socket[bytes]) -> None:
        """Let ``socket``, not bound yet, take encrypted connections of allowed clients alone."""
        socket.zap_domain = DOMAIN.encode()
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # nobody to ask: nobody may
        socket.curve_server = True
        socket.curve_publickey, socket.curve_secretkey = self._public, self._secret

    def close(self) -> None:
        """Answer no more."""
        self._authenticator.stop()
