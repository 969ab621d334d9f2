"""How one item went in every variant: its marks, "1001" in the order of the variants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qeval.base.names import short
from qeval.base.records import Samples, Task
from qeval.compare.evidence import Evidence
from qeval.compare.rows import leaves_of
from qeval.report.flips import text_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

RIGHT, WRONG, PARTLY, NOTHING = "10~."
"""The marks of an answer: right; wrong; worth a part of a point; not scored."""
GLYPHS = {RIGHT: "✓", WRONG: "✗", PARTLY: "~", NOTHING: "·"}
MOST_LISTED = 16
"""Patterns that a page lists without a script."""


@dataclass(frozen=True)
class Asked:
    """One item and what every variant, in the run's order, made of it: `marks` has a character for each;
    `answers`, `scores` (log-likelihoods of the choices, nats) and `texts` (all that was written, "" where the
    answer is all) an entry, empty where the variant did not score the item."""

    marks: str
    gold: str
    answers: tuple[str, ...]
    scores: tuple[tuple[float, ...], ...]
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Pattern:
    """Marks that `n` items have, and the same as signs and in words."""

    marks: str
    n: int
    signs: str
    words: str


@dataclass(frozen=True, eq=False)
class Sides:
    """One leaf task's samples of every variant in the run's order, None for those without, and for each the
    places of the baseline's items in them, -1 where it lacks one."""

    task: Task
    samples: tuple[Samples | None, ...]
    places: tuple[NDArray[np.intp], ...]

    @property
    def marks(self) -> list[str]:
        """The marks of each of the baseline's items."""
        columns = [_marks(self.task, one, at) for one, at in zip(self.samples, self.places, strict=True)]
        return ["".join(row) for row in zip(*columns, strict=True)]


def sides_of(evidence: Evidence) -> Iterator[Sides]:
    """Every leaf task with answers that the baseline and at least one candidate have items of."""
    names = [result.variant.name for result in evidence.run.results]
    for task in leaves_of(evidence.run).values():
        pairs = {name: evidence.samples.get((name, task.name)) for name in names}
        base = next((pair[0] for pair in pairs.values() if pair is not None), None)
        if base is None or task.kind == "perplexity":
            continue
        found = [base if name == evidence.run.baseline else _candidate(pairs[name]) for name in names]
        yield Sides(task, tuple(found), tuple(_places(base, one) for one in found))


def _candidate(pair: tuple[Samples, Samples] | None) -> Samples | None:
    return None if pair is None else pair[1]


def _places(base: Samples, other: Samples | None) -> NDArray[np.intp]:
    if other is None:
        return np.full(len(base), -1)
    if np.array_equal(base.key, other.key):
        return np.arange(len(base))
    known = {key: place for place, key in enumerate(other.key.tolist())}
    return np.array([known.get(key, -1) for key in base.key.tolist()], dtype=np.intp)


def _marks(task: Task, samples: Samples | None, places: NDArray[np.intp]) -> list[str]:
    if samples is None:
        return [NOTHING] * len(places)
    value = samples.value[places]
    known = np.where(value == 1, RIGHT, np.where(value == 0, WRONG, PARTLY))
    if task.kind != "accuracy":
        known = np.full(len(places), PARTLY)
    marks: list[str] = np.where(places < 0, NOTHING, known).tolist()
    return marks


def asked(sides: Sides, place: int, marks: str) -> Asked:
    """The baseline's item at `place`."""
    spots = [int(column[place]) for column in sides.places]
    found = [(one, at) for one, at in zip(sides.samples, spots, strict=True)]
    there = [(one, at) if one is not None and at >= 0 else None for one, at in found]
    first = next(pair for pair in there if pair is not None)
    return Asked(
        marks,
        str(first[0].gold[first[1]]),
        tuple(str(pair[0].answer[pair[1]]) if pair else "" for pair in there),
        tuple(tuple(map(float, pair[0].scores[pair[1]])) if pair else () for pair in there),
        tuple(text_of(*pair) if pair else "" for pair in there),
    )


def patterns(counted: Mapping[str, int], names: Sequence[str], baseline: str) -> tuple[Pattern, ...]:
    """The patterns in which variants differ, the commonest first."""
    return tuple(
        Pattern(marks, n, signs(marks), in_words(marks, names, baseline))
        for marks, n in sorted(counted.items(), key=lambda pair: (-pair[1], pair[0]))
        if len(set(marks) - {NOTHING}) > 1
    )


def listed(found: Sequence[Pattern], names: Sequence[str], baseline: str) -> tuple[Pattern, ...]:
    """Those that a page lists: what all variants lost, what each lost alone, what several lost, then the same
    of gains, and of each kind the commonest first. What several lost or gained is left out first."""
    base = list(names).index(baseline)

    def kind(one: Pattern) -> tuple[bool, int]:
        before = one.marks[base]
        who = sum({mark, before} == {RIGHT, WRONG} for mark in one.marks)
        return before != RIGHT, {len(names) - 1: 0, 1: 1}.get(who, 2)

    first = sorted(found, key=lambda one: (kind(one)[1] > 1, *kind(one), -one.n))
    return tuple(sorted(first[:MOST_LISTED], key=lambda one: (*kind(one), -one.n)))


def signs(marks: str) -> str:
    """Marks as a person reads them, ✓✗✗✓."""
    return "".join(GLYPHS[mark] for mark in marks)


def in_words(marks: str, names: Sequence[str], baseline: str) -> str:
    """What the marks say of the candidates: "lost by gptq only", "gained by all", "lost by 3"."""
    base = marks[list(names).index(baseline)]
    others = [(name, mark) for name, mark in zip(names, marks, strict=True) if name != baseline]
    lost = [name for name, mark in others if (base, mark) == (RIGHT, WRONG)]
    gained = [name for name, mark in others if (base, mark) == (WRONG, RIGHT)]
    told = [_by(verb, who, len(others)) for verb, who in (("lost", lost), ("gained", gained)) if who]
    return ", ".join(told)


def _by(verb: str, who: Sequence[str], of: int) -> str:
    if len(who) == of and of > 1:
        return f"{verb} by all"
    return f"{verb} by {short(who[0])} only" if len(who) == 1 and of > 1 else f"{verb} by {_number(who)}"


def _number(who: Sequence[str]) -> str:
    return short(who[0]) if len(who) == 1 else str(len(who))
