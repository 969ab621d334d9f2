"""A history as a document: JSON, rows of a table, Markdown, or a page of HTML."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qeval.base.errors import UsageError, did_you_mean
from qeval.base.markdown import escape
from qeval.base.plain import plain
from qeval.report.history import words
from qeval.report.history.series import History, Key, Point, Series

SCHEMA = 1
Render = Callable[[History], str]


def renderer(path: Path) -> Render | None:
    """What writes a history in the format that the ending of `path` names; None for a table of `rows`.

    Raises UsageError for another ending.
    """
    known: dict[str, Render | None] = {".html": _html, ".md": markdown, ".json": _json, ".csv": None}
    if path.suffix.lower() not in known:
        ending = path.suffix or path.name
        raise UsageError(f"There is no format {ending!r} of a history.", did_you_mean(path.suffix, known))
    return known[path.suffix.lower()]


def _html(found: History) -> str:
    from qeval.report.history.page import page

    return page(found)


def _json(found: History) -> str:
    return json.dumps(document(found), indent=2, ensure_ascii=False) + "\n"


def document(found: History) -> dict[str, Any]:
    """The history as JSON-able data. `value` is higher where better: the score, or the difference from the
    baseline; of perplexities in nats a word or byte, of fidelity the divergence below zero."""
    made: dict[str, Any] = plain(
        {
            "schema": SCHEMA,
            "runs": found.runs,
            "limit": found.limit,
            "unread": [{"run": name, "why": why} for name, why in found.unread],
            "series": [_series(one) for one in found.series],
        }
    )
    return made


def _series(series: Series) -> dict[str, Any]:
    key = dataclasses.asdict(series.key)
    points = [_point(series, one) for one in series.points]
    return {**key, "baseline": series.baseline or None, "confidence": series.level, "points": points}


def _point(series: Series, point: Point) -> dict[str, Any]:
    found = point.comparison
    return {
        "run": point.run,
        "created": point.created,
        "revision": point.revision or None,
        "n": point.n,
        "score": point.score,
        "value": point.value,
        "low": found.low if found and point.value is not None else None,
        "high": found.high if found and point.value is not None else None,
        "shown": str(words.value(series, point)),
        "allowed": point.allowed,
        "judged": point.judged,
        "drawn": point.drawn,
        "status": point.status or None,
        "words": point.words or None,
        "reason": point.reason or None,
        "whole": point.whole,
        "lacks": list(point.lacks),
        "broken": point.apart or None,
    }


_OF_SERIES = ("model", "suite", "variant", "task", "measure", "unit", "baseline", "confidence")


def rows(found: History) -> list[dict[str, Any]]:
    """The points as a flat table: a row for each, with what it is of."""
    made = document(found)["series"]
    return [
        {**{name: one[name] for name in _OF_SERIES}, **point, "lacks": "; ".join(point["lacks"])}
        for one in made
        for point in one["points"]
    ]


def columns() -> list[str]:
    """The names of the columns of `rows`."""
    one = Series(Key("", "", "", "", "", "points", (), ""), (Point("", "", ""),))
    return list(rows(History((one,)))[0])


def markdown(found: History) -> str:
    """The history as Markdown: a table for each line, what breaks it told under it."""
    parts = ["# History\n"]
    for title, lines in words.groups(found):
        parts.append(f"## {escape(title)}\n")
        parts += [_markdown_of(one) for one in lines]
    parts += [words.NOTHING + "\n"] if not found.series else []
    parts += [f"- {escape(line)}" for line in words.conclusion(found)]
    return "\n".join(parts).rstrip() + "\n"


def _markdown_of(series: Series) -> str:
    heading, dates = words.dates(series.points)
    headers = [heading, "run", "revision", "n", "score" if series.own else "change"]
    headers += ([] if series.own else ["interval"]) + ["verdict", "notes"]
    lines = [headers, ["---"] * len(headers)]
    for point, date in zip(series.points, dates, strict=True):
        one = words.told(series, point, date)
        notes = "; ".join(
            part for part in (f"line broken: {one.apart}" if one.apart else "", one.notes) if part
        )
        cells = [one.date, one.run, one.revision, one.n, one.value]
        cells += ([] if series.own else [one.interval]) + [f"{one.mark} {one.verdict}".strip(), notes]
        lines.append([escape(cell) if isinstance(cell, str) else cell for cell in cells])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"### {escape(words.heading(series))}\n\n{escape(words.about(series))}\n\n{table}\n"
