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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qeval.base.errors import QevalError, UsageError
from qeval.base.files import disk_errors, write_text

if TYPE_CHECKING:
    from qeval.judge.gate import Outcome


@dataclass(frozen=True)
class Format:
    """A way to show a gate. `help` says what its file is for, as an option; "" where it has none. `unjudged`
    shows a gate that came to no verdict, and why not, by a sentence."""

    name: str
    render: Callable[[Outcome], str]
    help: str = ""
    unjudged: Callable[[str], str] | None = None


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

    $GITHUB_STEP_SUMMARY is appended to; annotations go to stderr, which GitHub reads too, only
    under $GITHUB_ACTIONS. Raises QevalError where a file cannot be written, UsageError for one file that is
    asked for twice.
    """
    _refuse_one_for_two(files)
    for name, path in files.items():
        write_text(path, formats()[name].render(outcome))
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        _append(Path(summary), formats()["github"].render(outcome))
    if os.environ.get("GITHUB_ACTIONS") == "true":
        from qeval.judge.formats.github import github_annotations

        for line in github_annotations(outcome):
            print(line, file=sys.stderr)  # noqa: T201 - the runner reads commands from both streams


@contextlib.contextmanager
def never_stale(files: Mapping[str, Path]) -> Iterator[None]:
    """Where an error comes before a verdict, say so in the files that were asked for: what an earlier gate
    left there would be read as the verdict of this one."""
    try:
        yield
    except QevalError as error:
        several = len({path.resolve() for path in files.values()}) < len(files)  # that is the error
        for name, path in files.items():
            show = formats()[name].unjudged
            if show is not None and path.is_file() and not several:
                with contextlib.suppress(QevalError):  # the first error is the one to be told
                    write_text(path, show(error.message))
        raise


def _refuse_one_for_two(files: Mapping[str, Path]) -> None:
    """Raise UsageError where two formats would be written to one file: the second alone would stay."""
    names: dict[Path, str] = {}
    for name, path in files.items():
        other = names.setdefault(path.resolve(), name)
        if other != name and (path.is_file() or not path.exists()):
            raise UsageError(f"--{other} and --{name} name one file, {path}.", "Name two.")


def _append(path: Path, text: str) -> None:
    """Add text to a file; to what is none, a FIFO say, it is written without waiting for a reader."""
    if path.exists() and not path.is_file():
        write_text(path, text)
        return
    with disk_errors(path), path.open("a", encoding="utf-8") as file:
        file.write(text)
