"""`qeval view`: the page is served whole, on this machine alone."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request

import pytest

from qeval.base.errors import QevalError
from qeval.cli import report


@pytest.fixture
def serving():
    with report.server("<p>é</p>", 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_the_page_is_served_and_nothing_else(serving) -> None:
    host, port = serving.server_address[:2]
    assert host == "127.0.0.1"
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
        assert answer.read().decode() == "<p>é</p>"
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    with pytest.raises(urllib.error.HTTPError, match="404") as caught:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/etc/passwd")
    caught.value.close()


def test_a_port_that_is_taken_is_one_sentence(serving) -> None:
    with pytest.raises(QevalError, match="cannot be used") as caught:
        report.server("", serving.server_address[1])
    assert "--port" in caught.value.hint
