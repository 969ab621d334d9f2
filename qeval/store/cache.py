"""What lies in the cache, how large it is and when it was used last; and its removal, of what nobody uses.

    <cache>/checkpoints/<name>   what was quantised here     <cache>/models/<name>   the demo model
    <cache>/fidelity/<key>       what enters heads           <cache>/requests/*.npz  tokenised tasks

and what the compilers of torch and Triton keep, where they keep it. No link is followed, out of the cache or
within it: one in the place of an entry or of a folder is told and left alone.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qeval.base import places, uses
from qeval.base.files import disk_errors

State = Literal["", "unfinished", "in use", "link", "not yours"]
_UNFINISHED = re.compile(r"\.(.+)\.(?:blocks|partial-[a-z0-9_]+)")
_PRUNED = ".pruned-"
"""How what is being removed is called, so that nobody takes a half of it for the whole."""


@dataclass(frozen=True)
class Entry:
    """Something in the cache: `bytes` on disk, and when it was `used` last, in seconds since 1970. `holder`
    is the path by which processes hold it."""

    kind: str
    path: Path
    bytes: int
    used: float
    state: State
    holder: Path

    @property
    def removable(self) -> bool:
        """Whether it may be removed."""
        return self.state in {"", "unfinished"}


def entries(cache_dir: Path) -> tuple[Entry, ...]:
    """Everything in the cache, kind after kind, the largest first."""
    found = [entry for kind, list_ in KINDS.items() for entry in list_(cache_dir, kind)]
    order = list(KINDS)
    return tuple(sorted(found, key=lambda one: (order.index(one.kind), -one.bytes, one.path.name)))


def remove(entry: Entry) -> bool:
    """Remove an entry, if nobody uses it; whether it is gone. Raises QevalError where it cannot be removed.

    It loses its name at once, so that a command that is ended in the middle leaves nothing that looks whole.
    """
    with disk_errors(entry.path.parent), uses.unused(entry.holder, entry.used) as free:
        if not free or entry.path.is_symlink():
            return False
        if not entry.path.is_dir():
            entry.path.unlink(missing_ok=True)
            return True
        doomed = entry.path.with_name(f"{_PRUNED}{os.getpid()}-{entry.path.name.removeprefix(_PRUNED)}")
        try:
            entry.path.rename(doomed)
        except FileNotFoundError:  # another command removed it
            return True
        shutil.rmtree(doomed)  # it follows no link
    return True


def _below(folder: str) -> Callable[[Path, str], Iterator[Entry]]:
    def entries_below(cache_dir: Path, kind: str) -> Iterator[Entry]:
        place = cache_dir / folder
        if place.is_symlink():
            yield _entry(kind, place, place)
            return
        with contextlib.suppress(OSError):
            for one in sorted(os.scandir(place), key=lambda found: found.name):
                path = place / one.name
                unfinished = _UNFINISHED.fullmatch(one.name)
                if unfinished or one.name.startswith(_PRUNED) or not one.name.startswith("."):
                    holder = path.with_name(unfinished[1]) if unfinished else path
                    yield _entry(kind, path, holder, unfinished=path.name.startswith("."))

    return entries_below


def _requests(cache_dir: Path, kind: str) -> Iterator[Entry]:
    """Tokenised tasks, which are read at once and held by nobody, and what was begun of them."""
    for entry in _below(places.REQUESTS)(cache_dir, kind):
        if entry.state == "link" or entry.path.suffix in {".npz", ".part"}:
            yield entry


def _compiled(cache_dir: Path, kind: str) -> Iterator[Entry]:
    for place in places.compiler_caches():
        if place.is_symlink() or place.is_dir():
            yield _entry(kind, place, cache_dir / places.COMPILED, newest=True)


KINDS: Mapping[str, Callable[[Path, str], Iterator[Entry]]] = {
    "checkpoints": _below(places.CHECKPOINTS),
    "models": _below(places.MODELS),
    "inputs": _below(places.INPUTS),
    "requests": _requests,
    "compiled": _compiled,
}
"""Every kind of entry by its name, and what lists them."""


def _entry(kind: str, path: Path, holder: Path, *, unfinished: bool = False, newest: bool = False) -> Entry:
    """An entry; `newest`: used when anything in it was changed last, for nobody notes more of it."""
    size, changed = _measured(path)
    own = path.lstat()
    used = changed if newest else max(own.st_mtime, _header_used(path))
    state: State = "unfinished" if unfinished else ""
    if path.is_symlink():
        state = "link"
    elif hasattr(os, "getuid") and own.st_uid != os.getuid():
        state = "not yours"
    elif not uses.is_free(holder, used):
        state = "in use"
    return Entry(kind, path, size, used, state, holder)


def _header_used(path: Path) -> float:
    """When head inputs were used last, which their header tells."""
    try:
        return (path / "kept.json").lstat().st_mtime
    except OSError:
        return 0.0


def _measured(path: Path) -> tuple[int, float]:
    """The bytes that a file or a folder takes on disk, a file with several names in it once, and when a file
    of it was changed last."""
    seen: set[tuple[int, int]] = set()
    size, newest = 0, 0.0
    for found in _stats(path):
        newest = newest if stat.S_ISDIR(found.st_mode) else max(newest, found.st_mtime)
        if (found.st_dev, found.st_ino) not in seen:
            seen.add((found.st_dev, found.st_ino))
            size += getattr(found, "st_blocks", -(-found.st_size // 512)) * 512
    return size, newest


def _stats(path: Path) -> Iterator[os.stat_result]:
    with contextlib.suppress(OSError):
        yield path.lstat()
        if path.is_dir() and not path.is_symlink():
            for folder, _, files in os.walk(path):  # into no link
                for name in files:
                    with contextlib.suppress(OSError):
                        yield Path(folder, name).lstat()
