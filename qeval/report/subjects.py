"""The members of groups, each with its difference as measured and shrunken, and their categories."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from qeval.base import numbers
from qeval.base.records import Comparison
from qeval.compare.evidence import Evidence
from qeval.compare.rows import Row, score_of, subject_rows
from qeval.compare.stats.shrink import shrink
from qeval.report.figures import n_of


@dataclass(frozen=True)
class Subject:
    """One variant on one member of a group. `shrunk`, `low`, `high`, `value` (the difference) are
    fractions; the other fields are words."""

    variant: str
    subject: str
    group: str
    category: str
    n: str
    baseline: str
    score: str
    delta: str
    interval: str
    shrunk: float
    shrunk_text: str
    low: float
    high: float
    value: float


@dataclass(frozen=True)
class Category:
    """A category of a group's members, all items together: a baseline's score and each variant's delta."""

    group: str
    name: str
    subjects: int
    n: str
    baseline: str
    deltas: tuple[str, ...]


def subjects(evidence: Evidence) -> tuple[Subject, ...]:
    """Every member of every group for every candidate, deltas also shrunken to the group's mean."""
    rows = subject_rows(evidence.rows)
    found: list[Subject] = []
    groups = dict.fromkeys(row.members[0].group or "" for row in rows)
    for group in groups:
        for name in (result.variant.name for result in evidence.candidates):
            members = [row for row in rows if row.members[0].group == group]
            pairs = [(row, c) for row in members if (c := evidence.comparison(name, row.id))]
            found += _shrunken(group, name, pairs)
    return tuple(found)


def _shrunken(group: str, name: str, pairs: Sequence[tuple[Row, Comparison]]) -> list[Subject]:
    errors = [_standard_error(comparison) for _, comparison in pairs]
    shrunk = shrink([comparison.delta for _, comparison in pairs], [error**2 for error in errors])
    return [_subject(group, name, row, c, value) for (row, c), value in zip(pairs, shrunk, strict=True)]


def _standard_error(comparison: Comparison) -> float:
    """From the interval's width; never zero, for no subject is known without error (half an item)."""
    z = NormalDist().inv_cdf(0.5 + comparison.confidence / 2)
    width = comparison.high - comparison.low
    floor = 0.5 / max(comparison.n, 1)
    return max(width / (2 * z), floor) if math.isfinite(width) else 1.0


def _subject(group: str, name: str, row: Row, c: Comparison, shrunk: float) -> Subject:
    return Subject(
        variant=name,
        subject=row.id.removeprefix(f"{group}_").replace("_", " "),
        group=group,
        category=row.members[0].category or "",
        n=numbers.count(c.n),
        baseline=numbers.points(c.baseline, 1),
        score=numbers.points(c.candidate, 1),
        delta=numbers.signed_points(c.delta),
        interval=numbers.interval_points(c.low, c.high),
        shrunk=shrunk,
        shrunk_text=numbers.signed_points(shrunk),
        low=c.low,
        high=c.high,
        value=c.delta,
    )


def categories(evidence: Evidence) -> tuple[Category, ...]:
    """Scores by category within each group, items weighted equally, deltas in the order of candidates."""
    rows = [row for row in subject_rows(evidence.rows) if row.members[0].category]
    places: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        task = row.members[0]
        places.setdefault((task.group or "", task.category or ""), []).append(row)
    return tuple(_category(evidence, group, name, members) for (group, name), members in places.items())


def _category(evidence: Evidence, group: str, name: str, members: Sequence[Row]) -> Category:
    joined = Row(name, "pooled", "accuracy", "", tuple(row.members[0] for row in members))
    base = score_of(evidence.run, evidence.baseline, joined)
    others = [score_of(evidence.run, result, joined) for result in evidence.candidates]
    deltas = tuple(
        numbers.signed_points(other.score - base.score) if other and base else numbers.NONE
        for other in others
    )
    return Category(
        group, name, len(members), n_of(base), numbers.points(base.score if base else None), deltas
    )
