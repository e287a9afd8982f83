"""Looking at a server over HTTP, on a thread of its own: /livez, /readyz, /status."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

from robult_edge.errors import RobultError
from runtime.exposure import Token, check_http
from runtime.server import Server


class ControlPlane:
    """Answers GET /livez, /readyz and /status for a server.

    Args:
        server: whom to look at.
        address: ``host:port``.

    Raises:
        RobultError: the address cannot be bound, or others can reach it and need no token.
    """

    def __init__(self, server: Server, address: str) -> None:
        host, _, port = address.rpartition(":")
        check_http(host, server.config.http_token_file, server.config.insecure)
        token = Token(server.config.http_token_file)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._reply(*_answer(server, self.path))

            def do_POST(self) -> None:
                refusal = token.refusal(self.headers.get("Authorization", ""))
                self._reply(*(refusal or (404, {"error": f"no POST {self.path} here"})))

            def _reply(self, code: int, body: dict[str, Any]) -> None:
                content = msgspec.json.format(msgspec.json.encode(body), indent=2)
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
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
        threading.Thread(target=self._http.serve_forever, name="http", daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        self._http.shutdown()
        self._http.server_close()


def _answer(server: Server, path: str) -> tuple[int, dict[str, Any]]:
    """Status code and body for a path; computed at each request, never cached."""
    if path == "/livez":
        return 200, {"alive": True}
    if path == "/readyz":
        if server.stopping:
            return 503, {"ready": False, "reason": "draining"}
        return 200, {"ready": True, "reason": f"serving {server.manifest.name}"}
    if path == "/status":
        return 200, server.status()
    return 404, {"error": f"no {path} here; try /livez, /readyz or /status"}
