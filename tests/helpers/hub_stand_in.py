"""A stand-in for the Hugging Face Hub: a server that answers as it does, and breaks as it may."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

LARGE = 512
"""Bytes from which on a file is one of Git LFS."""


@dataclass
class Repo:
    """A repository: files by commit, commits by branch; `token` is what opens it where it is gated."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    token: str = ""

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        name = hashlib.sha1(repr((branch, sorted(files.items()))).encode()).hexdigest()
        self.commits[name] = files
        self.refs[branch] = name
        return name


@dataclass
class Hub:
    """What the stand-in holds and was asked. `breaks` maps a file's name to how often its stream is cut in
    the middle; `status` a file's name to an answer that is given instead; `spoilt` names files that arrive
    with another byte."""

    address: str = ""
    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    breaks: dict[str, int] = field(default_factory=dict)
    status: dict[str, int] = field(default_factory=dict)
    spoilt: set[str] = field(default_factory=set)

    def add(
        self, kind: str, repo: str, files: dict[str, bytes], branch: str = "main", token: str = ""
    ) -> str:
        found = self.repos.setdefault((kind, repo), Repo(token=token))
        return found.commit(files, branch)

    def fetched(self) -> list[str]:
        """The files whose content was sent."""
        return [one.rpartition("/")[2] for one in self.asked if one.startswith("GET") and "/resolve/" in one]


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer in one piece: its second would wait for the first to be acknowledged
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        address = urlsplit(self.path)
        path = unquote(address.path)
        self.hub.asked.append(f"{self.command} {path}")
        api = re.fullmatch(r"/api/(model|dataset)s/([^/]+(?:/[^/]+)?)(?:/(revision|tree)/(.+))?", path)
        file = re.fullmatch(r"/(datasets/)?([^/]+(?:/[^/]+)?)/resolve/([^/]+)/(.+)", path)
        if api:
            self._api(api[1], api[2], api[3] or "revision", api[4] or "main", parse_qs(address.query))
        elif file:
            self._file("dataset" if file[1] else "model", file[2], file[3], file[4])
        else:
            self._send(404)

    def _found(self, kind: str, repo: str, revision: str) -> tuple[Repo, str] | None:
        found = self.hub.repos.get((kind, repo))
        if found is None:
            return self._send(401, {"X-Error-Code": "RepoNotFound"})
        commit = found.refs.get(revision, revision)
        if commit not in found.commits:
            return self._send(404, {"X-Error-Code": "RevisionNotFound"})
        return found, commit

    def _api(self, kind: str, repo: str, what: str, revision: str, query: dict[str, list[str]]) -> None:
        found = self._found(kind, repo, revision)
        if found is None:
            return
        files = found[0].commits[found[1]]
        if what == "tree":
            told = [
                {"type": "file", "path": name, "size": len(data), "oid": _blob(data)} | _lfs(data, "oid")
                for name, data in files.items()
            ]
            self._json(told)
            return
        siblings = [
            {"rfilename": name}
            | ({"size": len(data), "blobId": _blob(data)} | _lfs(data, "sha256") if "blobs" in query else {})
            for name, data in files.items()
        ]
        self._json({"id": repo, "modelId": repo, "sha": found[1], "siblings": siblings, "private": False})

    def _file(self, kind: str, repo: str, revision: str, name: str) -> None:
        found = self._found(kind, repo, revision)
        if found is None:
            return
        place, commit = found
        if place.token and self.headers.get("Authorization") != f"Bearer {place.token}":
            self._send(403 if self.headers.get("Authorization") else 401, {"X-Error-Code": "GatedRepo"})
            return
        data = place.commits[commit].get(name)
        if data is None or name in self.hub.status:
            status = self.hub.status.get(name, 404)
            self._send(status, {"X-Error-Code": "EntryNotFound"} if status == 404 else {})
            return
        tag = hashlib.sha256(data).hexdigest() if len(data) >= LARGE else _blob(data)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{tag}"', "Accept-Ranges": "bytes"}
        self._content(name, bytes([data[0] ^ 1]) + data[1:] if name in self.hub.spoilt else data, headers)

    def _content(self, name: str, data: bytes, headers: dict[str, str]) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(asked[1]) if asked else 0
        if asked:
            self.hub.ranges.append(f"{name} {start}")
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        left = data[start:]
        self.send_response(206 if asked else 200)
        for key, value in {**headers, "Content-Length": str(len(left))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.hub.breaks.get(name, 0) > 0:
            self.hub.breaks[name] -= 1
            self.wfile.write(left[: len(left) // 2])
            self.close_connection = True
            return
        self.wfile.write(left)

    def _json(self, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def _send(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": "0"}.items():
            self.send_header(key, value)
        self.end_headers()


def _blob(data: bytes) -> str:
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


def _lfs(data: bytes, key: str) -> dict[str, Any]:
    if len(data) < LARGE:
        return {}
    return {"lfs": {key: hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}}


@contextmanager
def serving() -> Iterator[Hub]:
    """A stand-in that answers on a port of its own."""
    hub = Hub()
    handler = type("Answers", (_Answers,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        hub.address = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


def asked_by_this_process(patch: pytest.MonkeyPatch, hub: Hub, cache: Any) -> None:
    """Have huggingface_hub, which reads HF_ENDPOINT once, ask the stand-in, and keep its cache apart."""
    from huggingface_hub import constants, hf_api

    patch.setattr(constants, "ENDPOINT", hub.address)
    patch.setattr(hf_api.api, "endpoint", hub.address)
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))
    patch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
    patch.delenv("HF_TOKEN", raising=False)
    patch.setattr("qeval.load.source._ANSWERED", {})
    patch.setattr("time.sleep", lambda _: None)
