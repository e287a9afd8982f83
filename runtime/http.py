"""Looking at a server over HTTP, and having it reload, on threads of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeout
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from robult_edge.errors import RobultError
from runtime import metrics, status
from runtime.config import Config
from runtime.exposure import Token, check_http
from runtime.server import Server

Reply = tuple[int, str, bytes]
"""Status code, content type, content."""

PATHS = "/, /startupz, /livez, /readyz, /status, /metrics or POST /reload"
SILENT_CLIENT_S = 10
RELOAD_S = 60.0
POLL_S = 0.1
"""How often the listening thread looks whether it is to stop."""


class ControlPlane:
    """Answers GET ``/startupz /livez /readyz /status /metrics /`` and POST ``/reload``.

    It is up before there is a server to look at: engines take time to load.

    Args:
        config: where to listen, and who may change state.

    Attributes:
        server: whom to look at; None while it is being made.

    Raises:
        RobultError: the address cannot be bound, or others can reach it and need no token.
    """

    def __init__(self, config: Config) -> None:
        self.server: Server | None = None
        address = config.http
        host, _, port = address.rpartition(":")
        check_http(host, config.http_token_file, config.insecure)
        token, loading = Token(config.http_token_file), f"loading {config.engines}"

        def reply(method: Callable[[Server, str], Reply], path: str) -> Reply:
            server = self.server
            return before(path, loading) if server is None else method(server, path)

        class Handler(BaseHTTPRequestHandler):
            timeout = SILENT_CLIENT_S

            def do_GET(self) -> None:
                self._send(reply(get, self.path))

            def do_POST(self) -> None:
                refusal = token.refusal(self.headers.get("Authorization", ""))
                self._send(_json(*refusal) if refusal else reply(post, self.path))

            def _send(self, reply: Reply) -> None:
                code, kind, content = reply
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Cache-Control", "no-store")
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Requests are not logged."""

        try:
            self._http = ThreadingHTTPServer((host, int(port)), Handler)
        except (OSError, ValueError, OverflowError) as error:
            raise RobultError(
                f"cannot listen on {address!r} ({error}); mend: --http HOST:PORT"
            ) from None
        self._http.daemon_threads = True
        self.address = f"{host}:{self._http.server_address[1]}"
        threading.Thread(
            target=self._http.serve_forever, args=(POLL_S,), name="http", daemon=True
        ).start()

    def close(self) -> None:
        """Stop answering."""
        self._http.shutdown()
        self._http.server_close()


def before(path: str, loading: str) -> Reply:
    """The reply to any request while there is no server yet: alive, but not started."""
    where = urlsplit(path).path
    if where == "/livez":
        return _json(200, {"alive": True, "reason": loading})
    probes = {"/startupz": {"started": False}, "/readyz": {"ready": False}}
    return _json(503, {**probes.get(where, {}), "reason": loading})


def get(server: Server, path: str) -> Reply:
    """The reply to GET ``path``, computed at each request."""
    url = urlsplit(path)
    if url.path == "/":
        return 200, "text/html; charset=utf-8", _page()
    if url.path == "/startupz":
        reason = status.startup(server)
        return _json(503 if reason else 200, {"started": not reason, "reason": reason or "started"})
    if url.path == "/livez":
        reason = status.standstill(server)
        return _json(503 if reason else 200, {"alive": not reason, "reason": reason or "turning"})
    if url.path == "/readyz":
        reason = status.unready(server)
        body = {"ready": not reason, "reason": reason or status.ready(server)}
        return _json(503 if reason else 200, body)
    if url.path == "/status":
        shown = parse_qs(url.query).get("sources", [""])[-1]
        few = int(shown) if shown.isdecimal() and len(shown) < 10 else None
        return _json(200, status.status(server, few))
    if url.path == "/metrics":
        return 200, metrics.CONTENT_TYPE, metrics.render(server)
    return _json(404, {"error": f"no {url.path} here; try {PATHS}"})


def post(server: Server, path: str) -> Reply:
    """The reply to POST ``path``: a reload is answered when it is over."""
    if urlsplit(path).path != "/reload":
        return _json(404, {"error": f"no POST {path} here; try {PATHS}"})
    reload = server.reloader.start("POST /reload")
    if reload is None:
        return _json(409, {"error": "a reload is under way already; see /status"})
    try:
        outcome = reload.result(RELOAD_S)
    except FutureTimeout:
        return _json(504, {"error": f"not over within {RELOAD_S:g} s; see /status"})
    return _json(200 if outcome.ok else 422, outcome)


def _json(code: int, body: Any) -> Reply:
    return code, "application/json", msgspec.json.format(msgspec.json.encode(body), indent=2)


def _page() -> bytes:
    return resources.files("runtime").joinpath("page.html").read_bytes()
