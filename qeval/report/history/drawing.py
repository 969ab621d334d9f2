"""The strip of a line as an SVG drawing: points with their intervals, the limit, and where it breaks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from qeval.report.history import words
from qeval.report.history.series import Point, Series

_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 92, 12, 30
_HEIGHT, _WIDTH = 150, 620
_STEPS = (22, 72)
"""The least and the most pixels from a run to the next."""
_DATE = 120
"""Pixels that a date has room in."""


@dataclass(frozen=True)
class Mark:
    """A point: its place, its interval's ends, the limit at it (None where it has none), and what it says."""

    x: float
    y: float | None
    low: float | None
    high: float | None
    limit: float | None
    kind: str
    status: str
    says: str


@dataclass(frozen=True)
class Strip:
    """The drawing: `paths` are the pieces of the line, `breaks` the places between them, `labels` what stands
    beside the axis, `dates` the first and the last, each with its end that is anchored. `limit` is that of
    every point, or of the last one judged; where points have different ones, each has its own mark."""

    width: float
    height: float
    left: float
    right: float
    half: float
    marks: tuple[Mark, ...]
    paths: tuple[str, ...]
    breaks: tuple[tuple[float, str], ...]
    foot: float
    alike: bool
    zero: float | None
    labels: tuple[tuple[float, str], ...]
    limit: tuple[float, str] | None
    dates: tuple[tuple[float, str, str], ...]
    alt: str


def strip(series: Series) -> Strip:
    """The drawing of a line, up being better."""
    points = series.points
    step = min(max((_WIDTH - _LEFT - _RIGHT) / max(len(points), 1), _STEPS[0]), _STEPS[1])
    low, high = _spared(*_reach(series))

    def y(value: float) -> float:
        share = (min(max(value, low), high) - low) / (high - low)
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM), 1)

    places = [round(_LEFT + step * (at + 0.5), 1) for at in range(len(points))]
    _, dates = words.dates(points)
    marks = tuple(
        _mark(series, point, x, date, y) for point, x, date in zip(points, places, dates, strict=True)
    )
    known = [point.allowed for point in points if point.allowed is not None]
    own = [] if series.own else [(y(0.0), str(words.number(series, 0.0)))]
    limit = (y(-known[-1]), f"{words.kind_of(points)} {words.limit(series, known[-1])}") if known else None
    ends = _reach(series)
    right = _LEFT + step * len(points)
    return Strip(
        width=round(right + _RIGHT, 1),
        height=_HEIGHT,
        left=_LEFT,
        right=round(right, 1),
        half=round(step / 2, 1),
        marks=marks,
        paths=tuple(_paths(points, marks)),
        breaks=tuple(
            (round(x - step / 2, 1), point.apart)
            for point, x in zip(points, places, strict=True)
            if point.apart
        ),
        foot=_HEIGHT - _BOTTOM + 6,
        alike=len(set(known)) == 1,
        zero=own[0][0] if own else None,
        labels=tuple(_apart([*own, *((y(end), str(words.number(series, end))) for end in ends)])),
        limit=limit,
        dates=tuple(_ticks(places, dates)),
        alt=_alt(series, marks),
    )


def _ticks(places: Sequence[float], dates: Sequence[str]) -> Iterator[tuple[float, str, str]]:
    """The first and the last date, those of two runs beside each other turned away from each other."""
    first, last = (places[0], dates[0]), (places[-1], dates[-1])
    if first == last:
        yield *first, "middle"
    elif last[0] - first[0] > _DATE:
        yield *first, "middle"
        yield *last, "middle"
    else:
        middle = (first[0] + last[0]) / 2
        yield round(middle - 6, 1), first[1], "end"
        yield round(middle + 6, 1), last[1], "start"


def _apart(labels: Iterable[tuple[float, str]]) -> Iterator[tuple[float, str]]:
    """The labels that do not stand on one before them."""
    kept: list[float] = []
    for at, text in labels:
        if all(abs(at - other) > 13 for other in kept):  # noqa: PLR2004 - pixels of a line of text
            kept.append(at)
            yield at, text


def _reach(series: Series) -> tuple[float, float]:
    """What the axis spans: every value, finite end of an interval, the limit and no difference."""
    values = [] if series.own else [0.0]
    for point in series.points:
        if point.value is not None:
            found = point.comparison
            values += [point.value, *((found.low, found.high) if found else ())]
            values += [-point.allowed] if point.allowed is not None else []
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    return min(finite), max(finite)


def _spared(low: float, high: float) -> tuple[float, float]:
    """The same with some room, so that no axis is a point."""
    spare = (high - low) * 0.04 or max(abs(high) * 0.01, 1e-6)
    return low - spare, high + spare


def _mark(series: Series, point: Point, x: float, date: str, y: Callable[[float], float]) -> Mark:
    alike = len({one.allowed for one in series.points} - {None}) == 1
    told, found = words.told(series, point, date), point.comparison
    parts = [
        told.date,
        point.run,
        f"revision {told.revision}" if told.revision else "",
        f"n = {told.n}" if point.n else "",
        str(told.value) if point.value is not None else "no number",
        f"({told.interval})" if found and point.value is not None else "",
        told.verdict,
        told.notes,
    ]
    kind = "none" if point.value is None else "whole" if point.whole else "hollow"
    return Mark(
        x=x,
        y=None if point.value is None else y(point.value),
        low=y(found.low) if found and point.value is not None else None,
        high=y(found.high) if found and point.value is not None else None,
        limit=y(-point.allowed) if point.allowed is not None and not alike else None,
        kind=kind,
        status=point.status,
        says=", ".join(part for part in parts if part),
    )


def _paths(points: Sequence[Point], marks: Sequence[Mark]) -> Iterator[str]:
    """The pieces of the line: a break, or a run without a number, ends one."""
    piece: list[str] = []
    for point, mark in zip(points, marks, strict=True):
        if (mark.y is None or point.apart) and piece:
            yield " ".join(piece)
            piece = []
        if mark.y is not None:
            piece.append(f"{mark.x},{mark.y}")
    if piece:
        yield " ".join(piece)


def _alt(series: Series, marks: Sequence[Mark]) -> str:
    """The drawing in words."""
    broken = f" {' '.join(words.bridged(series))}" if any(one.apart for one in series.points) else ""
    return f"{words.heading(series)}, {words.about(series)}. {'; '.join(one.says for one in marks)}.{broken}"
