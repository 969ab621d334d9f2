"""A history as a page, one file that needs nothing else, and what a report shows of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qeval.report.history import words
from qeval.report.history.drawing import Strip, strip
from qeval.report.history.series import History, Series, telling

_MOST_OPEN = 4
"""Lines of a page up to which the table of each stands open."""


@dataclass(frozen=True)
class Entry:
    """A line in words and as a drawing; `links` lead from names of runs to their reports."""

    heading: str
    about: str
    dates: str
    rows: tuple[words.Told, ...]
    strip: Strip
    own: bool
    judged: bool
    links: Mapping[str, str]


def entry(series: Series, links: Mapping[str, str] | None = None) -> Entry:
    """A line for a page."""
    heading, dates = words.dates(series.points)
    rows = tuple(words.told(series, one, date) for one, date in zip(series.points, dates, strict=True))
    judged = any(row.mark for row in rows)
    return Entry(
        words.heading(series),
        words.about(series),
        heading,
        rows,
        strip(series),
        series.own,
        judged,
        links or {},
    )


def page(found: History, links: Mapping[str, str] | None = None, back: str = "") -> str:
    """The history as a page; `back` is where a list of runs is served, "" in a file."""
    from qeval.report.formats.html import small_page

    groups = [(name, [entry(one, links) for one in lines]) for name, lines in words.groups(found)]
    many = "" if found.runs == 1 else "s"
    return small_page(
        "history.html.j2",
        title="History",
        summary=f"{found.runs} run{many} in time order",
        groups=groups,
        notes=words.conclusion(found),
        nothing=words.NOTHING,
        open=len(found.series) <= _MOST_OPEN,
        back=back,
    )


@dataclass(frozen=True)
class Past:
    """What a report shows of earlier runs: the lines of the row that sums its suite up, and the others."""

    first: tuple[Entry, ...]
    more: tuple[Entry, ...]
    notes: tuple[str, ...]


def past(found: History) -> Past:
    """The lines of a report's own suite."""
    told = telling(found.series)
    entries = [(one.key.task == told, entry(one)) for one in found.series if not one.own]
    return Past(
        tuple(one for first, one in entries if first),
        tuple(one for first, one in entries if not first),
        tuple(words.conclusion(found)),
    )
