"""Reports: one computed context, rendered to the formats below.

To add a format, add a template and a line in `FORMATS`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from qeval.errors import QevalError, UsageError, did_you_mean
from qeval.report.context import Context, build
from qeval.report.html import render_html
from qeval.report.markdown import render_markdown

FORMATS: Mapping[str, Callable[[Context], str]] = {".html": render_html, ".md": render_markdown}

__all__ = ["FORMATS", "Context", "build", "render", "render_html", "render_markdown", "write"]


def render(context: Context, path: Path) -> str:
    """The report in the format that the ending of `path` names. Raises UsageError for another ending."""
    renderer = FORMATS.get(path.suffix.lower())
    if renderer is None:
        ending = path.suffix or path.name
        raise UsageError(f"There is no report format {ending!r}.", did_you_mean(path.suffix, FORMATS))
    return renderer(context)


def write(path: Path, text: str) -> None:
    """Write a report whole or not at all: first beside its place, then moved there.

    Raises:
        QevalError: the directory is missing or cannot be written, or `path` is a directory.
    """
    if not path.parent.is_dir():
        raise QevalError(
            f"There is no directory {path.parent} to write {path.name} to.",
            f"Make it: mkdir -p '{path.parent}'",
        )
    if path.is_dir():
        raise QevalError(f"{path} is a directory.", "Name a file, for example report.html in it.")
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.")
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace", newline="\n") as file:
            file.write(text)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _unwritable(path, error) from error
        raise


def _unwritable(path: Path, error: OSError) -> QevalError:
    why = error.strerror or "it cannot be written"
    return QevalError(
        f"{path} cannot be written: {why}.", "Name another place with -o, or free some space there."
    )
