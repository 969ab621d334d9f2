"""Plain data: any value of ours in JSON's own types, without what JSON cannot hold."""

from __future__ import annotations

import math
from typing import Any


def plain(value: Any) -> Any:
    """The value as dicts, lists, strings and numbers. NaN and infinity become None, halves of surrogate pairs
    question marks, and whatever else JSON does not have its text."""
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    return str(value).encode("utf-8", "replace").decode()
