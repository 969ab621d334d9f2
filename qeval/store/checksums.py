"""Files that prove themselves: known by their hash, or by a checksum that they hold of themselves."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from qeval.base import reading
from qeval.base.errors import QevalError
from qeval.base.private import private
from qeval.base.records import Cell, Run

if TYPE_CHECKING:
    from qeval.base.fidelity import Measured

_Record = TypeVar("_Record", Run, Cell, "Measured")


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


def holds(path: Path, sha256: str) -> bool:
    """Whether a file is there, can be read and has this hash."""
    try:
        return hashlib.sha256(reading.content(path, None)).hexdigest() == sha256
    except OSError:
        return False


def damaged(path: Path, what: str) -> QevalError:
    """The error that a file is not what it should be, with the remedy."""
    return QevalError(
        f"{path} {what}.",
        "Run (or import) it again by the same command: what is damaged is made again, the rest is kept.",
    )


_NOT_YET = b'"checksum":"' + b"0" * 64 + b'",'


def summed(record: Run | Cell | Measured) -> bytes:
    """A record as JSON that begins with a checksum of itself, without what is nobody else's business."""
    data = private(msgspec.json.encode(record).decode()).encode()
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


def _private(data: bytes) -> bytes:
    """What an older version wrote, as this one would have written it."""
    try:
        return private(data.decode()).encode()
    except UnicodeDecodeError:
        return data


def is_summed(file: Path) -> bool:
    """Whether a file holds a checksum of itself, right or not: those of older versions do not."""
    try:
        return b"checksum" in reading.content(file, None)[:_HEAD]
    except OSError:
        return False


_HEAD = 128
"""Bytes that a checksum lies within."""


def decode(data: bytes, kind: type[_Record], file: Path) -> _Record:
    """A record read from a file. Raises QevalError where it is damaged or of a later version."""
    _check_sum(data, file)
    try:
        return msgspec.json.decode(_private(data), type=kind)
    except msgspec.ValidationError as error:
        raise damaged(file, f"is not what this version of qeval writes ({error})") from error
    except RecursionError as error:
        raise damaged(file, "is nested too deeply") from error
    except msgspec.DecodeError as error:
        raise damaged(file, "is truncated or damaged") from error


def verified_bytes(samples_sha256: str, documents: int) -> bytes:
    """A file that tells of how many documents these very samples were held against lm-eval's numbers."""
    told = {"samples": samples_sha256, "documents": documents, "sum": _brief_sum(samples_sha256, documents)}
    return msgspec.json.encode(told)


def documents_told(data: bytes, samples_sha256: str) -> int:
    """What `verified_bytes` was given, 0 for a file that is damaged or of other samples. Older files have no
    sum."""
    try:
        told = msgspec.json.decode(data)
        samples, documents = told["samples"], int(told["documents"])
        sound = samples == samples_sha256 and told.get("sum") in {None, _brief_sum(samples, documents)}
    except (msgspec.DecodeError, KeyError, TypeError, ValueError, AttributeError):
        return 0
    return documents if sound else 0


def _brief_sum(samples_sha256: str, documents: int) -> str:
    return hashlib.sha256(f"{samples_sha256} {documents}".encode()).hexdigest()[:16]
