"""Files that a command was to write and, being refused, did not: an older one in their place is said to be
older, for whoever opens it takes it for the new one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import click

from qeval.cli.speech import say

_MOST = 10_000
"""Files of a directory that are looked at."""
_Stamp = tuple[int, int, int]


@contextlib.contextmanager
def told(outputs: Sequence[Path]) -> Iterator[None]:
    """Within it, an error or Ctrl-C is followed by a note for each output, a file or a directory of files, of
    which something stands as it stood before."""
    before = {path: _stamps(path) for path in outputs}
    try:
        yield
    except (click.exceptions.Exit, click.Abort):
        raise  # whoever ends a command by a code has said what there is to say
    except (Exception, KeyboardInterrupt):
        for path, stamps in before.items():
            after = _stamps(path)
            old = sum(after.get(file) == stamp for file, stamp in stamps.items())
            if old:
                what = "" if stamps.keys() == {path} else "what lies in " if old == len(after) else "part of "
                say(f"Note: {what}{path} is of an earlier command; this one wrote nothing there.", err=True)
        raise


def _stamps(path: Path) -> dict[Path, _Stamp]:
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


def named(command: click.Command, words: Sequence[str]) -> list[Path]:
    """The outputs that words name which could not be parsed."""
    from qeval.base.places import at_home

    names = [name for one in command.params if _is_output(one) for name in one.opts]
    ahead = list(words[: words.index("--")] if "--" in words else words)
    found = []
    for place, word in enumerate(ahead):
        option, equals, value = word.partition("=")
        if option in names:
            value = value if equals else next(iter(ahead[place + 1 :]), "")
        elif word[:2] in names and not word.startswith("--"):
            value = word[2:]
        else:
            continue
        if value:
            found.append(at_home(value))
    return found


def parsed(ctx: click.Context) -> list[Path]:
    """The outputs of words that were parsed."""
    values = [ctx.params.get(one.name or "") for one in ctx.command.params if _is_output(one)]
    every = [part for value in values for part in (value if isinstance(value, tuple) else (value,))]
    return [Path(os.fspath(one)) for one in every if one]


def _is_output(parameter: click.Parameter) -> bool:
    """Whether a parameter names what the command writes (`options.Output`)."""
    return getattr(parameter.type, "written", False)
