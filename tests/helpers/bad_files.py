"""Files that no reader should believe, wait for or read to the end; nodes are the tests' own."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import socket
import stat
from pathlib import Path

import pytest

BYTES = {
    "empty": b"",
    "null": b"null",
    "number": b"3",
    "text": b'"x"',
    "list": b"[]",
    "list of null": b"[null]",
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "deep TOML": b"x = " + b"[" * 100_000,
    "dotted": b"a" + b".a" * 100_000 + b" = 1",
    "digits": b'{"n": ' + b"9" * 5000 + b"}",
    "TOML digits": b"n = " + b"9" * 5000,
    "TOML hex": b"n = 0x" + b"f" * 6000,
    "gzip bomb": gzip.compress(b"0" * (1 << 20)) * 64,  # members that follow one another are one file
    "Latin-1": '{"é": "ü"}'.encode("latin-1"),
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "NUL": b'{"a":\x00 1}',
}
NODES = ("FIFO", "directory", "socket", "device", "huge", "circle", "missing")
KINDS = (*BYTES, *NODES)


def put(path: Path, kind: str) -> Path:
    """A file of a bad kind in place of what is there."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind in BYTES:
        path.write_bytes(BYTES[kind])
    elif kind == "FIFO":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "socket":
        _listen(path)
    elif kind == "device":
        node(path, 5)  # one that never ends
    elif kind == "huge":
        with path.open("wb") as file:
            file.truncate(200 << 20)
    elif kind == "circle":
        path.symlink_to(path.name)
    return path


def node(path: Path, minor: int) -> Path:
    """A device of our own: 5 gives zeros without end, 7 is always full."""
    try:
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, minor))
        path.open("rb").close()
    except PermissionError:
        pytest.skip("devices cannot be made here")
    return path


def _listen(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's name may have no more than some 100 bytes
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)
    finally:
        os.chdir(here)


def resummed(table: dict) -> bytes:
    """A stored record with the checksum that is right for it, whatever it says."""
    told = {name: value for name, value in table.items() if name != "checksum"}
    text = b'{"checksum":"' + b"0" * 64 + b'",' + json.dumps(told).encode()[1:]
    return text.replace(b"0" * 64, hashlib.sha256(text).hexdigest().encode(), 1)


def rehashed(run: Path, file: Path, data: bytes) -> None:
    """A file of a stored run with other contents, and its hash and every checksum right again."""
    old, new = hashlib.sha256(file.read_bytes()).hexdigest(), hashlib.sha256(data).hexdigest()
    file.unlink()
    (file.with_name(file.name.replace(old, new))).write_bytes(data)
    for header in (run / "run.json", *run.glob("cells/*/cell.json")):
        header.write_bytes(resummed(json.loads(header.read_text().replace(old, new))))
