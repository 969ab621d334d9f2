"""`qeval view`: show an HTML page in a browser, or serve it on localhost where there is no display."""

from __future__ import annotations

import os
import sys
import tempfile
import webbrowser
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from qeval.base.errors import QevalError

_USUAL_PORT = 8000


def show(page: str, port: int | None, *, say: Callable[[str], None]) -> None:
    """Open the page in the desktop's browser, or serve it where a port is asked for or no display is.

    Serving ends with KeyboardInterrupt. Raises QevalError where the port is taken.
    """
    if port is None and _has_display():
        file = Path(tempfile.mkdtemp(prefix="qeval-")) / "report.html"
        file.write_text(page, encoding="utf-8")
        say(f"Opening {file}")
        webbrowser.open(file.as_uri())
        return
    with server(page, _USUAL_PORT if port is None else port) as serving:
        say(f"Serving the report on http://localhost:{serving.server_address[1]}/ until Ctrl-C.")
        try:
            serving.serve_forever()
        except KeyboardInterrupt:
            say("Stopped.")


def _has_display() -> bool:
    return sys.platform in {"darwin", "win32"} or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )


def server(page: str, port: int) -> ThreadingHTTPServer:
    """A server of this one page on the loopback interface; port 0 takes any that is free."""
    body = page.encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path.partition("?")[0] in {"/", "/index.html"}
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body) if found else 0))
            self.end_headers()
            if found:
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing about each request."""

    try:
        return ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        raise QevalError(
            f"Port {port} cannot be used: {error.strerror}.", "Name another with --port."
        ) from error
