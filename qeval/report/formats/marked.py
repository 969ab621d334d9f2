"""Markdown of our own making: texts that are escaped unless they are of its type, tables, code blocks."""

from __future__ import annotations

import re
from collections.abc import Sequence

from qeval.base.markdown import escape
from qeval.base.text import one_line, visible
from qeval.report.context import Context
from qeval.report.ranking import Entry, Ranking


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


def decision_table(context: Context, *, short: bool = False) -> Markdown:
    """The decision table: what a release is decided by, the best variant first; `short` has five columns."""
    told = context.ranking
    if not told.entries or not context.columns:
        return Markdown("")
    headers = [
        *("Variant", "Verdict", f"{told.title} Δ", "interval"),
        *(("Worst task, Δ",) if told.has_worst else ()),
        *((f"{told.ratio_of}, ratio",) if told.ratio_of else ()),
        *(f"{title}, {unit}" for title, unit, _ in told.fixed),
    ]
    most = _SHORT if short else len(headers)
    rows = [_decided(told, entry)[:most] for entry in (*told.entries, told.reference)]
    return table(headers[:most], rows, words=2)


_SHORT = 5


def _decided(told: Ranking, entry: Entry) -> tuple[str, ...]:
    name = Markdown(f"**{escape(entry.short)}**")
    verdict = f"{entry.verdict.mark} {entry.verdict.word}"
    worst = (entry.worst,) if told.has_worst else ()
    ratio = (entry.ratio,) if told.ratio_of else ()
    return (name, verdict, entry.delta, entry.interval, *worst, *ratio, *entry.fixed)
