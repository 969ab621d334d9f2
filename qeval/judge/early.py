"""Early stop: while a variant is scored, is a required rule certainly broken already?

Items are scored in a seeded random order, those that share a text one after the other, and each rule on
bounded scores is a bet against the variant (`judge.betting`), so looking after every text is allowed. Only
breaking a rule can stop a variant: a pass is decided on all items, by the gate. Rules on perplexities, macro
means and the average are left to the gate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from qeval.base.records import Policy, Rule, Samples, Stop, Task
from qeval.base.rules import describe
from qeval.compare.rows import Group, Row, make_rows
from qeval.judge import betting
from qeval.judge.matching import rules_for

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BLOCKS = 12
_LEAST = 25


@dataclass(frozen=True)
class Watch:
    """One rule on one row, the bet on it, and how many items the row has."""

    row: str
    rule: Rule
    bet: betting.Bet
    of: int


def watches(
    policy: Policy,
    variant: str,
    tasks: Sequence[Task],
    sizes: Sequence[int],
    among: int = 1,
    largest: Sequence[int] = (),
) -> tuple[Watch, ...]:
    """A watch for each required rule that can be bet on, of each task and each group in `tasks`.

    `sizes` are the tasks' numbers of items, in the same order. `among` is how many watches the variant has in
    all: its chance of being stopped although it is within every limit is divided among them (Bonferroni).
    `largest` are the most items under one text of each task, 1 by default.
    """
    return tuple(
        _watch(row.id, rule, 1 - (1 - rule.confidence) / among, _mine(row.id, tasks), sizes, largest)
        for row in _rows(tasks)
        if row.level in ("task", "pooled", "subtask")
        for rule in rules_for(policy, row, variant)
        if rule.tier == "required" and rule.max_ppl_ratio is None
    )


def _watch(
    row: str,
    rule: Rule,
    confidence: float,
    mine: Sequence[int],
    sizes: Sequence[int],
    largest: Sequence[int],
) -> Watch:
    most = max((largest[task] for task in mine), default=1) if largest else 1
    return Watch(row, rule, betting.start(_margin(rule), confidence, most), sum(sizes[task] for task in mine))


def _mine(row: str, tasks: Sequence[Task]) -> list[int]:
    """The places of the tasks behind a row."""
    return [place for place, task in enumerate(tasks) if row in {task.name, task.group}]


def _rows(tasks: Sequence[Task]) -> tuple[Row, ...]:
    """The rows of leaf tasks that are scored together, and of the groups that they are of."""
    members: dict[str, list[Task]] = {}
    for task in tasks:
        if task.group:
            members.setdefault(task.group, []).append(task)
    groups = {name: Group(tuple(found)) for name, found in members.items()}
    heads = [replace(found[0], name=name, group=None) for name, found in members.items()]
    return make_rows(heads, {task.name: task for task in tasks}, groups)


def _margin(rule: Rule) -> float:
    if rule.max_drop is not None:
        return rule.max_drop / 100
    return rule.max_flips or 0.0


def largest_text(cluster: NDArray[np.str_]) -> int:
    """The most items under one text."""
    return max(Counter(cluster[cluster != ""].tolist()).values(), default=1)


def blocks(
    sizes: Sequence[int], seed: int, clusters: Sequence[NDArray[np.str_]] = ()
) -> Iterator[NDArray[np.int64]]:
    """All items of several tasks in a seeded random order, in blocks: (k, 2), task and item each.

    It is the texts that are shuffled (`clusters` has them by task, as in Samples; every item is one by
    default), all alike, however many items they have: the items of one stand together, in one block.
    """
    import numpy as np

    places = np.array([(task, item) for task, n in enumerate(sizes) for item in range(n)], dtype=np.int64)
    if not len(places):
        return
    texts = _numbered(places, clusters)
    order = np.random.default_rng(seed).permutation(int(texts.max()) + 1)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    shuffled = places[np.argsort(rank[texts], kind="stable")]
    ranks = np.sort(rank[texts])
    block = np.searchsorted(ranks, ranks) // max(_LEAST, -(-len(places) // _BLOCKS))
    yield from np.split(shuffled, np.flatnonzero(np.diff(block)) + 1)


def _numbered(places: NDArray[np.int64], clusters: Sequence[NDArray[np.str_]]) -> NDArray[np.int64]:
    """The number of each place's text, in the order in which texts come first."""
    import numpy as np

    numbers: dict[tuple[int, str | int], int] = {}
    labels = ((task, _text(clusters[task] if clusters else None, item)) for task, item in places.tolist())
    return np.array([numbers.setdefault(label, len(numbers)) for label in labels], dtype=np.int64)


def _text(cluster: NDArray[np.str_] | None, item: int) -> str | int:
    """What tells the text of an item from others of its task: its name, or the item itself."""
    return item if cluster is None else str(cluster[item]) or item


def see(
    state: Sequence[Watch],
    block: NDArray[np.int64],
    tasks: Sequence[Task],
    samples: Sequence[Samples],
    baseline: Mapping[str, Samples],
) -> tuple[Watch, ...]:
    """The watches after one more block of items; `samples` need be right only where the block says.

    `baseline` maps task names to the baseline's samples of the same items in the same order, whose clusters
    hold for both.
    """
    after = (_seen(watch, block, tasks, samples, baseline) for watch in state)
    return tuple(watch for watch in after if watch is not None)


def _seen(
    watch: Watch,
    block: NDArray[np.int64],
    tasks: Sequence[Task],
    samples: Sequence[Samples],
    baseline: Mapping[str, Samples],
) -> Watch | None:
    """The watch after a block; None where its items cannot be bet on, so that the gate must judge them."""
    mine = _mine(watch.row, tasks)
    texts: dict[tuple[int, str | int], list[float]] = {}
    for task, item in block.tolist():
        if task in mine:
            base = baseline[tasks[task].name]
            difference = _difference(watch.rule, samples[task], base, item)
            texts.setdefault((task, _text(base.cluster, item)), []).append(difference)
    if any(not abs(difference) <= 1 for some in texts.values() for difference in some):
        return None
    sums, sizes = [sum(some) for some in texts.values()], [len(some) for some in texts.values()]
    return replace(watch, bet=betting.update(watch.bet, sums, sizes))


def _difference(rule: Rule, candidate: Samples, base: Samples, item: int) -> float:
    if rule.max_flips is not None:
        return -float(candidate.answer[item] != base.answer[item])
    share = 1.0 if rule.min_recovery is None else rule.min_recovery
    return float(candidate.value[item] - share * base.value[item])


def broken(state: Sequence[Watch]) -> Stop | None:
    """The first rule that is certainly broken, and after how many items it was."""
    for watch in state:
        if watch.bet.broken_at is not None:
            return Stop(watch.row, watch.rule, watch.bet.broken_at, watch.of)
    return None


def sentence(stop: Stop) -> str:
    """What a stop means, for a person."""
    return (
        f"Stopped early: {stop.task} breaks the rule ({describe(stop.rule)}) for certain"
        f" after {stop.items} of {stop.of} items."
    )
