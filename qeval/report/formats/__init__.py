"""The formats of a report: one file each, found by themselves.

A format is a module of this folder with a FORMAT: the endings of the files that it is written to, and a pure
function from the computed context to text.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from qeval.base.errors import UsageError

if TYPE_CHECKING:
    from qeval.report.context import Context
    from qeval.report.history.series import History


@dataclass(frozen=True)
class Options:
    """What a person may wish of a report: `short` enough for a comment, charts as files in `assets`, which
    are named as seen from the directory `beside`, and the lines of earlier runs. A format ignores what it
    does not have."""

    short: bool = False
    assets: Path | None = None
    beside: Path | None = None
    history: History | None = None


@dataclass(frozen=True)
class Format:
    """A way to show a report, for files with one of these `endings`."""

    name: str
    endings: tuple[str, ...]
    render: Callable[[Context, Options], str]


@functools.cache
def formats() -> Mapping[str, Format]:
    """Every format, by ending: the modules of this folder that have a FORMAT."""
    modules = [
        importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)
    ]
    found = [module.FORMAT for module in modules if hasattr(module, "FORMAT")]
    return {ending: one for one in found for ending in one.endings}


def render(context: Context, path: Path, options: Options | None = None) -> str:
    """The report in the format that the ending of `path` names. Raises UsageError for another ending."""
    found = formats().get(path.suffix.lower())
    if found is None:
        ending = path.suffix or path.name
        raise UsageError(f"There is no report format {ending!r}.", f"Known: {', '.join(sorted(formats()))}.")
    wishes = options or Options()
    return found.render(context, replace(wishes, beside=wishes.beside or path.parent))
