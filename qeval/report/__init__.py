"""Reports: one computed context, rendered to the formats below.

To add a format, add a template and a line in `FORMATS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from qeval.base.errors import UsageError, did_you_mean
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
