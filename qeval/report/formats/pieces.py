"""Pieces of Markdown: tables, code blocks and lines of untrusted text, escaped for where they stand."""

from __future__ import annotations

import re
from collections.abc import Sequence

from qeval.base.markdown import escape
from qeval.base.text import one_line, visible


class Markdown(str):
    """Text that is Markdown already; every other text is escaped when it is rendered."""

    __slots__ = ()


def as_html(text: str) -> Markdown:
    """Untrusted text for a line that Markdown leaves to HTML, such as <summary>."""
    from markupsafe import escape as escaped

    return Markdown(escaped(one_line(text)))


def fenced(text: str) -> Markdown:
    """Text in a code block whose fence is longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    body = visible(text.replace("\r\n", "\n").replace("\r", "\n"))
    return Markdown(f"{fence}text\n{body}\n{fence}")


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 1) -> Markdown:
    """A GitHub table of untrusted cells; the first `words` columns are words, the rest numbers."""
    from tabulate import tabulate

    align = ["left" if place < words else "right" for place in range(len(headers))]
    cells = [[_cell(cell) for cell in row] for row in rows]
    text = tabulate(
        cells,
        [_cell(h) for h in headers],
        tablefmt="github",
        disable_numparse=True,
        colalign=align if rows else None,
    )
    return Markdown(text)


def _cell(text: str) -> str:
    return str(text) if isinstance(text, Markdown) else escape(text)
