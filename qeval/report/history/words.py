"""A history in words, the same in every format: headings, a line for each run, what breaks a line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from qeval.base import numbers
from qeval.base.names import short
from qeval.report.history.series import History, Point, Series
from qeval.report.verdicts import MARKS

_REVISION, _RUN = 7, 9
_DRAWN = "of the tasks, drawn here for this mean, which the gate does not judge: marks go by the margin"


@dataclass(frozen=True)
class Told:
    """A point in words; `mark` and `verdict` are empty where nothing is judged or found. `notes` are what
    keeps it from being a whole measurement."""

    date: str
    run: str
    revision: str
    n: str
    value: numbers.Numeral
    interval: numbers.Numeral
    mark: str
    verdict: str
    notes: str
    apart: str


def told(series: Series, point: Point, date: str) -> Told:
    """A point in words."""
    return Told(
        date=date,
        run=point.run,
        revision=short_revision(point.revision),
        n=numbers.count(point.n) if point.n else numbers.NONE,
        value=value(series, point),
        interval=interval(series, point),
        mark=MARKS[point.status] if point.status else "",
        verdict=point.words,
        notes="; ".join(point.lacks),
        apart=point.apart,
    )


def short_revision(revision: str) -> str:
    """The beginning of a commit's hash; a name of another kind as it is, unless it is long."""
    return revision[:_REVISION] if re.fullmatch(r"[0-9a-f]{8,}", revision) else short(revision, 16)


def value(series: Series, point: Point) -> numbers.Numeral:
    """The number of a point."""
    if point.value is None:
        return numbers.NONE
    return number(series, point.value, _limits(point))


def number(series: Series, at: float, limits: Sequence[float] = ()) -> numbers.Numeral:
    """A value of a line in words, never rounded across one of the `limits`."""
    unit = series.key.unit
    if unit == "nats":
        return numbers.significant(-at)
    if series.own:
        return numbers.perplexity(at) if unit == "perplexity" else numbers.points(at)
    return numbers.ratio(at, limits) if unit == "perplexity" else numbers.signed_points(at, limits)


def interval(series: Series, point: Point) -> numbers.Numeral:
    """The interval of a difference."""
    found = point.comparison
    if found is None or point.value is None:
        return numbers.NONE
    if series.key.unit == "nats":
        ends = numbers.significant(-found.high), numbers.significant(-found.low)
        return numbers.Numeral(f"{ends[0]} to {ends[1]}")
    make = numbers.interval_ratio if series.key.unit == "perplexity" else numbers.interval_points
    return make(found.low, found.high, _limits(point))


def _limits(point: Point) -> tuple[float, ...]:
    return () if point.allowed is None else (-point.allowed,)


def heading(series: Series) -> str:
    """What a line is of: "bnb4 on arc (acc_norm)"."""
    key = series.key
    measure = f" ({key.measure})" if key.measure else ""
    return f"{short(key.variant)} on {key.title}{measure}"


def about(series: Series, *, intervals: bool = True) -> str:
    """What its numbers are, with the level of their `intervals` where these are shown, and the limit."""
    what = {"points": "Δ in points", "perplexity": "perplexity ratio", "nats": "KL in nats"}[series.key.unit]
    if series.own:
        return "perplexity" if series.key.unit == "perplexity" else "scores, of 100"
    level = f", {numbers.level(series.level)} intervals" if series.level and intervals else ""
    limit = limits(series)
    return f"{what} against {series.baseline}{level}{f'; {limit}' if limit else ''}"


def kind_of(points: Sequence[Point]) -> str:
    """What is drawn in: a limit that somebody gave, or the margin."""
    return "limit" if any(point.judged or point.drawn for point in points) else "margin"


def limits(series: Series) -> str:
    """The limits of a line in words, "limit -1", or its margin; "" where it has none."""
    found = dict.fromkeys(point.allowed for point in series.points if point.allowed is not None)
    kind = kind_of(series.points)
    told = f"{kind} {' and '.join(limit(series, one) for one in found)}" if found else ""
    return f"{told}, {_DRAWN}" if told and any(point.drawn for point in series.points) else told


def limit(series: Series, allowed: float) -> str:
    """A loss allowed, as it is written: "-1"."""
    if series.key.unit == "nats":
        return numbers.as_written(allowed, 2)
    if series.key.unit == "perplexity":
        return f"x{numbers.as_written(numbers.exp(allowed), 2)}"
    return numbers.as_written(-100 * allowed, 0)


def dates(points: Sequence[Point]) -> tuple[str, list[str]]:
    """The heading of dates, and each as short as tells them apart: days, or times of one year, or whole;
    with seconds where two are of one minute."""
    moments = [point.created.replace("T", " ")[:16] for point in points]
    days, years = [one[:10] for one in moments], {one[:4] for one in moments if one}
    if len(set(days)) == len(days):
        return "date", [day or numbers.NONE for day in days]
    if len(set(moments)) < len(moments):
        moments = [point.created.replace("T", " ")[:19] for point in points]
    if len(years) == 1:
        return f"in {years.pop()}", [one[5:] or numbers.NONE for one in moments]
    return "date", [one or numbers.NONE for one in moments]


def run_name(name: str) -> str:
    """The end of a run's id, which tells it from others of its suite."""
    return name if len(name) <= _RUN + 1 else f"…{name[1 - _RUN :]}"


def groups(found: History) -> list[tuple[str, list[Series]]]:
    """The lines by model and suite, in their order, and what each group is called."""
    kept: dict[str, list[Series]] = {}
    for one in found.series:
        kept.setdefault(f"{one.key.model}, suite {one.key.suite}", []).append(one)
    return list(kept.items())


def bridged(series: Series) -> list[str]:
    """What breaks a line, in sentences."""
    named = [(point.run, point.apart) for point in series.points if point.apart]
    return [f"The line is broken before {run_name(run)}: {why}." for run, why in named]


NOTHING = "No run here can be shown: none has the model, suite, variant and task asked for."


def conclusion(found: History) -> list[str]:
    """What a reader must know: where limits come from, what a broken line means, what could not be read."""
    lines = []
    if found.limit:
        lines.append(f"Judged by {found.limit}, point by point; qeval gate judges a run as a whole.")
    if any(point.apart for one in found.series for point in one.points):
        lines.append("A line is broken where two runs did not ask the same: they are not compared.")
    if any(not point.whole for one in found.series for point in one.points):
        lines.append(
            "Hollow marks are not whole measurements by qeval; what they lack is stated beside them."
        )
    lines += [f"Not read: {name}: {why}" for name, why in found.unread]
    return lines
