"""The items whose answers changed: found by pairing samples, chosen fairly, cut to a budget of bytes.

A full suite has more flips, and far more text, than a page should carry. All flips are counted;
texts are embedded for as many as the budget holds, taken in turn from every variant and task, the
most decided flips first. The rest stay in the run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from qeval.base.reading import whole
from qeval.base.records import Item, ReadItems, Result, Run, Samples, Task
from qeval.compare.evidence import Evidence
from qeval.compare.rows import cell_of, leaves_of, result_of

if TYPE_CHECKING:
    pass

DIRECTIONS = ("lost", "gained", "changed", "same")
"""right to wrong; wrong to right; another answer of equal worth; unchanged (a few, for contrast)."""
BUDGET = 2_200_000  # bytes of JSON: with charts and tables the page stays under 3 MB
PROMPT_BUDGET = 250_000  # of them, for prompts' shared beginnings (few-shot examples)
MOST_ROWS = 20_000
CONTRAST = 3  # unchanged items shown per variant and task
_LONGEST = 1_500  # characters of a question kept
_LONGEST_CHOICE = 400


@dataclass(frozen=True)
class Flip:
    """One item answered differently. `base_margin` and `margin` are log-probability of the baseline's
    answer less that of the candidate's, in nats, under the baseline and under the candidate: the
    first is mostly above zero, the second below. Both are 0 where there are no choices. `base_text` and
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
    base_margin: float = 0.0
    margin: float = 0.0
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


@dataclass(frozen=True)
class Explorer:
    """What the flips explorer carries: every count, and the flips and texts that fit."""

    counts: tuple[Count, ...] = ()
    flips: tuple[Flip, ...] = ()
    items: Mapping[tuple[str, str], Item] = field(default_factory=dict)
    total: int = 0

    @property
    def shown(self) -> int:
        """The flips embedded, without the unchanged items."""
        return sum(1 for flip in self.flips if flip.direction != "same")


def explore(evidence: Evidence, read_items: ReadItems, budget: int = BUDGET) -> Explorer:
    """All flips of a run counted, and as many of them with their texts as `budget` bytes hold."""
    counts: list[Count] = []
    queues: list[list[Flip]] = []
    contrast: list[Flip] = []
    for task, candidate, base, other in _pairs(evidence):
        changed, same = _flips_of(task, candidate, base, other)
        counts.append(_count(task, candidate, changed))
        queues.append(changed)
        contrast += same
    chosen = _in_turn(queues)[:MOST_ROWS] + contrast
    items = _texts(evidence.run, chosen, read_items)
    kept = _within(chosen, items, budget)
    wanted = {(flip.task.name, flip.key) for flip in kept}
    texts = {place: item for place, item in items.items() if place in wanted}
    return Explorer(tuple(counts), tuple(kept), texts, sum(c.lost + c.gained + c.changed for c in counts))


def _pairs(evidence: Evidence) -> Iterator[tuple[Task, str, Samples, Samples]]:
    """Every leaf task with answers that both the baseline and a candidate have items of."""
    for task in leaves_of(evidence.run).values():
        for result in evidence.candidates if task.kind != "perplexity" else ():
            samples = evidence.samples.get((result.variant.name, task.name))
            if samples is not None:
                yield task, result.variant.name, *samples


