"""`qeval view`: the page is served whole, on this machine alone."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import urllib.error
import urllib.request

import pytest
from stored import store, whole

from qeval.base.errors import QevalError
from qeval.cli import serving as views


@pytest.fixture
def serving():
    with views.server("<p>é</p>", 0) as server:
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
        views.server("", serving.server_address[1])
    assert "--port" in caught.value.hint


def ask(serving, method: str, host: str | None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(*serving.server_address[:2], timeout=60)
    connection.putrequest(method, "/", skip_host=True)
    if host is not None:
        connection.putheader("Host", host)
    connection.endheaders()
    answer = connection.getresponse()
    found = answer.status, answer.read(), int(answer.headers["Content-Length"])
    connection.close()
    assert method == "HEAD" or len(found[1]) == found[2]
    return found[:2]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *(
            (host, 200)
            for host in ("localhost", "localhost:8000", "127.0.0.1:9", "[::1]:80", "LOCALHOST", "[::1]")
        ),
        *((host, 421) for host in ("evil.example", "evil.example:8000", "localhost.evil.example", "", None)),
        *((host, 421) for host in ("localhost:x", "127.0.0.1.nip.io", "localhost@evil.example")),
    ],
)
def test_only_its_own_name_is_answered(serving, host, status) -> None:
    found, body = ask(serving, "GET", host)
    assert found == status
    assert body == ("<p>é</p>".encode() if status == 200 else b"")


def test_head_is_answered_as_get_but_for_the_page(serving) -> None:
    assert ask(serving, "HEAD", "localhost") == (200, b"")
    with urllib.request.urlopen(
        urllib.request.Request(f"http://127.0.0.1:{serving.server_address[1]}/", method="HEAD")
    ) as answer:
        assert int(answer.headers["Content-Length"]) == len("<p>é</p>".encode())


def test_a_baseline_that_no_run_has_is_refused_before_anything_is_served(
    qeval, runs_dir, monkeypatch
) -> None:
    served: list[str] = []
    monkeypatch.setattr("qeval.cli.view._serve", lambda _page, _port, what: served.append(what))
    for name in "ab":
        store(runs_dir, whole(), id=name)
    for runs in ((), ("a", "b")):
        said = qeval("view", *runs, "--baseline", "bnb", code=2).stderr
        assert "No run here has a variant 'bnb' to be the baseline." in said
        assert "Did you mean 'bnb4'?" in said
    assert not served
    qeval("view", "--baseline", "bnb4")
    assert served == ["the runs"]


def test_a_client_that_goes_away_is_no_traceback(capfd) -> None:
    with views.server("x" * 20_000_000, 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        before = set(threading.enumerate())
        for _ in range(3):
            client = socket.create_connection(server.server_address[:2])
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            client.recv(10)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()  # by a reset
        for answering in set(threading.enumerate()) - before:
            answering.join(60)
        assert ask(server, "HEAD", "localhost")[0] == 200
        server.shutdown()
        thread.join()
    assert capfd.readouterr().err == ""
