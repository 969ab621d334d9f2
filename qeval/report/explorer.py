"""The items that the page's explorer carries: chosen fairly, cut to a budget, as its script reads them.

A full suite has more flips, and far more text, than a page should carry. All flips and patterns are counted;
texts are embedded for as many items as the budget holds, taken in turn from every variant and task, the most
decided flips first. The rest stay in the run.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any
from urllib.parse import quote, urlencode

from qeval.base.records import Item, ReadItems, Result, Run, Samples, Task
from qeval.base.text import visible
from qeval.compare.against import references
from qeval.compare.evidence import Evidence
from qeval.compare.rows import cell_of, leaves_of, result_of
from qeval.report import choosing
from qeval.report.flips import (
    CONTRAST,
    DIRECTIONS,
    Count,
    Flip,
    by_length,
    count,
    counted,
    flips_of,
    most_decided,
    normalises,
    shorten,
)
from qeval.report.patterns import NOTHING, Asked, Pattern, Sides, asked, patterns, sides_of

BUDGET = 1_300_000  # bytes of JSON: with charts and tables the page stays under 3 MB
PROMPT_BUDGET = 250_000  # of them, for prompts' shared beginnings (few-shot examples)
MOST_ITEMS = 20_000
_BYTES_OF_A_DIFFERENCE = 97
"""Of one variant on one row against another reference, packed: measured on 12 variants of the full suite."""
_SPARE = 300_000
"""Bytes that the page has for them beside a full budget of items."""
_LONGEST = 1_500  # characters of a question kept
_LONGEST_CHOICE = 400

Place = tuple[str, str]
"""(task, key) of an item."""


@dataclass(frozen=True)
class Explorer:
    """What the explorer carries: every count, and the flips and texts that fit. `asked` are the items in the
    order in which they were chosen, `items` their texts, `lengths` what divides the scores of their choices,
    `decided` the way in which a task's answers were chosen; see `choosing`. `total` is how many answers
    changed, `shown` how many of them are embedded, without the unchanged items."""

    counts: tuple[Count, ...] = ()
    patterns: tuple[Pattern, ...] = ()
    flips: tuple[Flip, ...] = ()
    asked: Mapping[Place, Asked] = field(default_factory=dict)
    items: Mapping[Place, Item] = field(default_factory=dict)
    lengths: Mapping[Place, tuple[int, ...]] = field(default_factory=dict)
    decided: Mapping[str, str] = field(default_factory=dict)
    total: int = 0
    shown: int = 0


@dataclass
class _Found:
    """What is gathered from the tasks, one after the other."""

    counts: list[Count] = field(default_factory=list)
    queues: list[list[Flip]] = field(default_factory=list)
    same: list[Flip] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)
    sides: dict[str, tuple[Sides, list[str]]] = field(default_factory=dict)


def room(evidence: Evidence) -> int:
    """The bytes of JSON that the page has for items: what it shows against others wants room too."""
    others, candidates = max(references(evidence.run) - 1, 0), len(evidence.run.results) - 1
    asides = others * candidates * len(evidence.rows) * _BYTES_OF_A_DIFFERENCE
    return max(BUDGET - max(asides - _SPARE, 0), BUDGET // 3)


def explore(evidence: Evidence, read_items: ReadItems, budget: int | None = None) -> Explorer:
    """All flips of a run counted, and as many of the items with their texts as `budget` bytes hold, by itself
    what there is room for."""
    budget = room(evidence) if budget is None else budget
    run, found = evidence.run, _found(evidence)
    _weigh(run, found, read_items)
    chosen = list(dict.fromkeys(_place(flip) for flip in _in_turn(found.queues)))[:MOST_ITEMS]
    chosen += _contrast(found.same, set(chosen))
    everything = _asked(found, chosen)
    texts = _texts(run, chosen, read_items)
    cut = {place: _cut(item) for place, item in texts.items()}
    kept = _within(everything, cut, budget)
    flips = [flip for flip in (*_in_turn(found.queues), *found.same) if _place(flip) in kept]
    decided = _decided(run, {place: everything[place] for place in kept}, texts)
    names = [result.variant.name for result in run.results]
    return Explorer(
        tuple(found.counts),
        patterns(found.counted, names, run.baseline),
        tuple(flips),
        {place: everything[place] for place in kept},
        {place: cut[place] for place in kept if place in cut},
        {place: _lengths(decided[place[0]], texts.get(place)) for place in kept},
        decided,
        sum(one.lost + one.gained + one.changed for one in found.counts),
        sum(1 for flip in flips if flip.direction != "same"),
    )


def against(explorer: Explorer, evidence: Evidence) -> Explorer:
    """The same items, counted against another variant. An item that changed against that one changed in some
    variant against the run's baseline too, so it is among those that were chosen from; what the budget left
    out is left out here as well."""
    counts = tuple(counted(*pair) for pair in _pairs(evidence))
    names = [result.variant.name for result in evidence.run.results]
    base = names.index(evidence.run.baseline)
    marked = {one.marks: one.n for one in explorer.patterns if one.marks[base] != NOTHING}
    return replace(
        explorer,
        counts=counts,
        patterns=patterns(marked, names, evidence.run.baseline),
        flips=(),
        total=sum(one.lost + one.gained + one.changed for one in counts),
        shown=sum(_moved(one, base) for one in explorer.asked.values()),
    )


def _moved(one: Asked, base: int) -> int:
    """How many variants answered an item differently from the one at `base`."""
    if one.marks[base] == NOTHING:
        return 0
    return sum(
        mark != NOTHING and answer != one.answers[base]
        for mark, answer in zip(one.marks, one.answers, strict=True)
    )


def _found(evidence: Evidence) -> _Found:
    found = _Found()
    for task, variant, base, other in _pairs(evidence):
        changed, same = flips_of(task, variant, base, other)
        found.counts.append(count(task, variant, changed))
        found.queues.append(changed)
        found.same += same
    for sides in sides_of(evidence):
        marks, task = sides.marks, sides.task
        found.sides[task.name] = (sides, marks)
        if task.kind == "accuracy":
            found.counted.update(marks)
    return found


def _weigh(run: Run, found: _Found, read_items: ReadItems) -> None:
    """Every queue ordered by the score that decides; the items of one such task in memory at a time."""
    baseline: Result | None = result_of(run, run.baseline)
    queues: dict[str, list[int]] = {}
    for place, queue in enumerate(found.queues):
        if queue and normalises(queue[0].task):
            queues.setdefault(queue[0].task.name, []).append(place)
    for places in queues.values():
        cell = cell_of(baseline, found.queues[places[0]][0].task)
        items = read_items(cell) if cell is not None else {}
        flips = by_length([flip for place in places for flip in found.queues[place]], items)
        for place in places:
            variant = found.queues[place][0].variant
            found.queues[place] = most_decided(flip for flip in flips if flip.variant == variant)


def _pairs(evidence: Evidence) -> Iterator[tuple[Task, str, Samples, Samples]]:
    """Every leaf task with answers that both the baseline and a candidate have items of."""
    for task in leaves_of(evidence.run).values():
        for result in evidence.candidates if task.kind != "perplexity" else ():
            samples = evidence.samples.get((result.variant.name, task.name))
            if samples is not None and any((side.answer != "").any() for side in samples):
                yield task, result.variant.name, *samples


def _place(flip: Flip) -> Place:
    return flip.task.name, flip.key


def _in_turn(queues: Sequence[Sequence[Flip]]) -> list[Flip]:
    """One flip of each queue after the other, so that a budget is shared fairly."""
    return [flip for turn in zip_longest(*queues) for flip in turn if flip is not None]


def _contrast(same: Sequence[Flip], chosen: set[Place]) -> list[Place]:
    """A few items of each task that no variant need have changed, and that are not chosen yet."""
    by_task: dict[str, dict[Place, None]] = {}
    for flip in same:
        if _place(flip) not in chosen:
            by_task.setdefault(flip.task.name, {})[_place(flip)] = None
    return [place for found in by_task.values() for place in list(found)[:CONTRAST]]


def _asked(found: _Found, places: Sequence[Place]) -> dict[Place, Asked]:
    spots: dict[str, dict[str, int]] = {}
    made = {}
    for task, key in places:
        sides, marks = found.sides[task]
        if task not in spots:
            base = next(one for one in sides.samples if one is not None)
            spots[task] = {name: at for at, name in enumerate(base.key.tolist())}
        at = spots[task][key]
        made[task, key] = asked(sides, at, marks[at])
    return made


def _texts(run: Run, places: Sequence[Place], read_items: ReadItems) -> dict[Place, Item]:
    """The items by (task, key); one task's items in memory at a time."""
    baseline: Result | None = result_of(run, run.baseline)
    wanted: dict[str, set[str]] = {}
    for task, key in places:
        wanted.setdefault(task, set()).add(key)
    found = {}
    leaves = leaves_of(run)
    for name, keys in wanted.items():
        cell = cell_of(baseline, leaves[name])
        items = read_items(cell) if cell is not None else {}
        found.update({(name, key): items[key] for key in sorted(keys) if key in items})
    return found


