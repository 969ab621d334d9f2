"""Hashes that name things: of JSON-able values."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import msgspec


def digest(value: Any, *, spaced: bool = False) -> str:
    """SHA-256 (hex) of a value, written as JSON with sorted keys.

    `spaced`: with a space behind each comma and colon, as names on disk that are older than this function
    were made. What JSON does not have is written as the plain data of its record, else as its text.
    """
    return hashlib.sha256(digested(value, spaced=spaced).encode()).hexdigest()


def digested(value: Any, *, spaced: bool = False) -> str:
    """The text whose hash `digest` is."""
    separators = (", ", ": ") if spaced else (",", ":")
    return json.dumps(value, sort_keys=True, separators=separators, default=_plain)


def _plain(value: Any) -> Any:
    try:
        return msgspec.to_builtins(value)
    except TypeError:
        return str(value)
