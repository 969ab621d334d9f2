"""The members of groups, each with its difference as measured and shrunken, and their categories."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

from qeval.base import numbers
from qeval.base.names import short
from qeval.base.records import Comparison, Result
from qeval.compare import stats
from qeval.compare.evidence import CONFIDENCE, Evidence
from qeval.compare.pairs import Pairs
from qeval.compare.rows import Row, Score, score_of, subject_rows
from qeval.compare.stats import paired_standard_error
from qeval.compare.stats.shrink import common_mean, settled, shrink
from qeval.report.figures import n_of

FEW = 5
"""So many of the most harmed and of the least harmed members of a group stand apart."""
_EQUAL = 1e-9
"""Pulled differences closer than this are the same."""


@dataclass(frozen=True)
class Subject:
    """One variant on one member of a group. `shrunk`, `low`, `high`, `value` (the difference) are
    fractions, and so is `mean`, to which a variant's members are pulled; the other fields are words: `n` the
    items, `size` them with the texts that they share. `task` is the member's own name. `claim` is -1 where a
    loss is shown, 1 a gain, 0 neither."""

    variant: str
    task: str
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
    claim: int = 0
    mean: float = 0.0


@dataclass(frozen=True)
class Placed:
    """A subject among the most and least harmed, its interval, its measured and its pulled difference (all in
    per cent of a small picture's width, as zero is and `mean`, to which it is pulled)."""

    subject: Subject
    zero: float
    low: float
    high: float
    measured: float
    pulled: float
    mean: float


@dataclass(frozen=True)
class Extremes:
    """One variant's most and least harmed members of a group, the most harmed first; `best` is empty where
    `worst` has them all. `ends` are the ends of the scale, in words, the same for all variants, and `mean`
    in words that to which they are pulled."""

    group: str
    variant: str
    of: int
    worst: tuple[Placed, ...]
    best: tuple[Placed, ...]
    ends: tuple[str, str]
    mean: str


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
    return _claimed(evidence, found)


def _claimed(evidence: Evidence, found: Sequence[Subject]) -> tuple[Subject, ...]:
    """The subjects with what may be claimed of each: all of a group, in all variants, are corrected together,
    so that a group in which nothing differs claims anything at all with a probability of 1 - CONFIDENCE."""
    made: list[Subject] = []
    for group in dict.fromkeys(one.group for one in found):
        own = [one for one in found if one.group == group]
        compared = [evidence.comparison(one.variant, one.task) for one in own]
        claims = stats.claims([c.p if c else None for c in compared], [one.value for one in own], CONFIDENCE)
        made += [replace(one, claim=claim) for one, claim in zip(own, claims, strict=True)]
    return tuple(made)


# --- the most and the least harmed --------------------------------------------------------------


def extremes(found: Sequence[Subject], names: Sequence[str]) -> tuple[Extremes, ...]:
    """For each group and variant the few most and least harmed members by their pulled differences."""
    made = []
    for group in dict.fromkeys(one.group for one in found):
        own = [one for one in found if one.group == group]
        chosen = {name: _ends([one for one in own if one.variant == name]) for name in names}
        shown = [one for worst, best in chosen.values() for one in (*worst, *best)]
        low, high = (reached((0.0, *_finite(shown))) for reached in (min, max))
        ends = (numbers.signed_points(low), numbers.signed_points(high))
        for name, (worst, best) in chosen.items():
            means = [one.mean for one in own if one.variant == name]
            of, mean = len(means), numbers.signed_points(means[0]) if means else numbers.NONE
            first, last = (tuple(_placed(one, low, high) for one in half) for half in (worst, best))
            made.append(Extremes(group, name, of, first, last, ends, mean))
    return tuple(one for one in made if one.worst)


def _ends(own: Sequence[Subject]) -> tuple[Sequence[Subject], Sequence[Subject]]:
    ranked = sorted(own, key=lambda one: (round(one.shrunk, 9), one.value, one.subject))
    return (ranked, ()) if len(ranked) <= 2 * FEW else (ranked[:FEW], ranked[-FEW:])


def _finite(shown: Sequence[Subject]) -> list[float]:
    values = [value for one in shown for value in (one.low, one.high, one.value, one.shrunk, one.mean)]
    return [value for value in values if math.isfinite(value)]


def _placed(one: Subject, low: float, high: float) -> Placed:
    """The subject on a scale from `low` to `high`; a bound without end reaches to the scale's."""

    def place(value: float) -> float:
        share = (min(max(value, low), high) - low) / (high - low) if high > low else 0.5
        return round(2 + 96 * share, 2)

    return Placed(one, *map(place, (0.0, one.low, one.high, one.value, one.shrunk, one.mean)))


def sentences(found: Sequence[Subject], names: Sequence[str]) -> tuple[str, ...]:
    """For each group what is shown of its members: where variants lose or gain beyond chance, or nowhere."""
    groups = dict.fromkeys(one.group for one in found)
    return tuple(_sentence(group, [one for one in found if one.group == group], names) for group in groups)


def _sentence(group: str, own: Sequence[Subject], names: Sequence[str]) -> str:
    of = len({one.subject for one in own})
    told = [
        words for name in names if (words := _shown(name, [one for one in own if one.variant == name], of))
    ]
    if not told:
        whom = "any variant" if len(names) > 1 else names[0]
        least = min(own, key=lambda one: one.value)
        most = f"{short(least.variant)} in {least.subject} ({least.delta}; {least.interval})"
        largest = f" The largest loss measured: {most}." if least.value < 0 else ""
        return f"{group}: no loss or gain is shown in any of its {of} subjects for {whom}.{largest}"
    rest = (
        ""
        if len(told) == len(names)
        else " For the others none is proved in any subject, once all are corrected for."
    )
    return f"{group}: {'; '.join(told)}.{rest}"


def alike(found: Sequence[Subject], names: Sequence[str]) -> tuple[str, ...]:
    """For each group the variants whose members differ no more than noise would make them, and what of it."""
    told = []
    for group in dict.fromkeys(one.group for one in found):
        own = [one for one in found if one.group == group]
        pulled = {name: [one.shrunk for one in own if one.variant == name] for name in names}
        equal = [short(name) for name in names if _equal(pulled[name])]
        if equal:
            told.append(
                f"{group}: with {', '.join(equal)} the subjects differ no more than by noise, so each of "
                "them is pulled all the way to their mean over all items."
            )
    return tuple(told)


def _equal(pulled: Sequence[float]) -> bool:
    """Whether several differences were all pulled to one."""
    return len(pulled) > 1 and max(pulled) - min(pulled) < _EQUAL


def _shown(name: str, own: Sequence[Subject], of: int) -> str:
    """In how many of the members a loss or a gain is proved for a variant, and where the largest was
    measured; "" where in none."""
    words = []
    for what, sign in (("loss", -1), ("gain", 1)):
        found = sorted((one for one in own if one.claim == sign), key=lambda one: -sign * one.value)
        if found:
            most = found[0]
            where = f"{most.subject} ({most.delta} measured; {most.interval})"
            words.append(f"a {what} is proved in {len(found)} of {of}{_most(len(found), where)}")
    return f"{short(name)}: {', '.join(words)}" if words else ""


def _most(number: int, where: str) -> str:
    return f": {where}" if number == 1 else f", the largest in {where}"


def _shrunken(evidence: Evidence, group: str, name: str, members: Sequence[Row]) -> list[Subject]:
    found = [(row, c) for row in members if (c := evidence.comparison(name, row.id))]
    errors = [_standard_error(evidence.pairs[name, row.id], c) for row, c in found]
    variances = settled(errors, [c.n for _, c in found])
    deltas = [c.delta for _, c in found]
    mean = common_mean(deltas, variances) if deltas else 0.0
    pulled = zip(found, shrink(deltas, variances), strict=True)
    return [replace(_subject(group, name, row, c, value), mean=mean) for (row, c), value in pulled]


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
        task=row.id,
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


def categories(evidence: Evidence, names: Sequence[str]) -> tuple[Category, ...]:
    """Scores by category within each group, items weighted equally, deltas in the order of these names."""
    known = {result.variant.name: result for result in evidence.candidates}
    others = [known[name] for name in names]
    rows = [row for row in subject_rows(evidence.rows) if row.members[0].category]
    places: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        task = row.members[0]
        places.setdefault((task.group or "", task.category or ""), []).append(row)
    return tuple(
        _category(evidence, others, group, name, members) for (group, name), members in places.items()
    )


def _category(
    evidence: Evidence, candidates: Sequence[Result], group: str, name: str, members: Sequence[Row]
) -> Category:
    joined = Row(name, "pooled", "accuracy", "", tuple(row.members[0] for row in members))
    base = score_of(evidence.run, evidence.baseline, joined)
    others = [score_of(evidence.run, result, joined) for result in candidates]
    deltas = tuple(
        numbers.signed_points(other.score - base.score) if other and base else numbers.NONE
        for other in others
    )
    return Category(
        group, name, len(members), n_of(base), numbers.points(base.score if base else None), deltas
    )
