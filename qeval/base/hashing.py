"""Hashes that name things: of JSON-able values."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import msgspec


def digest(value: Any) -> str:
    """SHA-256 (hex) of a JSON-able value, written with sorted keys and no spaces."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    return msgspec.to_builtins(value)