def _flips_of(task: Task, variant: str, base: Samples, other: Samples) -> tuple[list[Flip], list[Flip]]:
    """The changed items, the most decided first, and a few unchanged ones spread over the task."""
    differ = (base.answer != other.answer).tolist()
    changed = [_flip(task, variant, base, other, i) for i, moved in enumerate(differ) if moved]
    rest = [i for i, moved in enumerate(differ) if not moved]
    same = [_flip(task, variant, base, other, i) for i in rest[:: max(1, len(rest) // CONTRAST)][:CONTRAST]]
    order = {name: place for place, name in enumerate(DIRECTIONS)}
    changed.sort(key=lambda flip: (order[flip.direction] // 2, flip.margin, flip.key))
    return changed, same


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
        _margin(base_scores, before, after),
        _margin(scores, before, after),
        _text(base, i),
        _text(other, i),
    )


def _text(samples: Samples, i: int) -> str:
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


def _margin(scores: Sequence[float], before: str, after: str) -> float:
    """scores[before] - scores[after]; where nothing changed, the lead over the best other choice."""
    first, second = whole(before), whole(after)
    if first is None or first >= len(scores):
        return 0.0
    mine = scores[first]
    if before == after:
        others = [score for place, score in enumerate(scores) if place != first]
        return mine - max(others, default=mine)
    return mine - scores[second] if second is not None and second < len(scores) else 0.0


def _count(task: Task, variant: str, changed: Sequence[Flip]) -> Count:
    tally = {name: sum(1 for flip in changed if flip.direction == name) for name in DIRECTIONS}
    return Count(variant, task.name, task.group or "", tally["lost"], tally["gained"], tally["changed"])


def _in_turn(queues: Sequence[Sequence[Flip]]) -> list[Flip]:
    """One flip of each queue after the other, so that a budget is shared fairly."""
    return [flip for turn in zip_longest(*queues) for flip in turn if flip is not None]


def _texts(run: Run, flips: Sequence[Flip], read_items: ReadItems) -> dict[tuple[str, str], Item]:
    """The items of these flips by (task, key), long texts cut; one task's items in memory at a time."""
    baseline: Result | None = result_of(run, run.baseline)
    wanted: dict[str, tuple[Task, set[str]]] = {}
    for flip in flips:
        wanted.setdefault(flip.task.name, (flip.task, set()))[1].add(flip.key)
    found = {}
    for name, (task, keys) in wanted.items():
        cell = cell_of(baseline, task)
        items = read_items(cell) if cell is not None else {}
        found.update({(name, key): _cut(items[key]) for key in sorted(keys) if key in items})
    return found


def _cut(item: Item) -> Item:
    choices = tuple(shorten(choice, _LONGEST_CHOICE) for choice in item.choices)
    return Item(
        item.key, item.prompt, shorten(item.question, _LONGEST), choices, shorten(item.gold, _LONGEST_CHOICE)
    )


def shorten(text: str, most: int) -> str:
    """The text, its middle left out and counted where it is longer than `most` characters."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]} … ({len(text) - 2 * half} characters left out) … {text[-half:]}"


def _within(flips: Sequence[Flip], items: Mapping[tuple[str, str], Item], budget: int) -> list[Flip]:
    """As many flips as fit with their texts; unchanged items stand last and go first."""
    kept: list[Flip] = []
    paid: set[tuple[str, str]] = set()
    left = budget - PROMPT_BUDGET
    for flip in flips:
        place = (flip.task.name, flip.key)
        left -= 34 + 8 * len(flip.scores)
        left -= _length(flip.text)
        if place not in paid and place in items:
            left -= _bytes_of(items[place]) + 8 * len(flip.base_scores) + _length(flip.base_text)
            paid.add(place)
        if left < 0:
            break
        kept.append(flip)
    return kept


def _length(text: str) -> int:
    """The bytes of a text as it is embedded."""
    return len(json.dumps(shorten(text, _LONGEST), ensure_ascii=False).encode("utf-8", "replace")) - 2


def _bytes_of(item: Item) -> int:
    return 30 + len(
        json.dumps((item.question, item.choices, item.gold), ensure_ascii=False).encode("utf-8", "replace")
    )


def payload(explorer: Explorer, run: Run) -> dict[str, Any]:
    """The explorer as the page's script reads it: tables of names, items and rows that point at them."""
    variants = [result.variant.name for result in run.results]
    tasks = list({flip.task.name: flip.task for flip in explorer.flips}.values())
    task_place = {task.name: place for place, task in enumerate(tasks)}
    prefixes = _Prefixes()
    items: dict[tuple[str, str], list[Any]] = {}
    for flip in explorer.flips:
        place = (flip.task.name, flip.key)
        if place not in items:
            items[place] = _item_row(flip, explorer.items.get(place), task_place[flip.task.name], prefixes)
    item_place = {place: number for number, place in enumerate(items)}
    return {
        "variants": variants,
        "tasks": [[task.name, task.group or task.name, task.metric] for task in tasks],
        "directions": list(DIRECTIONS),
        "prompts": prefixes.texts,
        "items": list(items.values()),
        "rows": [_flip_row(flip, variants, item_place) for flip in explorer.flips],
    }


class _Prefixes:
    """Beginnings of prompts, each held once; -1 for those that the budget does not hold."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._place: dict[str, int] = {}
        self._left = PROMPT_BUDGET

    def place(self, text: str) -> int:
        """The number of `text` in the table, added if it fits."""
        cost = len(text.encode("utf-8", "replace"))
        if text not in self._place and cost <= self._left:
            self._left -= cost
            self._place[text] = len(self.texts)
            self.texts.append(text)
        return self._place.get(text, -1)


def _item_row(flip: Flip, item: Item | None, task: int, prefixes: _Prefixes) -> list[Any]:
    """[task, key, question, choices, gold, baseline's answer, baseline's scores, prompt's beginning], and the
    baseline's whole text where there is one."""
    text = item or Item(flip.key, "", "")
    beginning = text.prompt.removesuffix(text.question)
    place = prefixes.place(beginning) if item else -1
    scores = [round(score, 3) for score in flip.base_scores]
    gold = text.gold or flip.gold
    return [
        task,
        flip.key,
        text.question,
        list(text.choices),
        [flip.gold, gold],
        _answer(flip.base_answer),
        scores,
        place,
        *_shown(flip.base_text),
    ]


def _flip_row(flip: Flip, variants: Sequence[str], item_place: Mapping[tuple[str, str], int]) -> list[Any]:
    """[variant, item, direction, answer, scores, margin under the baseline, margin under the candidate], and
    the whole text where there is one."""
    return [
        variants.index(flip.variant),
        item_place[flip.task.name, flip.key],
        DIRECTIONS.index(flip.direction),
        _answer(flip.answer),
        [round(score, 3) for score in flip.scores],
        round(flip.base_margin, 3),
        round(flip.margin, 3),
        *_shown(flip.text),
    ]


def _shown(text: str) -> list[str]:
    return [shorten(text, _LONGEST)] if text else []


def _answer(text: str) -> str:
    return shorten(text, _LONGEST_CHOICE)
