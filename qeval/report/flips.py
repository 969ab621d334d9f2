"""The items whose answers changed, found by pairing samples: which way, by how much, and how many."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from qeval.base.reading import whole
from qeval.base.records import Item, Samples, Task
from qeval.report import choosing

DIRECTIONS = ("lost", "gained", "changed", "same")
"""right to wrong; wrong to right; another answer of equal worth; unchanged (a few, for contrast)."""
CONTRAST = 3  # unchanged items shown per variant and task


@dataclass(frozen=True)
class Flip:
    """One item answered differently. `base_gap` and `gap` are log-probability of the baseline's
    answer less that of the candidate's, in nats, under the baseline and under the candidate: the
    first is mostly above zero, the second below; `by_length` makes them those of the score that decides.
    Both are 0 where there are no choices. `base_text` and
    `text` are all that was written, "" where that is the answer or was not kept."""

    variant: str
    task: Task
    key: str
    direction: str
    base_answer: str
    answer: str
    gold: str
    base_scores: tuple[float, ...] = ()
    scores: tuple[float, ...] = ()
    base_gap: float = 0.0
    gap: float = 0.0
    base_text: str = ""
    text: str = ""


@dataclass(frozen=True)
class Count:
    """How many answers changed, for one variant on one leaf task."""

    variant: str
    task: str
    group: str
    lost: int
    gained: int
    changed: int


def flips_of(task: Task, variant: str, base: Samples, other: Samples) -> tuple[list[Flip], list[Flip]]:
    """The changed items, the most decided first, and a few unchanged ones spread over the task."""
    differ = (base.answer != other.answer).tolist()
    changed = [_flip(task, variant, base, other, i) for i, moved in enumerate(differ) if moved]
    rest = [i for i, moved in enumerate(differ) if not moved]
    same = [_flip(task, variant, base, other, i) for i in rest[:: max(1, len(rest) // CONTRAST)][:CONTRAST]]
    return most_decided(changed), same


def most_decided(flips: Iterable[Flip]) -> list[Flip]:
    """Lost and gained ones first, and of each the widest gaps first."""
    order = {name: place for place, name in enumerate(DIRECTIONS)}
    return sorted(flips, key=lambda flip: (order[flip.direction] // 2, flip.gap, flip.key))


def largest_first(flips: Iterable[Flip], ways: Mapping[str, str]) -> list[Flip]:
    """Flips of several tasks, lost ones first, and of each the largest gaps first, as multiples of what is
    typical of their task: nats and nats a character cannot be compared. `ways` says how a task's answers were
    chosen. Answers without scores of choices stand last."""
    known = list(flips)
    typical = typical_gaps(known, ways)
    return sorted(
        known,
        key=lambda flip: (
            DIRECTIONS.index(flip.direction),
            not flip.scores,
            flip.gap / typical.get(_scale(flip, ways), 1.0),
        ),
    )


def typical_gaps(flips: Iterable[Flip], ways: Mapping[str, str]) -> dict[tuple[str, str], float]:
    """The median size of the gaps of changed answers, by task (a group's members together) and way."""
    sizes: dict[tuple[str, str], list[float]] = {}
    for flip in flips:
        if flip.direction != "same" and flip.gap:
            sizes.setdefault(_scale(flip, ways), []).append(abs(flip.gap))
    return {scale: median(found) for scale, found in sizes.items()}


def _scale(flip: Flip, ways: Mapping[str, str]) -> tuple[str, str]:
    return flip.task.group or flip.task.name, ways.get(flip.task.name, choosing.UNKNOWN)


def normalises(task: Task) -> bool:
    """Whether a choice's length may divide the score that decides."""
    return len(choosing.ways(task.metric)) > 1


def by_length(flips: Sequence[Flip], items: Mapping[str, Item]) -> list[Flip]:
    """Flips of one task with the gaps of the score that decides, in nats a character or a byte where
    choices' lengths divide it; as they are where the answers do not prove that they do."""
    known = [(items[flip.key].choices, _answered(flip)) for flip in flips if flip.key in items]
    way = choosing.decided_by(flips[0].task.metric, known) if flips else choosing.UNKNOWN
    if way in (choosing.UNKNOWN, choosing.PLAIN):
        return list(flips)
    return [
        _divided(flip, choosing.lengths(way, items[flip.key].choices)) if flip.key in items else flip
        for flip in flips
    ]


def _answered(flip: Flip) -> list[tuple[str, tuple[float, ...]]]:
    both = ((flip.base_answer, flip.base_scores), (flip.answer, flip.scores))
    return [(answer, scores) for answer, scores in both if scores]


def _divided(flip: Flip, divisors: Sequence[int]) -> Flip:
    if any(len(scores) != len(divisors) for scores in (flip.base_scores, flip.scores)):
        return flip
    base_gap, gap = (
        _gap(choosing.divided(scores, divisors), flip.base_answer, flip.answer)
        for scores in (flip.base_scores, flip.scores)
    )
    return replace(flip, base_gap=base_gap, gap=gap)


def _flip(task: Task, variant: str, base: Samples, other: Samples, i: int) -> Flip:
    """Item i as a Flip."""
    before, after = str(base.answer[i]), str(other.answer[i])
    base_scores = tuple(float(x) for x in base.scores[i])
    scores = tuple(float(x) for x in other.scores[i])
    return Flip(
        variant,
        task,
        str(base.key[i]),
        _direction(task, before, after, float(base.value[i]), float(other.value[i])),
        before,
        after,
        str(base.gold[i]),
        base_scores,
        scores,
        _gap(base_scores, before, after),
        _gap(scores, before, after),
        text_of(base, i),
        text_of(other, i),
    )


def text_of(samples: Samples, i: int) -> str:
    """All that the model wrote for item i, repeats one below the other; "" where the answer says it all."""
    texts = samples.written[i]
    return "" if texts == (str(samples.answer[i]),) else "\n\n".join(texts)


def _direction(task: Task, before: str, after: str, value_before: float, value_after: float) -> str:
    """Which way it went; where answers are worth parts of a point, none is right or wrong."""
    if before == after:
        return "same"
    if value_before == value_after or task.kind != "accuracy":
        return "changed"
    return "lost" if value_after < value_before else "gained"


def _gap(scores: Sequence[float], before: str, after: str) -> float:
    """scores[before] - scores[after]; where nothing changed, the lead over the best other choice."""
    first, second = whole(before), whole(after)
    if first is None or first >= len(scores):
        return 0.0
    mine = scores[first]
    if before == after:
        others = [score for place, score in enumerate(scores) if place != first]
        return mine - max(others, default=mine)
    return mine - scores[second] if second is not None and second < len(scores) else 0.0


def counted(task: Task, variant: str, base: Samples, other: Samples) -> Count:
    """The same count as that of `flips_of`, without making the flips."""
    moved = base.answer != other.answer
    total, lost, gained = int(np.count_nonzero(moved)), 0, 0
    if task.kind == "accuracy":
        lost = int(np.count_nonzero(moved & (other.value < base.value)))
        gained = int(np.count_nonzero(moved & (other.value > base.value)))
    return Count(variant, task.name, task.group or "", lost, gained, total - lost - gained)


def count(task: Task, variant: str, changed: Sequence[Flip]) -> Count:
    """The changed items of one variant on one task, by direction."""
    tally = {name: sum(1 for flip in changed if flip.direction == name) for name in DIRECTIONS}
    return Count(variant, task.name, task.group or "", tally["lost"], tally["gained"], tally["changed"])


def shorten(text: str, most: int) -> str:
    """The text, its middle left out and counted where it is longer than `most` characters."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]} … ({len(text) - 2 * half} characters left out) … {text[-half:]}"
