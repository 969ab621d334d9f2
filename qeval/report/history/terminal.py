"""A history for a terminal of 80 columns: a table of runs and a strip of marks for each line."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from qeval.base.text import one_line
from qeval.report.history import words
from qeval.report.history.series import History, Point, Series, telling
from qeval.report.verdicts import MARKS

WIDTH = 80
_MOST_TABLES = 6


@dataclass(frozen=True)
class Signs:
    """What a strip is drawn with, the lowest level first."""

    levels: str
    broken: str
    none: str
    hollow: str
    marks: Mapping[str, str]


UNICODE = Signs("▁▂▃▄▅▆▇█", "│", "·", "○", MARKS)
_IN_ASCII = {"✓": "+", "✕": "x", "∅": "0", "▼": "v", "▲": "^", "≈": "~", "…": "."}
ASCII = Signs("_.-=+*#@", "|", ".", "o", MARKS)


def text(found: History, *, plain: bool = False) -> str:
    """The history. Where many lines are wanted, those of each suite's first row have tables and the others a
    strip alone. `plain`: in ASCII."""
    signs = ASCII if plain else UNICODE
    blocks = [block for group in words.groups(found) for block in _group(*group, signs)]
    blocks = blocks or [words.NOTHING]
    ending = "\n".join(_wrapped(line) for line in words.conclusion(found))
    joined = "\n\n".join([*blocks, *([ending] if ending else [])])
    return _in_ascii(joined) if plain else joined


def _in_ascii(joined: str) -> str:
    return joined.translate({ord(sign): other for sign, other in _IN_ASCII.items()})


def _group(title: str, lines: Sequence[Series], signs: Signs) -> Iterator[str]:
    yield _wrapped(one_line(title))
    tables, strips = list(lines), []
    if len(lines) > _MOST_TABLES:
        first = telling(lines)
        tables = [one for one in lines if one.key.task == first and not one.own]
        strips = [one for one in lines if one not in tables and not one.own]
    yield from (_table(one, signs) for one in tables)
    if strips:
        wide = max(len(_brief(one)) for one in strips)
        rows = [f"{_brief(one):{wide}}  {strip(one, signs)[0]}  {_last(one)}" for one in strips]
        yield "\n".join(["The other lines, up is better, the last number beside them:", *rows])


def _brief(series: Series) -> str:
    return one_line(f"{series.key.variant} on {series.key.task}")[:36]


def _last(series: Series) -> str:
    point = next(point for point in reversed(series.points) if point.value is not None)
    made = words.told(series, point, "")
    return f"{made.value} {made.mark}".rstrip()


_BRIEF = {"MISSING": "missing", "EQUIVALENT": "equivalent", "MEASURABLE": "measurable", "WORSE": "worse"}
"""Verdicts as short as a column of the table holds them; the margin stands above it."""


def _verdict(point: Point) -> str:
    words = _BRIEF.get(point.status, "better" if point.status == "BETTER" else point.words)
    return f"{MARKS[point.status]} {words}" if point.status else ""


def _table(series: Series, signs: Signs) -> str:
    """A heading, the runs, what breaks the line, and the strip."""
    from tabulate import tabulate

    heading, dates = words.dates(series.points)
    shown = [words.told(series, one, date) for one, date in zip(series.points, dates, strict=True)]
    judged = any(one.mark for one in shown)
    compared = not series.own
    headers = [heading, "run", "rev", "n", "score" if series.own else "change"]
    headers += ["interval"] * compared + ["verdict"] * judged
    rows = []
    for one, point in zip(shown, series.points, strict=True):
        cells = [one.date, words.run_name(one_line(one.run)), one.revision, one.n, one.value]
        rows.append([*cells, *[one.interval] * compared, *[_verdict(point)] * judged])
    align = ["left", "left", "left", "right", "right", "left", "left"][: len(headers)]
    made = tabulate(rows, headers, tablefmt="simple", disable_numparse=True, colalign=align).splitlines()
    body = made[:2]
    for line, one in zip(made[2:], shown, strict=True):
        body += [_wrapped(f"-- broken: {one_line(one.apart)}", "   ")] if one.apart else []
        body.append(line.rstrip())
        body += [_wrapped(f"   ! {one_line(one.notes)}", "     ")] if one.notes else []
    head = _wrapped(f"{one_line(words.heading(series))}: {one_line(words.about(series))}")
    return "\n".join([head, *body, *_strip_lines(series, signs)])


def _strip_lines(series: Series, signs: Signs) -> Iterator[str]:
    """The strip with the limit as a level of its own, and the verdicts under it."""
    line, marks = strip(series, signs)
    low, high = _reach(series)
    ends = f"{words.number(series, low)} to {words.number(series, high)}, up is better"
    limit = words.limits(series)
    at = [point.allowed for point in series.points if point.allowed is not None]
    level = f"; {limit} at {_level(-at[-1], low, high, signs)}" if at else ""
    yield f"{line}  {ends}{level}"
    if marks.strip():
        yield f"{marks}".rstrip()


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


def _wrapped(line: str, indent: str = "") -> str:
    return textwrap.fill(line, WIDTH, subsequent_indent=indent, break_on_hyphens=False)
