"""Reports: one computed context, rendered to the formats below.

To add a format, add a template and a line in `FORMATS`.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

from qeval.base.errors import QevalError, UsageError, did_you_mean
from qeval.base.files import write_atomic
from qeval.report.context import Context, build
from qeval.report.formats.html import render_html
from qeval.report.formats.markdown import render_markdown

FORMATS: Mapping[str, Callable[[Context], str]] = {".html": render_html, ".md": render_markdown}

__all__ = [
    "FORMATS",
    "Context",
    "build",
    "render",
    "render_html",
    "render_markdown",
    "write",
    "write_bytes",
]


def render(context: Context, path: Path, *, assets: Path | None = None, short: bool = False) -> str:
    """The report in the format that the ending of `path` names; `assets` and `short` as `render_markdown`
    has them, for Markdown alone. Raises UsageError for another ending."""
    renderer = FORMATS.get(path.suffix.lower())
    if renderer is None:
        ending = path.suffix or path.name
        raise UsageError(f"There is no report format {ending!r}.", did_you_mean(path.suffix, FORMATS))
    if renderer is render_markdown:
        return render_markdown(context, assets=assets, short=short, beside=path.parent)
    return renderer(context)


def write(path: Path, text: str) -> None:
    """Write a report whole or not at all, as UTF-8. Raises what `write_bytes` raises."""
    write_bytes(path, text.encode("utf-8", "replace"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: first beside its place, then moved there.

    Raises:
        QevalError: the directory is missing or cannot be written, or `path` is a directory.
    """
    if not path.parent.is_dir():
        raise QevalError(
            f"There is no directory {path.parent} to write {path.name} to.",
            f"Make it: mkdir -p {shlex.quote(str(path.parent))}",
        )
    if path.is_dir():
        raise QevalError(f"{path} is a directory.", "Name a file, for example report.html in it.")
    try:
        write_atomic(path, data)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> QevalError:
    why = error.strerror or "it cannot be written"
    return QevalError(
        f"{path} cannot be written: {why}.", "Name another place with -o, or free some space there."
    )
