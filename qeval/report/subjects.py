"""The members of groups, each with its difference as measured and shrunken, and their categories."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from qeval.base import numbers
from qeval.base.records import Comparison
from qeval.compare.evidence import Evidence
from qeval.compare.pairs import Pairs
from qeval.compare.rows import Row, Score, score_of, subject_rows
from qeval.compare.stats import paired_standard_error
from qeval.compare.stats.shrink import settled, shrink
from qeval.report.figures import n_of


@dataclass(frozen=True)
class Subject:
    """One variant on one member of a group. `shrunk`, `low`, `high`, `value` (the difference) are
    fractions; the other fields are words: `n` the items, `size` them with the texts that they share."""

    variant: str
    subject: str
    group: str
    category: str
    n: str
    size: str
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
            found += _shrunken(evidence, group, name, members)
    return tuple(found)


def _shrunken(evidence: Evidence, group: str, name: str, members: Sequence[Row]) -> list[Subject]:
    found = [(row, c) for row in members if (c := evidence.comparison(name, row.id))]
    errors = [_standard_error(evidence.pairs[name, row.id], c) for row, c in found]
    variances = settled(errors, [c.n for _, c in found])
    shrunk = shrink([c.delta for _, c in found], variances)
    return [_subject(group, name, row, c, value) for (row, c), value in zip(found, shrunk, strict=True)]


def _standard_error(pairs: Pairs, comparison: Comparison) -> float:
    """The plain one, not the interval's half-width, whose care with few items would read as noise; that is
    taken where a score was published without items."""
    values = pairs.values
    if values is not None:
        error = paired_standard_error(values.baseline, values.candidate, values.weight, values.cluster)
    else:
        z = NormalDist().inv_cdf(0.5 + comparison.confidence / 2)
        error = (comparison.high - comparison.low) / (2 * z)
    return error if math.isfinite(error) else 1.0


def _subject(group: str, name: str, row: Row, c: Comparison, shrunk: float) -> Subject:
    return Subject(
        variant=name,
        subject=row.id.removeprefix(f"{group}_").replace("_", " "),
        group=group,
        category=row.members[0].category or "",
        n=numbers.count(c.n),
        size=n_of(Score(c.candidate, c.n, c.n_available), c.texts),
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
