"""What a folder of copies of the Hub's repositories says that it holds, and whether that is still so."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Literal

import msgspec

from qeval.base import contents, reading
from qeval.base.errors import QevalError
from qeval.base.files import write_atomic

Kind = Literal["model", "dataset"]
BOOK = "fetched.json"
MODELS = "models"
"""The folder of models: no organisation of the Hub can have this name."""
_SHA256 = 64
"""The length of such a hash in hexadecimal digits; any other is git's own."""


class Copy(msgspec.Struct, frozen=True):
    """A repository as it was copied; `files` are sizes by name, `sums` hashes by name: the SHA-256, or the id
    that git gives a file. `pinned` is the revision that a data set was asked for by. One without a commit was
    being put in its place when a command ended."""

    kind: Kind
    repo: str
    place: str
    commit: str
    files: dict[str, int]
    revision: str | None = None
    parts: tuple[str, ...] = ()
    sums: dict[str, str] = {}
    pinned: str | None = None

    @property
    def bytes(self) -> int:
        """How much it takes."""
        return sum(self.files.values())


class _Book(msgspec.Struct):
    copies: tuple[Copy, ...] = ()
    schema: int = 1


def copies(to: Path) -> tuple[Copy, ...]:
    """What a folder says that it holds; nothing where it says nothing that can be read."""
    try:
        return msgspec.json.decode(reading.content(to / BOOK), type=_Book).copies
    except (OSError, msgspec.MsgspecError):
        return ()


def known(to: Path, place: str) -> Copy | None:
    """What is told of a place below the folder."""
    return next((copy for copy in copies(to) if copy.place == place), None)


def note(to: Path, copy: Copy) -> None:
    """Write down what lies in a place from now on."""
    others = [one for one in copies(to) if one.place != copy.place]
    book = _Book(tuple(sorted([*others, copy], key=lambda one: one.place)))
    write_atomic(to / BOOK, msgspec.json.format(msgspec.json.encode(book), indent=2) + b"\n")


def whole(to: Path, copy: Copy) -> bool:
    """Whether every file of a copy holds what it did when it was noted."""
    folder = to / copy.place
    return (
        bool(copy.commit)
        and all(length(folder / name) == size for name, size in copy.files.items())
        and all(_still(folder / name, copy.sums.get(name, "")) for name in copy.files)
    )


def strange(to: Path, copy: Copy) -> list[str]:
    """The files in a copy's place that no call wrote, by name."""
    folder = to / copy.place
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_symlink() or path.is_file())
    return sorted(str(name) for name in found if name.as_posix() not in copy.files and not _of_hub(name))


def changed(to: Path, copy: Copy) -> list[str]:
    """The files of a copy that hold something else than they did when it was noted, by name."""
    folder = to / copy.place
    there = [name for name in copy.files if copy.commit and (folder / name).is_file()]
    return [name for name in there if name in copy.sums and not _still(folder / name, copy.sums[name])]


def _of_hub(name: Path) -> bool:
    """Whether a file is one that huggingface_hub puts beside what it fetches."""
    return name.parts[:2] == (".cache", "huggingface")


def _still(path: Path, told: str) -> bool:
    """Whether a file's hash is still the one noted; a file that does not change is read once."""
    try:
        return bool(told) and path.is_file() and _remembered(path, contents.stamp(path), told) == told
    except (OSError, QevalError):
        return False


@functools.cache
def _remembered(path: Path, stamp: str, like: str) -> str:
    del stamp  # another one is another file
    return sum_of(path, like)


def sum_of(path: Path, like: str = "") -> str:
    """The hash of a file, of the kind that another one is: SHA-256, or the id that git gives it."""
    with path.open("rb") as opened:
        if len(like) == _SHA256:
            return hashlib.file_digest(opened, "sha256").hexdigest()
        begun = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
        return hashlib.file_digest(opened, lambda: begun).hexdigest()


def length(path: Path) -> int | None:
    """How many bytes a file has; None where it cannot be asked."""
    try:
        return path.stat().st_size
    except OSError:
        return None
