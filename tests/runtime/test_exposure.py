"""runtime.exposure: what others can reach asks who they are, or was asked for by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from robult_edge.errors import KeysError, RobultError
from runtime.exposure import Token, check_http, check_socket

LOCAL = ["tcp://127.0.0.1:5555", "tcp://127.9.9.9:*", "tcp://localhost:1", "tcp://[::1]:5555",
         "ipc:///run/robult", "inproc://frames"]  # fmt: skip
OPEN = ["tcp://*:5555", "tcp://0.0.0.0:5555", "tcp://[::]:5555", "tcp://192.168.1.7:5555",
        "tcp://eth0:5555", "tcp://localhost.evil.example:5555", "udp://239.0.0.1:5555"]  # fmt: skip


@pytest.mark.parametrize("address", LOCAL)
def test_loopback_needs_no_keys(address: str) -> None:
    check_socket(address, "--frames", None, insecure=False)


@pytest.mark.parametrize("address", OPEN)
def test_beyond_loopback_needs_keys_or_the_word_insecure(address: str) -> None:
    with pytest.raises(RobultError) as refused:
        check_socket(address, "--frames", None, insecure=False)
    assert str(refused.value).startswith(f"--frames {address} can be reached from other machines")
    assert "--curve-keys DIR" in str(refused.value)
    assert "--insecure" in str(refused.value)
    check_socket(address, "--frames", "keys", insecure=False)
    check_socket(address, "--frames", None, insecure=True)


@pytest.mark.parametrize(
    ("host", "token", "insecure", "refused"),
    [
        ("127.0.0.1", None, False, False),
        ("localhost", None, False, False),
        ("", None, False, True),
        ("0.0.0.0", None, False, True),
        ("0.0.0.0", "token", False, False),
        ("0.0.0.0", None, True, False),
    ],
)
def test_a_control_plane_beyond_loopback_needs_a_token(
    host: str, token: str | None, insecure: bool, refused: bool
) -> None:
    if not refused:
        check_http(host, token, insecure)
        return
    with pytest.raises(RobultError, match="--http-token-file FILE"):
        check_http(host, token, insecure)


TOKEN = "0123456789abcdef"


@pytest.mark.parametrize(
    ("says", "code"),
    [
        (f"Bearer {TOKEN}", None),
        ("", 401),
        (TOKEN, 401),
        (f"Bearer {TOKEN}x", 401),
        (f"Bearer {TOKEN[:-1]}", 401),
        (f"Basic {TOKEN}", 401),
        ("Bearer ü", 401),
    ],
)
def test_a_request_changes_state_only_with_the_token(
    tmp_path: Path, says: str, code: int | None
) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    refusal = Token(str(tmp_path / "token")).refusal(says)
    assert (refusal and refusal[0]) == code


@pytest.mark.parametrize("says", ["", "Bearer ", f"Bearer {TOKEN}"])
def test_without_a_token_file_nothing_changes_state(says: str) -> None:
    refusal = Token(None).refusal(says)
    assert refusal is not None
    assert refusal[0] == 403
    assert "--http-token-file" in refusal[1]["error"]


@pytest.mark.parametrize(("content", "says"), [(None, "No such file"), ("short", "5 characters")])
def test_a_token_that_is_none_is_refused(tmp_path: Path, content: str | None, says: str) -> None:
    if content is not None:
        (tmp_path / "token").write_text(content)
    with pytest.raises(KeysError, match=says):
        Token(str(tmp_path / "token"))
