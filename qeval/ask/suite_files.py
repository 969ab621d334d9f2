"""What is said of a suite's file that is not there, or that is something else: the file that is meant."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from qeval.base import reading
from qeval.base.errors import UsageError, did_you_mean
from qeval.base.nearby import nearest
from qeval.base.places import at_home

_ENDINGS = (".toml", ".yaml", ".yml")
_NAMED = re.compile(r"^(task|group)[ \t]*:[ \t]*[\"']?([\w./-]+)[\"']?[ \t\r]*(?:#.*)?$", re.MULTILINE)
_ASKS = re.compile(r"^tasks[ \t]*:", re.MULTILINE)
_WRITE = "Name one of: qeval list suites."


def no_suite(name: str, known: Sequence[str]) -> UsageError:
    """That there is no suite of a name; of a path, what is there instead."""
    path = at_home(name)
    if path.is_dir() and name not in known:
        found = [str(one) for one in sorted(path.glob("*.toml"))]
        inside = f"Name a file in it: {', '.join(found)}." if found else _WRITE
        return UsageError(f"{name} is a folder, and a suite is a file.", inside)
    if "/" in name or name.endswith(_ENDINGS):
        return no_file(path)
    return UsageError(f"There is no suite {name!r}.", did_you_mean(name, known))


def no_file(path: Path) -> UsageError:
    """That there is no such file, or no folder that it could be in, and which is most likely meant."""
    near = nearest(path, lambda one: one.is_file() and one.suffix in _ENDINGS)
    what = f"file {path}" if path.parent.is_dir() else f"folder {path.parent}"
    return UsageError(f"There is no {what}.", f"Did you mean {near}?" if near else _WRITE)


def refuse_task(path: Path) -> None:
    """Raise UsageError where a file is lm-eval's YAML of a task or a group, which its own options name; what
    cannot be read is left to whoever reads it."""
    text = ""
    with contextlib.suppress(OSError, ValueError):
        text = reading.text(path, reading.TABLE)
    named = dict(_NAMED.findall(text))
    name = named.get("group") or named.get("task")
    if name and not _ASKS.search(text):
        what = "group" if "group" in named else "task"
        words = f"--tasks {shlex.quote(name)} --tasks-dir {shlex.quote(str(path.parent))}"
        raise UsageError(f"{path} is a {what}, not a suite.", f"Name it with: {words}")
