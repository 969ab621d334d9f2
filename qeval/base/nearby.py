"""The file or folder that is most likely meant by a path to none: one beside it, of a name like its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

_FILES = (".toml", ".yaml", ".yml")
_ALIKE = 0.6


def nearest(path: Path, fits: Callable[[Path], bool]) -> Path | None:
    """What stands beside `path`, fits, and has the name most like its own; where its folder is missing, its
    own name in the folder most like that one. None where nothing is like it, or the folder cannot be read."""
    from difflib import get_close_matches  # takes 10 ms, and is needed only before an error

    try:
        if not path.parent.is_dir():
            folder = nearest(path.parent, Path.is_dir) if path.parent != path else None
            found = None if folder is None else folder / path.name
            return found if found is not None and fits(found) else None
        beside = [one for one in path.parent.iterdir() if not one.name.startswith(".") and fits(one)]
    except OSError:
        return None
    words = {_word(one): one for one in sorted(beside)}
    close = get_close_matches(_word(path), words, n=1, cutoff=_ALIKE)
    return words[close[0]] if close else None


def _word(path: Path) -> str:
    """A name without the ending that most files here share, which would make all of them alike."""
    return path.stem if path.suffix in _FILES else path.name
