"""Files known by what they hold: hashed in blocks by threads, remembered while nobody can have changed them.

A name, a size and a time of modification prove nothing: archives and builds set times, and checkpoints of one
architecture have equal sizes. The time of a change of state (ctime) cannot be set, so a remembered hash holds
for the same inode, size, mtime and ctime only.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from qeval.base import reading
from qeval.base.errors import QevalError
from qeval.base.files import write_atomic

BLOCK = 64 << 20
"""Bytes that are hashed as one: what threads share out."""
_CHUNK = 1 << 20
_THREADS = 16
_SETTLED_NS = 2_000_000_000
"""How long a file must have lain still to be remembered: within one tick of a clock it may change again."""
_BOOK = "contents.json"


def hashes(files: Sequence[Path], cache_dir: Path | None) -> list[str]:
    """SHA-256 (hex) of what each file holds; of one beyond `BLOCK` bytes the hash of its blocks' hashes.

    What was hashed before is remembered in `cache_dir`, if there is one. Raises QevalError for a file that
    cannot be read, or changes while it is.
    """
    known = _read(cache_dir)
    names = [str(path.resolve()) for path in files]
    stamps = [stamp(path) for path in files]
    begun = time.time_ns()
    found = {
        name: known[name][1]
        for name, now in zip(names, stamps, strict=True)
        if known.get(name, ("",))[0] == now
    }
    missing = {name: path for name, path in zip(names, files, strict=True) if name not in found}
    found |= dict(zip(missing, _hashed(list(missing.values())), strict=True))
    for path, before in zip(files, stamps, strict=True):
        if stamp(path) != before:
            raise QevalError(
                f"{path} is changing while it is read.", "Wait until it is complete, and try again."
            )
    still = {
        name: (now, found[name])
        for name, now, path in zip(names, stamps, files, strict=True)
        if name in missing and path.stat().st_ctime_ns < begun - _SETTLED_NS
    }
    if still and cache_dir is not None:
        write_atomic(cache_dir / _BOOK, json.dumps(_read(cache_dir) | still).encode())
    return [found[name] for name in names]


def stamp(path: Path) -> str:
    """What changes whenever a file does: inode, size, mtime and ctime. Raises QevalError without a file."""
    try:
        found = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return f"{found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


def forget(cache_dir: Path) -> None:
    """Trust no remembered hash any more."""
    (cache_dir / _BOOK).unlink(missing_ok=True)


def _read(cache_dir: Path | None) -> dict[str, tuple[str, str]]:
    if cache_dir is None:
        return {}
    try:
        book = reading.json_document(cache_dir / _BOOK)
        return {str(name): (str(when), str(what)) for name, (when, what) in book.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _hashed(files: Sequence[Path]) -> Iterator[str]:
    """The hash of each file, its blocks and those of the others read side by side."""
    places = [[(path, at) for at in range(0, max(path.stat().st_size, 1), BLOCK)] for path in files]
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        found = pool.map(_block, [place for one in places for place in one])
        for one in places:
            yield _joined([next(found) for _ in one])


def _joined(parts: Iterable[bytes]) -> str:
    first, *rest = parts
    return hashlib.sha256(b"".join((first, *rest))).hexdigest() if rest else first.hex()


def _block(place: tuple[Path, int]) -> bytes:
    path, at = place
    seen, buffer, left = hashlib.sha256(), memoryview(bytearray(_CHUNK)), BLOCK
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(at)
            while left and (count := file.readinto(buffer[: min(_CHUNK, left)])):
                seen.update(buffer[:count])
                left -= count
    except OSError as error:
        raise _unreadable(path, error) from error
    return seen.digest()


def _unreadable(path: Path, error: OSError) -> QevalError:
    return QevalError(
        f"{path} cannot be read: {error.strerror}.", "Check that it is there, and its permissions."
    )
