"""What others can reach: nothing without keys or a token, unless it is asked for by name."""

from __future__ import annotations

import hmac
from ipaddress import ip_address
from pathlib import Path

from robult_edge.errors import KeysError, RobultError


def is_local(host: str) -> bool:
    """Whether only this machine can reach what listens at ``host``."""
    name = host.strip("[]")
    try:
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False


def check_socket(address: str, flag: str, keys: str | None, insecure: bool) -> None:
    """Refuse a ZeroMQ address that others can reach without keys.

    Raises:
        RobultError: as said.
    """
    transport, _, where = address.partition("://")
    local = transport in ("ipc", "inproc") or is_local(where.rpartition(":")[0])
    if not (local or keys or insecure):
        raise RobultError(
            f"{flag} {address} can be reached from other machines and nobody need prove who they "
            "are; mend: --curve-keys DIR (python -m runtime.keys makes them), or --insecure"
        )


def check_http(host: str, token_file: str | None, insecure: bool) -> None:
    """Refuse a control plane that others can reach and that asks for no token.

    Raises:
        RobultError: as said.
    """
    if not (is_local(host) or token_file or insecure):
        raise RobultError(
            f"--http {host} can be reached from other machines; "
            "mend: --http-token-file FILE, or --insecure"
        )


class Token:
    """What a request that changes state must carry: ``Authorization: Bearer TOKEN``.

    Args:
        file: holds the token, on a line of its own; None: every such request is refused.

    Raises:
        KeysError: the file cannot be read, or the token is short enough to be guessed.
    """

    LEAST_CHARS = 16

    def __init__(self, file: str | None) -> None:
        self._token: bytes | None = None
        if file is None:
            return
        try:
            self._token = Path(file).read_bytes().strip()
        except OSError as error:
            raise KeysError(f"--http-token-file {file}: {error.strerror}") from None
        if len(self._token) < self.LEAST_CHARS:
            raise KeysError(
                f"--http-token-file {file}: {len(self._token)} characters; "
                f"have {self.LEAST_CHARS} or more, e.g. from: openssl rand -hex 32"
            )

    def refusal(self, authorization: str) -> tuple[int, dict[str, str]] | None:
        """Status code and body for a request that may not change state; None for one that may.

        Args:
            authorization: the request's header of that name; empty if it has none.
        """
        if self._token is None:
            return 403, {"error": "start runtime.serve with --http-token-file to allow this"}
        if not hmac.compare_digest(authorization.encode(), b"Bearer " + self._token):
            return 401, {"error": "send the header 'Authorization: Bearer TOKEN'"}
        return None
