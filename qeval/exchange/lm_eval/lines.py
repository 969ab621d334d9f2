"""The lines of lm-eval's samples as any of its versions wrote them: JSON lines, one list, or part of the
results; with lm-eval's hashes, or with the texts that these are made of."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qeval.base import reading
from qeval.base.errors import QevalError
from qeval.base.logged import listed_arguments
from qeval.exchange.lm_eval.results import AGAIN, ResultsFile

HASHES = ("doc_hash", "prompt_hash", "target_hash")
_HASHED = ("doc", "arguments", "target")
"""The texts that the hashes are of."""

Line = Mapping[str, Any]


class Logs(dict[str, Any]):
    """A line of a file of samples, which remembers what was asked in it."""

    @functools.cached_property
    def listed(self) -> list[list[Any]]:
        """The arguments of each request, in order."""
        return listed_arguments(self["arguments"])

    @functools.cached_property
    def asked(self) -> list[tuple[str, str]]:
        """(context, continuation) of each request, in order."""
        return [(str(part[0]), str(part[1]) if len(part) > 1 else "") for part in self.listed]


def sample_bytes(results: ResultsFile, task: str) -> bytes:
    """All samples of a task as a file of any size holds them. Raises QevalError where it cannot be read."""
    inline = results.inline(task)
    if inline is not None:
        return json.dumps(inline).encode()
    path = results.samples_of(task)
    try:
        return reading.content(path, None)
    except OSError as error:
        raise QevalError(f"{path} cannot be read: {reading.told(error)}.", AGAIN) from error


def read_lines(path: Path, data: bytes) -> list[Line]:
    """The lines of a file. Raises QevalError where it is damaged or proves nothing of what was asked."""
    try:
        lines = _values(path, data)
    except reading.PointerError as error:
        raise QevalError(f"{path} cannot be read: {reading.told(error)}.", error.remedy) from error
    except OSError as error:
        raise QevalError(f"{path} is damaged: {reading.told(error)}.", AGAIN) from error
    return [_proved(path, number, line) for number, line in enumerate(lines, 1)]


def _values(path: Path, data: bytes) -> list[Any]:
    """A list of JSON is what versions before 0.4.3 wrote, under any name."""
    if data[:1] != b"[":
        return list(reading.json_lines(path, data))
    found: list[Any] = reading.json_value(path, reading.decoded(path, data))
    return found


def _proved(path: Path, number: int, line: Any) -> Logs:
    """A line with its hashes. Raises QevalError for one that has none, nor what they are made of."""
    if not isinstance(line, dict):
        what = reading.kind_of(line)
        raise QevalError(f"{path}: sample {number} is {what} where an object belongs.", AGAIN)
    made = _hashes(line) if not any(name in line for name in HASHES) else {}
    lacking = [key for key in ("doc_id", *HASHES) if key not in line and key not in made]
    if lacking:
        raise QevalError(f"{path} has samples without {lacking[0]}, so nothing proves what was asked.", AGAIN)
    return Logs({**line, **made})


def _hashes(line: Mapping[str, Any]) -> dict[str, str]:
    """lm-eval's own hashes, as it makes them since 0.4.3, from the texts that earlier versions logged."""
    if any(name not in line for name in _HASHED) or not line["arguments"]:
        return {}
    asked = listed_arguments(line["arguments"])
    doc = json.dumps(line["doc"], indent=2, ensure_ascii=False)
    texts = (doc, str(asked[0][0]), str(line["target"]))
    return dict(zip(HASHES, (_hash(text) for text in texts), strict=True))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
