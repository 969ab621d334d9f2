"""Variant against variant: a matrix, and what the page shows when a person chooses another reference.

Everything here is computed by the run's own pairing and intervals; the page's script only puts it in place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from qeval.base import numbers
from qeval.compare.against import against
from qeval.compare.evidence import Evidence
from qeval.report.context import Context, Line, lines_of
from qeval.report.figures import Figure, Material
from qeval.report.ranking import Entry, Ranking, ranking

FEWEST = 3
"""Variants from which on there is more to choose than the baseline."""
MOST = 16
"""Variants up to which all pairs are compared with the page: their number grows with the square. Of more,
`--baseline` makes a page that compares with another one."""


@dataclass(frozen=True)
class Meeting:
    """A variant against a reference in the matrix: a key of `verdicts.MARKS`, its mark, and words. The status
    is that which sums the variant up, as in the decision table; the difference is that of the table's row."""

    status: str
    mark: str
    delta: str
    words: str


@dataclass(frozen=True)
class Versus:
    """`names` are the references, the baseline first; `matrix` has a row a variant and a column a reference,
    None where the title's row is not compared; `payload` is what the script puts in place, by reference."""

    title: str
    names: tuple[str, ...]
    matrix: tuple[tuple[Meeting | None, ...], ...]
    payload: dict[str, Any]


def versus(context: Context) -> Versus | None:
    """All of it; None where there are too few variants to choose from, or too many to compare them all."""
    scored = [one for one in context.run.results if one.status != "failed"]
    if not FEWEST <= len(scored) <= MOST:
        return None
    evidences = [context.evidence, *against(context.evidence)]
    if len(evidences) < FEWEST:
        return None
    names = tuple(one.run.baseline for one in evidences)
    own = context.ranking
    rankings = [own, *(ranking(one, heads=own.heads) for one in evidences[1:])]
    every = [line.name for line in context.lines]
    payload = {
        "variants": every,
        "rows": [column.row.id for column in context.columns],
        "references": [_reference(one, table, every) for one, table in zip(evidences, rankings, strict=True)],
    }
    return Versus(context.ranking.title, names, tuple(_matrix(names, rankings)), payload)


def _matrix(names: Sequence[str], rankings: Sequence[Ranking]) -> Iterable[tuple[Meeting | None, ...]]:
    found = [{entry.variant: entry for entry in one.entries} for one in rankings]
    for name in names:
        yield tuple(_meeting(column.get(name)) for column in found)


def _meeting(entry: Entry | None) -> Meeting | None:
    if entry is not None and entry.verdict.status == "NONE":
        return Meeting("NONE", entry.verdict.mark, "–", entry.verdict.sentence)
    if entry is None or entry.finding is None:
        return None
    one, sums_up = entry.finding, entry.sums_up or entry.finding
    said = f"{sums_up.said} by {entry.by}" if entry.by else sums_up.said
    return Meeting(sums_up.status, sums_up.mark, one.delta_text, f"{one.interval_text}; {said}")


def _reference(evidence: Evidence, table: Ranking, every: Sequence[str]) -> dict[str, Any]:
    """What the page shows with this reference: the decision table's lines, and the cells of the other one."""
    lines = {line.name: line for line in lines_of(Material(evidence, ()))}
    return {
        "name": evidence.run.baseline,
        "scale": dataclasses.asdict(table.scale) if table.scale else None,
        "entries": [_shown(entry, every) for entry in table.entries],
        "cells": [[_cell(figure) for figure in _figures(lines.get(name))] for name in every],
    }


def _figures(line: Line | None) -> Sequence[Figure | None]:
    return line.figures if line else ()


def _shown(entry: Entry, every: Sequence[str]) -> list[Any]:
    verdict = entry.verdict
    span = entry.span
    return [
        every.index(entry.variant),
        verdict.status,
        verdict.mark,
        verdict.word,
        verdict.sentence,
        entry.delta,
        entry.interval,
        [span.low, span.high, span.dot, span.beyond] if span else None,
        entry.worst,
        entry.ratio,
        entry.by,
    ]


def _cell(figure: Figure | None) -> list[Any] | None:
    """A difference, its interval, what is found, answers that changed, the share kept, and the bar."""
    if figure is None or not figure.delta:
        return None
    counts = [figure.statistics[key] for key in ("flips", "losses", "gains", "kept")]
    words = ["" if text == numbers.NONE else text for text in counts]
    bar = figure.bar
    drawn = [bar.zero, bar.low, bar.high, bar.dot] if bar else None
    return [figure.delta, figure.interval, figure.word, *words, drawn]
