"""What is said of a suite's file that is not there, or that is something else: the file that is meant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qeval.ask import other_files
from qeval.ask.other_files import SUITE
from qeval.base.errors import UsageError, did_you_mean
from qeval.base.nearby import nearest
from qeval.base.places import at_home

_ENDINGS = (".toml", *other_files.YAML)
_WRITE = "Name one of: qeval list suites."
_IS = "a suite is a TOML file, or lm-eval's YAML configuration of a run"


def no_suite(name: str, known: Sequence[str]) -> UsageError:
    """That there is no suite of a name; of a path, what is there instead."""
    path = at_home(name)
    if path.is_dir() and name not in known:
        return _folder(name, path)
    if path.is_file():
        return _another(path)
    if path.stem in known and path.suffix == ".toml" and path.name == name:
        return UsageError(f"There is no file {path}.", f"Did you mean {path.stem}, which comes with qeval?")
    if "/" in name or name.endswith(_ENDINGS):
        return no_file(path)
    return UsageError(f"There is no suite {name!r}.", did_you_mean(name, known))


def _folder(name: str, path: Path) -> UsageError:
    suites, tasks = other_files.beside(path, SUITE), other_files.tasks_in(path)
    hint = _WRITE
    if suites:
        hint = f"Name a file in it: {', '.join(suites)}."
    elif tasks:
        hint = f"Name tasks in it with: {other_files.named(','.join(tasks[:_FEW]), path)}"
    return UsageError(f"{name} is a folder, and a suite is a file.", hint)


_FEW = 3
"""Tasks of a folder that are named for an example."""


def _another(path: Path) -> UsageError:
    """That a file is there, and is no suite by its ending or by what it holds."""
    found = other_files.found(path)
    if found is None:
        return UsageError(f"{path} is no suite: {_IS}, with the ending .toml or .yaml.", _WRITE)
    if found.what == other_files.DATA:
        return UsageError(f"{path} holds data, and {_IS}.", found.remedy)
    return UsageError(f"{path} {found.words}, not a suite.", found.remedy)


def no_file(path: Path) -> UsageError:
    """That there is no such file, or no folder that it could be in, and which is most likely meant."""
    near = nearest(path, lambda one: one.is_file() and one.suffix in _ENDINGS)
    what = f"file {path}" if path.parent.is_dir() else f"folder {path.parent}"
    return UsageError(f"There is no {what}.", f"Did you mean {near}?" if near else _WRITE)


def refuse_another(path: Path) -> None:
    """Raise UsageError where a file is of another kind than a suite: a policy, a table of scores, lm-eval's
    YAML of a task or a group; what cannot be read is left to whoever reads it."""
    found = other_files.found(path)
    if found is not None and found.what != SUITE:
        raise _another(path)


def no_task(name: str, suites: Sequence[str]) -> str:
    """A hint for what stands among --tasks and is a suite, a file or a folder; "" for any other name."""
    path = at_home(name)
    if name in suites:
        return f"It is a suite: --suite {name}"
    if path.is_file():
        found = other_files.found(path)
        return "" if found is None else f"It {found.words}. {found.remedy}"
    tasks = other_files.tasks_in(path) if path.is_dir() and "/" in name else []
    return f"It is a folder. Name tasks in it with: {other_files.named(tasks[0], path)}" if tasks else ""
