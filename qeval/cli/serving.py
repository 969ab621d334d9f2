"""A server of one page for `qeval view`: on this machine alone, and only by its own name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from qeval.base.errors import QevalError

_OWN_NAMES = frozenset(["localhost", "127.0.0.1", "[::1]"])
_PATIENCE = 30.0  # seconds that a client may take for its words


def server(page: str, port: int) -> ThreadingHTTPServer:
    """A server of this one page on the loopback interface; port 0 takes any that is free.

    It answers GET and HEAD, and refuses (421) what names another host than this machine: a page elsewhere
    could have its own name lead here, and read the report in the reader's browser. Raises QevalError where
    the port is taken.
    """
    body = page.encode()

    class Handler(BaseHTTPRequestHandler):
        timeout = _PATIENCE

        def do_GET(self) -> None:
            self._answer(self.wfile.write)

        def do_HEAD(self) -> None:
            self._answer(lambda _: None)

        def _answer(self, write: Callable[[bytes], Any]) -> None:
            found = self.path.partition("?")[0] in {"/", "/index.html"}
            status = (200 if found else 404) if _is_own(self.headers.get("Host", "")) else 421
            told = body if status == 200 else b""  # noqa: PLR2004 - HTTP's own number
            self.send_response(status)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(told)))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            write(told)

        def log_message(self, *_: object) -> None:
            """Say nothing about each request."""

    try:
        return _Quiet(("127.0.0.1", port), Handler)
    except OSError as error:
        raise QevalError(
            f"Port {port} cannot be used: {error.strerror}.", "Name another with --port."
        ) from error


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that has gone or takes too long; anything else is a mistake of ours."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


def _is_own(host: str) -> bool:
    """Whether a Host header names this machine, at whatever port: the port may be forwarded."""
    name, _, port = host.rpartition(":") if not host.endswith("]") else (host, "", "")
    return (name if port.isdecimal() and name else host).lower() in _OWN_NAMES
