"""The formats of a gate: one file each, found by themselves.

A format is a module of this folder with a FORMAT. One with a `help` becomes an option of `qeval gate` that
writes it to a file. Every renderer is a pure function of what `conclude` returned; names in it are untrusted
text.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qeval.base import reading
from qeval.base.errors import QevalError, UsageError
from qeval.base.files import disk_errors, write_text
from qeval.base.text import visible

if TYPE_CHECKING:
    from qeval.judge.gate import Outcome


@dataclass(frozen=True)
class Format:
    """A way to show a gate. `help` says what its file is for, as an option; "" where it has none. `unjudged`
    shows a gate that came to no verdict, and why not, by a sentence; `sign` is what every file of this format
    has near its beginning."""

    name: str
    render: Callable[[Outcome], str]
    help: str = ""
    unjudged: Callable[[str], str] | None = None
    sign: str = ""


@functools.cache
def formats() -> Mapping[str, Format]:
    """Every format, by name: the modules of this folder that have a FORMAT."""
    modules = [
        importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)
    ]
    found = [module.FORMAT for module in modules if hasattr(module, "FORMAT")]
    return {one.name: one for one in found}


def publish(outcome: Outcome, files: Mapping[str, Path]) -> None:
    """Write what files were asked for, by format, and GitHub's summary and annotations where it runs us.

    $GITHUB_STEP_SUMMARY is appended to, and where it cannot be, that is a warning: nobody typed it, and the
    verdict stands. Annotations go to stderr, which GitHub reads too, only under $GITHUB_ACTIONS.
    Raises QevalError where a file cannot be written, UsageError for one file that is asked for twice.
    """
    _refuse_one_for_two(files)
    for name, path in files.items():
        write_text(path, formats()[name].render(outcome))
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        _summarise(Path(summary), outcome)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        from qeval.judge.formats.github import github_annotations

        for line in github_annotations(outcome):
            print(line, file=sys.stderr)  # noqa: T201 - the runner reads commands from both streams


@contextlib.contextmanager
def never_stale(files: Sequence[tuple[str, Path]]) -> Iterator[None]:
    """Where an error, or Ctrl-C, comes before a verdict, say so in the files that were asked for, by format:
    what an earlier gate left there would be read as the verdict of this one."""
    try:
        yield
    except QevalError as error:
        withdraw(files, error.message)
        raise
    except (Exception, KeyboardInterrupt) as error:
        stopped = isinstance(error, KeyboardInterrupt)
        withdraw(files, "The gate was interrupted." if stopped else str(error))
        raise


def withdraw(files: Iterable[tuple[str, Path]], why: str) -> None:
    """Say in those of the files that are there, by format, that a gate came to no verdict, and why not. Of
    several formats for one file it is the one that stands in it."""
    asked: dict[Path, list[str]] = {}
    for name, path in files:
        asked.setdefault(path, []).append(name)
    for path, names in asked.items():
        with contextlib.suppress(QevalError, OSError):  # the first error is the one to be told
            fitting = names if len(set(names)) == 1 else [name for name in names if is_of(path, name)]
            show = formats()[fitting[0]].unjudged if fitting else None
            if show is not None and path.is_file():
                write_text(path, show(why))


def is_of(path: Path, name: str) -> bool:
    """Whether a file looks as one of that format does. Raises OSError where it cannot be read."""
    sign = formats()[name].sign
    if not sign or not path.is_file():
        return False
    with reading.opened(path) as file:
        return sign.encode() in file.read(_NEAR)


_NEAR = 1 << 12
"""The bytes of a file that are looked at for its format's sign."""


def _refuse_one_for_two(files: Mapping[str, Path]) -> None:
    """Raise UsageError where two formats would be written to one file: the second alone would stay."""
    names: dict[Path, str] = {}
    for name, path in files.items():
        other = names.setdefault(path.resolve(), name)
        if other != name and (path.is_file() or not path.exists()):
            raise UsageError(f"--{other} and --{name} name one file, {path}.", "Name two.")


def _summarise(path: Path, outcome: Outcome) -> None:
    try:
        _append(path, formats()["github"].render(outcome))
    except QevalError as error:
        told = f"Warning: the step summary was not written. {error.message}"
        print(visible(f"{told} Set GITHUB_STEP_SUMMARY to a file, or unset it."), file=sys.stderr)  # noqa: T201 - as below


def _append(path: Path, text: str) -> None:
    """Add text to a file; to what is none, a FIFO say, it is written without waiting for a reader."""
    if path.exists() and not path.is_file():
        write_text(path, text)
        return
    with disk_errors(path), path.open("a", encoding="utf-8") as file:
        file.write(text)
