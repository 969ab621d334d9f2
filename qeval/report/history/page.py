"""A history as a page, one file that needs nothing else, and what a report shows of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


_GOOD, _BAD = ("PASS", "EQUIVALENT", "BETTER"), ("FAIL", "WORSE")
Sign = tuple[str, str, str]
"""A sign of a drawing: the class of its colour, the sign, and what it means."""


def key(entries: Sequence[Entry]) -> tuple[Sign, ...]:
    """The signs that occur in these drawings."""
    strips = [one.strip for one in entries]
    marks = [mark for one in strips for mark in one.marks]
    drawn = [mark for mark in marks if mark.y is not None]
    known = {mark.status for mark in drawn}
    signs = (
        ("k-good", "●", "passes, or is equivalent or better", bool(known & {*_GOOD})),
        ("k-bad", "●", "fails, or is worse than the margin", bool(known & {*_BAD})),
        ("k-plain", "●", "undecided, measurable or not judged", bool(known - {*_GOOD, *_BAD})),
        ("k-soft", "○", "hollow: not a whole measurement", any(mark.kind == "hollow" for mark in drawn)),
        ("k-soft", "×", "no number", len(drawn) < len(marks)),
        ("k-plain", "│", "the interval of a run's Δ", any(mark.low is not None for mark in drawn)),
        ("k-bad", "╌", "the limit or the margin", any(one.limit for one in strips)),
        ("k-warn", "┊", "the line is broken: the runs beside it did not ask the same", _broken(strips)),
    )
    return tuple((colour, sign, said) for colour, sign, said, there in signs if there)


def _broken(strips: Sequence[Strip]) -> bool:
    return any(one.breaks for one in strips)


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
        key_of=key([one for _, lines in groups for one in lines]),
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
    key: tuple[Sign, ...]


def past(found: History) -> Past:
    """The lines of a report's own suite."""
    told = telling(found.series)
    entries = [(one.key.task == told, entry(one)) for one in found.series if not one.own]
    return Past(
        tuple(one for first, one in entries if first),
        tuple(one for first, one in entries if not first),
        tuple(words.conclusion(found)),
        key([one for _, one in entries]),
    )
