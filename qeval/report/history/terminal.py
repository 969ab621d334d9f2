"""A history for a terminal: a table of runs and a strip of marks for each line."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from qeval.base import layout
from qeval.base.layout import GAP, Column, columns_of, wrapped
from qeval.base.text import one_line
from qeval.compare import wording
from qeval.report.history import words
from qeval.report.history.series import History, Point, Series, telling
from qeval.report.verdicts import MARKS

WIDTH = 80
"""Columns where nobody says how many there are."""
_MOST_TABLES = 6


@dataclass(frozen=True)
class Signs:
    """What a strip is drawn with, the lowest level first; `more`: that older runs are left out."""

    levels: str
    broken: str
    none: str
    hollow: str
    more: str
    delta: str
    marks: Mapping[str, str]


UNICODE = Signs("▁▂▃▄▅▆▇█", "│", "·", "○", "…", wording.DELTA, MARKS)
_IN_ASCII = {"✓": "+", "✕": "x", "∅": "0", "▼": "v", "▲": "^", "≈": "~", "…": "."}
ASCII = Signs("_.-=+*#@", "|", ".", "o", "<", "delta", MARKS)


def text(found: History, *, plain: bool = False, width: int = WIDTH) -> str:
    """The history. Where many lines are wanted, those of each suite's first row have tables and the others a
    strip alone. `plain`: in ASCII; `width`: columns that a line may have."""
    signs = ASCII if plain else UNICODE
    blocks = [block for group in words.groups(found) for block in _group(*group, signs, width)]
    blocks = blocks or [words.NOTHING]
    ending = "\n".join(_wrapped(line, width) for line in words.conclusion(found))
    joined = "\n\n".join([*blocks, *([ending] if ending else [])])
    return _in_ascii(joined) if plain else joined


def _in_ascii(joined: str) -> str:
    return joined.translate({ord(sign): other for sign, other in _IN_ASCII.items()})


def _group(title: str, lines: Sequence[Series], signs: Signs, width: int) -> Iterator[str]:
    yield _wrapped(one_line(title), width)
    tables, strips = list(lines), []
    if len(lines) > _MOST_TABLES:
        first = telling(lines)
        tables = [one for one in lines if one.key.task == first and not one.own]
        strips = [one for one in lines if one not in tables and not one.own]
    yield from (_table(one, signs, width) for one in tables)
    if strips:
        yield "\n".join(_strips(strips, signs, width))


def _strips(lines: Sequence[Series], signs: Signs, width: int) -> Iterator[str]:
    """A strip for each line, under it what is found of each run, beside it the last run."""
    yield _wrapped("The other lines, up is better, the last run beside them:", width)
    third = width // 3
    drawn = [_newest(*strip(one, signs), third, signs) for one in lines]
    labels = [one_line(f"{one.key.variant} on {one.key.title}") for one in lines]
    last = [_last(one) for one in lines]
    middle = max(len(above) for above, _ in drawn)
    end = min(max(map(columns_of, last)), third)
    first = min(max(map(columns_of, labels)), width - middle - end - 2 * GAP)
    for label, strips, told in zip(labels, drawn, last, strict=True):
        cells = zip_longest(textwrap.wrap(label, first), strips, textwrap.wrap(told, end), fillvalue="")
        rows = (f"{one:{first}}  {two:{middle}}  {three}".rstrip() for one, two, three in cells)
        yield from (row for row in rows if row)
    lacking = dict.fromkeys(lack for one in lines for point in one.points for lack in point.lacks)
    if lacking:
        what = one_line("; ".join(lacking))
        yield _wrapped(f"{signs.hollow} here: {what}. With --task each run says what it lacks.", width, "  ")


def _last(series: Series) -> str:
    """The newest run, whatever came of it."""
    point = series.points[-1]
    made = words.told(series, point, "")
    return one_line(
        f"{made.value} {made.mark}".rstrip() if point.value is not None else f"none: {made.notes}"
    )


_BRIEF = {"MISSING": "missing", "EQUIVALENT": "equivalent", "MEASURABLE": "measurable", "WORSE": "worse"}
"""Verdicts as short as a column of the table holds them; the margin stands above it."""


def _verdict(point: Point) -> str:
    brief = point.words.partition(", perhaps")[0].replace(" a proved ", " a ")
    words = _BRIEF.get(point.status, "better" if point.status == "BETTER" else brief)
    return f"{MARKS[point.status]} {words}" if point.status else ""


def _table(series: Series, signs: Signs, width: int) -> str:
    """A heading, the runs, what breaks the line, and the strip."""
    heading, dates = words.dates(series.points)
    shown = [words.told(series, one, date) for one, date in zip(series.points, dates, strict=True)]
    judged = any(one.mark for one in shown)
    columns = [
        Column(heading),
        Column("run", leads=True),
        Column("rev", goes=3),
        Column("n", "right", goes=2),
        Column("score" if series.own else signs.delta, "right"),
        *[Column("interval", goes=1)] * (not series.own),
        *[Column("verdict")] * judged,
    ]
    rows = []
    for one, point in zip(shown, series.points, strict=True):
        cells = [one.date, words.run_name(one_line(one.run)), one_line(one.revision), one.n, one.value]
        rows.append([*cells, *[one.interval] * (not series.own), *[_verdict(point)] * judged])
    body, lines, titles = _lines(columns, rows, width)
    for line, one in zip(lines, shown, strict=True):
        body += [_wrapped(f"-- broken: {one_line(one.apart)}", width, "   ")] if one.apart else []
        body.append(line)
        body += [_wrapped(f"   ! {one_line(one.notes)}", width, "     ")] if one.notes else []
    about = words.about(series, intervals="interval" in titles).replace(wording.DELTA, signs.delta)
    head = _wrapped(f"{one_line(words.heading(series))}: {one_line(about)}", width)
    return "\n".join([head, *body, *_strip_lines(series, signs, width)])


def _lines(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int
) -> tuple[list[str], Sequence[str], Collection[str]]:
    """The head of a table, a text for each of its rows (a line, or where no table fits a block), and the
    titles of the columns that are shown."""
    text, titles = layout.with_titles(columns, rows, width)
    head, *lines = [line.rstrip() for line in text.split("\n")]
    if len(lines) == len(rows) + 1 and not lines[0].strip("- "):
        return [head, lines[0]], lines[1:], titles
    return [], [layout.block(columns, row, width) for row in rows], {column.title for column in columns}


def _strip_lines(series: Series, signs: Signs, width: int) -> Iterator[str]:
    """The strip with the limit as a level of its own, and the verdicts under it."""
    line, marks = _newest(*strip(series, signs), width, signs)
    low, high = _reach(series)
    ends = f"{words.number(series, low)} to {words.number(series, high)}, up is better"
    limit = words.limits(series)
    at = [point.allowed for point in series.points if point.allowed is not None]
    level = f"; {limit} at {_level(-at[-1], low, high, signs)}" if at else ""
    told = f"{ends}{level}" if series.measured else ""
    beside = columns_of(f"{line}  {told}") <= width
    yield f"{line}  {told}".rstrip() if beside else line
    if marks.strip():
        yield marks.rstrip()
    if not beside:
        yield _wrapped(told, width)


def _newest(above: str, below: str, room: int, signs: Signs) -> tuple[str, str]:
    """As much of a strip as there is room for, its newest runs."""
    if len(above) <= room:
        return above, below
    return signs.more + above[1 - room :], " " + below[1 - room :]


def strip(series: Series, signs: Signs) -> tuple[str, str]:
    """A sign for each run, and under it its verdict, or that it is no whole measurement; the limit is within
    the reach of the levels."""
    low, high = _reach(series)
    above, below = "", ""
    for point in series.points:
        if point.apart:
            above, below = above + signs.broken, below + signs.broken
        above += signs.none if point.value is None else _level(point.value, low, high, signs)
        below += signs.hollow if point.lacks else signs.marks.get(point.status, " ")
    return above, below


def _reach(series: Series) -> tuple[float, float]:
    """The lowest and the highest value that a strip shows: of all points, the limit, and no difference."""
    values = [point.value for point in series.points if point.value is not None]
    values += [-point.allowed for point in series.points if point.allowed is not None]
    values = [one for one in values if math.isfinite(one)] + ([] if series.own else [0.0])
    return (min(values), max(values)) if values else (0.0, 0.0)


def _level(value: float, low: float, high: float, signs: Signs) -> str:
    if not high > low:
        return signs.levels[len(signs.levels) // 2]
    share = (min(max(value, low), high) - low) / (high - low)
    return signs.levels[round(share * (len(signs.levels) - 1))]


def _wrapped(line: str, width: int, indent: str = "") -> str:
    return wrapped(line, width, len(indent))
