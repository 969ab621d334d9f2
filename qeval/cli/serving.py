"""A server of pages for `qeval view`: on this machine alone, and only by its own name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from qeval.base.errors import QevalError

Pages = Callable[[str, Mapping[str, str]], tuple[int, str]]
"""Gives HTTP's status and the page at a path, without escapes, and what was asked with it."""
_OWN_NAMES = frozenset(["localhost", "127.0.0.1", "[::1]"])
_PATIENCE = 30.0  # seconds that a client may take for its words
_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_NOT_FOUND, _MISDIRECTED, _FAILED = 404, 421, 500


def only(page: str) -> Pages:
    """One page, and nothing else."""
    return lambda path, _: (200, page) if path in {"/", "/index.html"} else (_NOT_FOUND, "")


def server(pages: Pages | str, port: int) -> ThreadingHTTPServer:
    """A server of these pages, or this one, on the loopback interface; port 0 takes any that is free.

    It answers GET and HEAD, and refuses (421) what names another host than this machine: a page elsewhere
    could have its own name lead here, and read the report in the reader's browser. Raises QevalError where
    the port is taken.
    """
    found = only(pages) if isinstance(pages, str) else pages
    try:
        return _Quiet(("127.0.0.1", port), _handler(found))
    except OSError as error:
        raise QevalError(
            f"Port {port} cannot be used: {error.strerror}.", "Name another with --port."
        ) from error


def _handler(found: Pages) -> type[BaseHTTPRequestHandler]:
    """What answers one request, from these pages."""

    class Handler(BaseHTTPRequestHandler):
        timeout = _PATIENCE

        def do_GET(self) -> None:
            self._answer(self.wfile.write)

        def do_HEAD(self) -> None:
            self._answer(lambda _: None)

        def _answer(self, write: Callable[[bytes], Any]) -> None:
            if not _is_own(self.headers.get("Host", "")):
                self._send(write, _MISDIRECTED, "")
                return
            asked = _asked(self.path)
            try:
                status, told = found(*asked) if asked else (_NOT_FOUND, "")
            except Exception:
                self._send(write, _FAILED, "Something unforeseen happened; the terminal says what.")
                raise
            self._send(write, status, told)

        def _send(self, write: Callable[[bytes], Any], status: int, told: str) -> None:
            body = told.encode("utf-8", "replace")
            self.send_response(status)
            for name, value in {**_HEADERS, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing about each request."""

    return Handler


def _asked(address: str) -> tuple[str, dict[str, str]] | None:
    """Path and questions of what a client wrote behind the host; None where nobody can read it.

    Bytes that are no UTF-8 may stand in the name of a directory.
    """
    try:
        parts = urlsplit(address)
        asked = parse_qs(parts.query, max_num_fields=20, errors="surrogateescape")
    except ValueError:
        return None
    last = {name: values[-1] for name, values in asked.items()}
    return unquote(parts.path, errors="surrogateescape"), last


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True  # Ctrl-C does not wait for a report that is being made

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that has gone or takes too long; anything else is a mistake of ours."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


def _is_own(host: str) -> bool:
    """Whether a Host header names this machine, at whatever port: the port may be forwarded."""
    name, _, port = host.rpartition(":") if not host.endswith("]") else (host, "", "")
    return (name if port.isdecimal() and name else host).lower() in _OWN_NAMES
