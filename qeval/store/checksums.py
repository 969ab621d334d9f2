"""Files that prove themselves: known by their hash, or by a checksum that they hold of themselves."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TypeVar

import msgspec

from qeval.base import reading
from qeval.base.errors import QevalError
from qeval.base.records import Cell, Run

_Record = TypeVar("_Record", Run, Cell)


def read_proved(path: Path, expected_sha256: str) -> bytes:
    """A file whose hash is known. Raises QevalError where it is missing or was changed."""
    try:
        data = reading.content(path, None)
    except FileNotFoundError as error:
        raise damaged(path, "is missing") from error
    except OSError as error:
        raise damaged(path, f"cannot be read: {reading.told(error)}") from error
    if hashlib.sha256(data).hexdigest() != expected_sha256:
        raise damaged(path, "is not what was written (its SHA-256 differs)")
    return data


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(reading.content(path, None)).hexdigest()


def damaged(path: Path, what: str) -> QevalError:
    """The error that a file is not what it should be, with the remedy."""
    return QevalError(
        f"{path} {what}.",
        f"Delete {path.parent} and run the same command again: only what is damaged is computed again.",
    )


_NOT_YET = b'"checksum":"' + b"0" * 64 + b'",'


def summed(record: Run | Cell) -> bytes:
    """A record as JSON that begins with a checksum of itself."""
    data = msgspec.json.encode(record)
    text = msgspec.json.format(b"{" + _NOT_YET + data[1:], indent=1 if isinstance(record, Run) else -1)
    return text.replace(b"0" * 64, hashlib.sha256(text).hexdigest().encode(), 1)


def _check_sum(data: bytes, file: Path) -> None:
    """Raises QevalError where a file is not what its checksum says. Older files have none."""
    found = re.search(rb'"checksum":\s?"([0-9a-f]{64})"', data[:_HEAD])
    if found is None:
        if b"checksum" in data[:_HEAD]:
            raise damaged(file, "is not what was written (its checksum is damaged)")
        return
    before = data[: found.start(1)] + b"0" * 64 + data[found.end(1) :]
    if hashlib.sha256(before).hexdigest().encode() != found[1]:
        raise damaged(file, "is not what was written (its checksum differs)")


_HEAD = 128
"""Bytes that a checksum lies within."""


def decode(data: bytes, kind: type[_Record], file: Path) -> _Record:
    """A record read from a file. Raises QevalError where it is damaged or of a later version."""
    _check_sum(data, file)
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise damaged(file, f"is not what this version of qeval writes ({error})") from error
    except RecursionError as error:
        raise damaged(file, "is nested too deeply") from error
    except msgspec.DecodeError as error:
        raise damaged(file, "is truncated or damaged") from error
