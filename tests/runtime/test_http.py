"""runtime.http: what answers where, and with which status."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from robult_edge.bundle import Bundle
from robult_edge.errors import RobultError
from runtime.config import Config
from runtime.http import ControlPlane
from tests.runtime.live import Stage, staged

TOKEN = "0123456789abcdef"


@pytest.fixture
def stage(shipped: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Stage]:
    (tmp_path / "token").write_text(TOKEN)
    token = str(tmp_path / "token")
    with staged(shipped, monkeypatch, "cpu", http_token_file=token) as stage:
        stage.play(6)
        yield stage


@pytest.fixture
def control(stage: Stage) -> Iterator[ControlPlane]:
    control = ControlPlane(replace(stage.server.config, http="127.0.0.1:0"))
    control.server = stage.server
    yield control
    control.close()


def ask(
    control: ControlPlane, path: str, method: str = "GET", token: str = TOKEN
) -> tuple[int, str, str]:
    """Status, content type and content."""
    request = urllib.request.Request(
        f"http://{control.address}{path}",
        method=method,
        headers={"Authorization": f"Bearer {token}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            return reply.status, reply.headers["Content-Type"], reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


@pytest.mark.parametrize(
    ("method", "path", "code", "says"),
    [
        ("GET", "/startupz", 200, '"started": true'),
        ("GET", "/livez", 200, '"alive": true'),
        ("GET", "/readyz", 200, '"reason": "serving watch-'),
        ("GET", "/status", 200, '"sources"'),
        ("GET", "/status?sources=0", 200, '"sources": {}'),
        ("GET", "/status?sources=all", 200, '"rig": {'),
        ("GET", "/status?sources=" + 5000 * "9", 200, '"rig": {'),
        ("GET", "/metrics", 200, "robult_build_info"),
        ("GET", "/", 200, "<!doctype html>"),
        ("GET", "/reload", 404, "POST /reload"),
        ("POST", "/livez", 404, "no POST /livez here"),
        ("GET", "/nowhere", 404, "no /nowhere here; try /, /startupz, /livez"),
    ],
)
def test_paths(control: ControlPlane, method: str, path: str, code: int, says: str) -> None:
    got, _, content = ask(control, path, method)
    assert got == code
    assert says in content


def test_standing_loop_fails_the_probes(stage: Stage, control: ControlPlane) -> None:
    stage.clock.now += 10 * stage.server.manifest.hop_ns
    for path in ("/livez", "/readyz"):
        code, _, content = ask(control, path)
        assert code == 503
        assert "the loop has not turned for" in content
    stage.play(1)
    assert ask(control, "/livez")[0] == 200, "computed anew each time"


def test_reload_is_answered_when_it_is_over(stage: Stage, control: ControlPlane) -> None:
    replies: list[tuple[int, str, str]] = []
    asking = threading.Thread(
        target=lambda: replies.append(ask(control, "/reload", "POST")), daemon=True
    )
    asking.start()
    while asking.is_alive():
        stage.server.turn(0.001)
    code, _, content = replies[0]
    assert code == 200
    assert '"asked_by": "POST /reload"' in content


def test_nobody_reloads_without_the_token(stage: Stage, control: ControlPlane) -> None:
    code, _, content = ask(control, "/reload", "POST", token="guessed")
    assert code == 401
    assert "Authorization: Bearer TOKEN" in content
    assert stage.server.reloader.last is None


def test_metrics_name_their_format(control: ControlPlane) -> None:
    assert ask(control, "/metrics")[1] == "text/plain; version=0.0.4; charset=utf-8"


def test_page_asks_nobody_else(control: ControlPlane) -> None:
    """One file: nothing in it is fetched from anywhere but this server."""

    class Links(HTMLParser):
        found: list[str]

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.found += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "action")]

    links = Links()
    links.found = []
    content = ask(control, "/")[2]
    links.feed(content)
    assert links.found == ["data:,"]
    assert "http" not in content.replace("http-equiv", "")


def test_unusable_address_is_one_sentence() -> None:
    with pytest.raises(RobultError, match=r"cannot listen on '127\.0\.0\.1:x'"):
        ControlPlane(Config("export", http="127.0.0.1:x"))


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/livez", 200),
        ("GET", "/startupz", 503),
        ("GET", "/readyz", 503),
        ("GET", "/status", 503),
        ("GET", "/metrics", 503),
        ("POST", "/reload", 503),
    ],
)
def test_before_there_is_a_server_it_says_what_is_loading(
    tmp_path: Path, method: str, path: str, code: int
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    token = str(tmp_path / "token")
    control = ControlPlane(Config("export", http="127.0.0.1:0", http_token_file=token))
    try:
        got, _, content = ask(control, path, method)
        assert got == code
        assert '"reason": "loading export"' in content
        if method == "POST":
            assert ask(control, path, method, token="guessed")[0] == 401
    finally:
        control.close()