def _cut(item: Item) -> Item:
    choices = tuple(shorten(choice, _LONGEST_CHOICE) for choice in item.choices)
    question, gold = shorten(item.question, _LONGEST), shorten(item.gold, _LONGEST_CHOICE)
    return Item(item.key, item.prompt, question, choices, gold)


def _within(everything: Mapping[Place, Asked], items: Mapping[Place, Item], budget: int) -> dict[Place, None]:
    """As many items as fit with their texts; unchanged items stand last and go first."""
    kept: dict[Place, None] = {}
    left = budget - _bytes_of_prompts(items.values())
    for place, one in everything.items():
        item = items.get(place)
        left -= (
            _bytes_of(_item_row(place[1], one, item, (), 0, 0)) + (4 * len(item.choices) if item else 0) + 8
        )
        if left < 0:
            break
        kept[place] = None
    return kept


def _bytes_of_prompts(items: Iterable[Item]) -> int:
    """What the beginnings of these items' prompts take, each once, as far as they are embedded."""
    beginnings = {item.prompt.removesuffix(item.question) for item in items}
    return min(sum(map(_bytes_of, beginnings)), PROMPT_BUDGET)


def _bytes_of(value: Any) -> int:
    """The bytes of a value inside the page's script element, where <, > and & take six."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return len(text.encode("utf-8", "replace")) + 5 * sum(map(text.count, "<>&"))


def _decided(run: Run, kept: Mapping[Place, Asked], texts: Mapping[Place, Item]) -> dict[str, str]:
    """For each task of these items the way in which its answers were chosen."""
    by_task: dict[str, list[choosing.Answered]] = {}
    for place, one in kept.items():
        item = texts.get(place)
        known = [(a, s) for a, s in zip(one.answers, one.scores, strict=True) if s]
        entries = by_task.setdefault(place[0], [])
        if item is not None and item.choices and known:
            entries.append((item.choices, known))
    leaves = leaves_of(run)
    return {task: choosing.decided_by(leaves[task].metric, found) for task, found in by_task.items()}


def _lengths(way: str, item: Item | None) -> tuple[int, ...]:
    return choosing.lengths(way, item.choices) if item and way not in (choosing.PLAIN, "") else ()


def changes(explorer: Explorer) -> dict[str, dict[str, dict[str, int]]]:
    """How many answers changed, by task (a group's members together), variant and direction."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for one in explorer.counts:
        sums = found.setdefault(one.group or one.task, {}).setdefault(
            one.variant, dict.fromkeys(DIRECTIONS[:3], 0)
        )
        for name in sums:
            sums[name] += getattr(one, name)
    return found


def flips_link(**filters: str) -> str:
    """The address of the explorer so filtered: variant, task (or group), subject, change (one of DIRECTIONS),
    pattern (a mark a variant, ? for any), q (words), with (what is compared with, where that is not the run's
    baseline). Its script reads it back, and knows names as the page shows them, `visible`."""
    known = {name: visible(value) for name, value in filters.items() if value}
    return f"#flips?{urlencode(known, quote_via=quote)}" if known else "#flips"


# --- as the script reads it ---------------------------------------------------------------------


def payload(explorer: Explorer, run: Run) -> dict[str, Any]:
    """The explorer as the page's script reads it: tables of names, and items that point at them."""
    leaves = leaves_of(run)
    names = list(dict.fromkeys(task for task, _ in explorer.asked))
    variants = [result.variant.name for result in run.results]
    prefixes = _Prefixes()
    rows = []
    for (name, key), one in explorer.asked.items():
        item = explorer.items.get((name, key))
        beginning = prefixes.place(item.prompt.removesuffix(item.question)) if item else -1
        divisors = explorer.lengths.get((name, key), ())
        rows.append(_item_row(key, one, item, divisors, names.index(name), beginning))
    return {
        "variants": variants,
        "baseline": variants.index(run.baseline) if run.baseline in variants else 0,
        "tasks": [_task_row(leaves[name], explorer.decided.get(name, "")) for name in names],
        "prompts": prefixes.texts,
        "items": rows,
    }


def _task_row(task: Task, way: str) -> list[str]:
    """The row [name, group, metric, what divides the scores that decided]."""
    return [task.name, task.group or task.name, task.metric, way]


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


def _item_row(
    key: str, one: Asked, item: Item | None, divisors: Sequence[int], task: int, beginning: int
) -> list[Any]:
    """The row [task, key, question, choices, gold (a choice's number, and as a text), prompt's beginning,
    marks, answers, scores, lengths, texts]; what is at the end and empty is left out."""
    text = item or Item(key, "", "")
    row: list[Any] = [
        task,
        key,
        text.question,
        list(text.choices),
        [one.gold, text.gold or one.gold],
        beginning,
        one.marks,
        [shorten(answer, _LONGEST_CHOICE) for answer in one.answers],
        _differences(one.scores),
        list(divisors),
        [shorten(written, _LONGEST) for written in one.texts] if any(one.texts) else [],
    ]
    while row[-1] == []:
        row.pop()
    return row


def _differences(scores: Sequence[Sequence[float]]) -> list[list[int | None]]:
    """Log-likelihoods in thousandths of a nat: the first variant's that has any, then the others less those;
    None for what is not finite."""
    rows = [[round(1000 * score) if math.isfinite(score) else None for score in row] for row in scores]
    first = next((row for row in rows if row), None)
    if first is None:
        return []
    return [row if row is first or not row else list(map(_less, row, first)) for row in rows]


def _less(value: int | None, other: int | None) -> int | None:
    return None if value is None or other is None else value - other
