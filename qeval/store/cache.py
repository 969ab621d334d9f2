"""What lies in the cache, how large it is and when it was used last; and its removal, of what nobody uses.

    <cache>/checkpoints/<name>   what was quantised here     <cache>/models/<name>   the demo model
    <cache>/fidelity/<key>       what enters heads           <cache>/requests/*.npz  tokenised tasks

and what the compilers of torch and Triton keep, where they keep it. A folder is qeval's own where it holds
what qeval puts there; another one is told and left alone, and so is a link in the place of an entry or of a
folder: none is followed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qeval.base import places, uses
from qeval.base.files import disk_errors

State = Literal["", "unfinished", "in use", "link", "not yours", "not qeval's"]
_UNFINISHED = re.compile(r"\.(.+)\.(?:blocks|partial-[a-z0-9_]+)")
_PRUNED = ".pruned-"
"""How what is being removed is called, so that nobody takes a half of it for the whole."""
_HEADER = "kept.json"
_DEMO = re.compile(r"smollm2-135m-instruct-.+-\d+")
_HASH = r"[a-z2-7]{40,}|[A-Z2-7]{52}|[0-9a-f]{64}"
_COMPILED = {
    rf"{_HASH}|{re.escape(_PRUNED)}[0-9]+-.+": r".*",
    r"[a-z2-7]{2}": rf"({_HASH})(\..+)?",
    r"aotautograd|fxgraph": rf"({_HASH})|[a-z2-7]{{2}}",
    r"triton": r"[0-9]+",
}
"""What torch's compiler and Triton call their folders, and all that lies in them: by hashes, mostly."""


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
    Of what compilers keep, the folder itself stays, and what else is in it.
    """
    with disk_errors(entry.path.parent), uses.unused(entry.holder, entry.used) as free:
        if not free or entry.path.is_symlink():
            return False
        for path in _of_compilers(entry.path) if entry.kind == "compiled" else (entry.path,):
            _gone(path)
    return True


def _gone(path: Path) -> None:
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    doomed = path.with_name(f"{_PRUNED}{os.getpid()}-{path.name.rpartition(_PRUNED)[2]}")
    with contextlib.suppress(FileNotFoundError):  # another command removed it
        path.rename(doomed)
        shutil.rmtree(doomed)  # it follows no link


def _below(folder: str, ours: Callable[[Path], bool]) -> Callable[[Path, str], Iterator[Entry]]:
    """What lists the entries of a folder; `ours` says of a whole one whether qeval made it."""

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
                    begun = path.name.startswith(".")
                    state: State = "unfinished" if begun else "" if ours(path) else "not qeval's"
                    yield _entry(kind, path, holder, state)

    return entries_below


def _requests(cache_dir: Path, kind: str) -> Iterator[Entry]:
    """Tokenised tasks, which are read at once and held by nobody, and what was begun of them."""
    for entry in _below(places.REQUESTS, lambda path: not path.is_dir())(cache_dir, kind):
        if entry.state == "link" or entry.path.suffix in {".npz", ".part"}:
            yield entry


def _compiled(cache_dir: Path, kind: str) -> Iterator[Entry]:
    for place in places.compiler_caches():
        if place.is_symlink() or _of_compilers(place):
            yield _entry(kind, place, cache_dir / places.COMPILED)


def _of_compilers(place: Path) -> tuple[Path, ...]:
    """The folders that a compiler made in a place, which may be one for other things too."""
    try:
        names = sorted(one.name for one in os.scandir(place) if one.is_dir(follow_symlinks=False))
    except OSError:
        return ()
    return tuple(place / name for name in names if _is_compiled(place / name))


def _is_compiled(folder: Path) -> bool:
    inner = next((inside for own, inside in _COMPILED.items() if re.fullmatch(own, folder.name)), None)
    try:
        return inner is not None and all(re.fullmatch(inner, one.name) for one in folder.iterdir())
    except OSError:
        return False


def _holding(name: str) -> Callable[[Path], bool]:
    """Whether a folder holds a file that qeval writes into each of its kind."""
    return lambda path: (path / name).is_file()


KINDS: Mapping[str, Callable[[Path, str], Iterator[Entry]]] = {
    "checkpoints": _below(places.CHECKPOINTS, _holding("qeval.json")),
    "models": _below(places.MODELS, lambda path: bool(_DEMO.fullmatch(path.name))),
    "inputs": _below(places.INPUTS, _holding(_HEADER)),
    "requests": _requests,
    "compiled": _compiled,
}
"""Every kind of entry by its name, and what lists them."""


def _entry(kind: str, path: Path, holder: Path, state: State = "") -> Entry:
    """An entry. What compilers keep was used when anything in it was changed last: no more is noted of it."""
    compiled = kind == "compiled" and not path.is_symlink()
    size, changed = _measured(_of_compilers(path) if compiled else (path,))
    own = path.lstat()
    used = changed if compiled else max(own.st_mtime, _header_used(path))
    if path.is_symlink():
        state = "link"
    elif hasattr(os, "getuid") and own.st_uid != os.getuid():
        state = "not yours"
    elif state != "not qeval's" and not uses.is_free(holder, used):
        state = "in use"
    return Entry(kind, path, size, used, state, holder)


def _header_used(path: Path) -> float:
    """When head inputs were used last, which their header tells."""
    try:
        return (path / _HEADER).lstat().st_mtime
    except OSError:
        return 0.0


def _measured(paths: Iterable[Path]) -> tuple[int, float]:
    """The bytes that files or folders take on disk, a file with several names in them once, and when a file
    of them was changed last."""
    seen: set[tuple[int, int]] = set()
    size, newest = 0, 0.0
    for found in (one for path in paths for one in _stats(path)):
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
