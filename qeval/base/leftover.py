"""Files that a command was to write and, being refused, did not: an older one in their place is said to be
older, for whoever opens it takes it for the new one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

_MOST = 10_000
"""Files of a directory that are looked at."""
Stamp = tuple[int, int, int]


def stamps(path: Path) -> dict[Path, Stamp]:
    """What tells whether files were written: those of a directory, or the one that `path` is."""
    files: Iterable[Path] = [path]
    with contextlib.suppress(OSError):
        files = islice(sorted(path.rglob("*")), _MOST) if path.is_dir() else files
    found = {}
    for file in files:
        with contextlib.suppress(OSError):
            if file.is_file():
                told = file.stat()
                found[file] = (told.st_ino, told.st_mtime_ns, told.st_size)
    return found


def sentences(before: Mapping[Path, Mapping[Path, Stamp]]) -> Iterator[str]:
    """A note for each output, a file or a directory of files, of which something stands as it stood
    `before`."""
    for path, there in before.items():
        after = stamps(path)
        old = sum(after.get(file) == stamp for file, stamp in there.items())
        if old:
            what = "" if there.keys() == {path} else "what lies in " if old == len(after) else "part of "
            yield f"Note: {what}{path} is of an earlier command; this one wrote nothing there."
