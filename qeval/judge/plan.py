"""What a policy can decide at all, before a GPU is paid for: items there are against items needed.

Nothing is scored here. A candidate is supposed to be as good as its baseline while `churn` of the answers
change; a margin counts as provable where such a candidate passes with the probability `power`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from statistics import NormalDist
from typing import Any, Literal

from tabulate import tabulate

from qeval.base.errors import UsageError
from qeval.base.records import Kind, Level, Policy, Read, Rule, Run, Suite, Task
from qeval.base.rules import describe, limit_of
from qeval.base.sizes import MMLU_SUBJECTS, TASK_SIZES
from qeval.compare import pairs, stats
from qeval.compare.pairs import AVERAGE, MACRO, Pairs
from qeval.judge import gate
from qeval.judge import reasons as gate_words
from qeval.judge.gate import Row

Answer = Literal["provable", "too few items", "impossible", "unknown"]
"""too few items: a candidate that loses nothing passes with less than `power`. impossible: not even the
baseline itself would pass. unknown: a run is needed to tell (`measure`)."""
CHURN = 0.1
"""The share of answers that change between right and wrong, where no run tells: 8 to 14 % is usual for
4-bit schemes on multiple choice."""
MARGINS = (0.5, 1.0, 2.0)
"""Points of which a plan without a policy speaks."""

_MANY = 2000
_DOUBLINGS = 20.0
_FINE = 1e-5


@dataclass(frozen=True)
class Churn:
    """What a run tells of a row: the mean square of the items' differences (for 0/1 scores the share of
    items that changed between right and wrong), flips as a share of items (None where there are none),
    the baseline's score, and the variant it was measured on."""

    square: float
    flips: float | None
    baseline: float
    variant: str


@dataclass(frozen=True)
class Size:
    """How many items a row has. `worth` is how many items of a plain task would tell as much: for a mean
    of members of unlike sizes it is less than `n`."""

    n: int
    worth: float


@dataclass(frozen=True)
class Planned:
    """A rule on a row, or a row alone. Losses are in the unit of Comparison: fractions, or nats per word.

    `allowed` is the loss allowed, `smallest` the smallest that can be proved, `identical` the smallest that
    the baseline itself would pass. `needed` maps a loss in points (or the rule's own limit) to the items
    that it takes. `reason` is one sentence.
    """

    task: str
    level: Level
    kind: Kind
    n: int
    confidence: float
    limit: str = ""
    allowed: float | None = None
    churn: float | None = None
    smallest: float | None = None
    identical: float | None = None
    needed: Mapping[str, int | None] | None = None
    answer: Answer = "unknown"
    reason: str = ""


# --- how many items there are -------------------------------------------------------------------


def sizes(suite: Suite, given: Mapping[str, int] | None = None, run: Run | None = None) -> dict[str, Size]:
    """The size of every row that the suite promises, by row id: from `given` (items per task), from what
    `run` found, or from what is known of public tasks; cut to the tasks' limits.

    Raises UsageError for a task whose size is nowhere to be found.
    """
    known = {**TASK_SIZES, **{name: size for name, (size, _) in MMLU_SUBJECTS.items()}}
    if run is not None:
        known.update((cell.task.name, cell.n_available) for r in run.results for cell in r.cells)
    known.update(given or {})
    found: dict[str, Size] = {}
    for task in suite.tasks:
        found.update(_task_sizes(task, known, _members(task, run, known)))
    parts = [found[name] for name in suite.average if name in found]
    if parts and len(parts) == len(suite.average):
        found[AVERAGE] = _mean_size(parts)
    return found


def _members(task: Task, run: Run | None, known: Mapping[str, int]) -> tuple[str, ...]:
    """The names of a group's members, none for a plain task."""
    if run is not None and (members := pairs.group_members(run).get(task.name)):
        return members
    return tuple(MMLU_SUBJECTS) if task.name == "mmlu" and task.name not in known else ()


def _task_sizes(task: Task, known: Mapping[str, int], members: Sequence[str]) -> dict[str, Size]:
    if not members:
        return {task.name: _size(task, task.name, known)}
    parts = {name: _size(task, name, known) for name in members}
    total = sum(part.n for part in parts.values())
    group = {task.name: Size(total, total), task.name + MACRO: _mean_size(list(parts.values()))}
    return {**group, **parts}


def _size(task: Task, name: str, known: Mapping[str, int]) -> Size:
    if name not in known:
        raise UsageError(
            f"Nobody has said how many items {name} has.",
            f"Write --n {name}=1000, or measure it with --from RUN.",
        )
    n = known[name] if task.limit is None else min(known[name], task.limit)
    return Size(n, n)


def _mean_size(parts: Sequence[Size]) -> Size:
    spread = sum(1 / part.worth if part.worth else math.inf for part in parts)
    return Size(sum(part.n for part in parts), len(parts) ** 2 / spread)


# --- how much answers change --------------------------------------------------------------------


def measure(run: Run, read: Read, *, baseline: str | None = None) -> dict[str, Churn]:
    """The churn of every row of a run, by row id, of the candidate that changes most there.

    Raises what `compare.pair` raises. Published scores tell nothing of churn.
    """
    found: dict[str, Churn] = {}
    for row in pairs.pair(run, read, baseline=baseline):
        if row.values is not None:
            one = _churn(row)
            if row.task not in found or one.square > found[row.task].square:
                found[row.task] = one
    return found


def _churn(row: Pairs) -> Churn:
    values = row.values
    assert values is not None  # noqa: S101 - the caller looked
    total = float(values.weight.sum())
    residual = values.candidate - values.baseline - row.delta * values.weight
    square = float((residual**2).sum()) * row.n / total**2
    return Churn(square, None if row.flips is None else row.flips / row.n, row.baseline, row.variant)


# --- what can be decided ------------------------------------------------------------------------


def plan(
    suite: Suite,
    n_by_task: Mapping[str, Size],
    policy: Policy | None = None,
    *,
    churn: float = CHURN,
    power: float = gate.POWER,
    measured: Mapping[str, Churn] | None = None,
) -> tuple[Planned, ...]:
    """For each row and rule what can be decided; without a policy, for each task of the suite.

    Args:
        suite: what would be asked.
        n_by_task: from `sizes`.
        policy: the rules; None for the smallest provable margins alone.
        churn: the share of answers that change between right and wrong, where `measured` does not tell.
        power: the probability of passing that counts as provable, in (0, 1).
        measured: from `measure`.

    Raises:
        UsageError: a rule matches no row, or churn or power is no fraction.
    """
    for name, value in (("churn", churn), ("power", power)):
        if not 0 < value < 1:
            raise UsageError(f"{name} is {value:g}.", "It must lie between 0 and 1, both excluded.")
    rows = [row for row in suite_rows(suite, n_by_task) if row.task in n_by_task]
    guess = _Guess(churn, power, suite, n_by_task, measured or {})
    if policy is None:
        return tuple(_unruled(row, guess) for row in rows if row.level != "subtask")
    variants = [rule.variants for rule in policy.rules]
    gate.check_rules(policy, rows, variants)
    return tuple(
        _ruled(rule, row, guess)
        for row in rows
        for rule in policy.rules
        if rule in _rules_for_any(policy, row)
    )


def _rules_for_any(policy: Policy, row: Row) -> set[Rule]:
    """The rules that hold for a row of some variant: which variants there will be is not known yet."""
    return {rule for one in policy.rules for rule in gate.rules_for(policy, row, one.variants)}


def suite_rows(suite: Suite, n_by_task: Mapping[str, Size]) -> tuple[Row, ...]:
    """The rows that the suite promises, members of groups last."""
    rows: dict[str, Row] = {}
    for task in suite.tasks:
        level: Level = "pooled" if task.name + MACRO in n_by_task else "task"
        rows[task.name] = Row(task.name, task.metric, task.kind, level)
        if level == "pooled":
            rows[task.name + MACRO] = Row(task.name + MACRO, task.metric, task.kind, "macro")
    if AVERAGE in n_by_task:
        kinds = {rows[name].kind for name in suite.average}
        rows[AVERAGE] = Row(AVERAGE, "mean", "accuracy" if kinds == {"accuracy"} else "score", "average")
    for task in suite.tasks:
        for name in n_by_task:
            if name.startswith(f"{task.name}_") and name not in rows:
                rows[name] = Row(name, task.metric, task.kind, "subtask")
    return tuple(rows.values())


@dataclass(frozen=True)
class _Guess:
    """What is supposed of the candidates to come."""

    churn: float
    power: float
    suite: Suite
    sizes: Mapping[str, Size]
    measured: Mapping[str, Churn]
    scale: float = 1.0

    def worth(self, row: Row) -> float:
        """The items of a row, if all tasks had `scale` times as many."""
        return self.sizes[row.task].worth * self.scale

    def square(self, row: Row) -> float | None:
        """The mean square of the items' differences; None where only a run could tell."""
        if row.task in self.measured:
            return self.measured[row.task].square
        return None if row.kind == "perplexity" else self.churn


def _unruled(row: Row, guess: _Guess) -> Planned:
    confidence = Rule().confidence
    smallest = smallest_loss(row, guess, confidence)
    size = guess.sizes[row.task]
    needed = None
    if row.kind != "perplexity" and smallest is not None:
        needed = {f"{points:g}": needed_items(row, guess, confidence, points / 100) for points in MARGINS}
    reason = "" if smallest is not None else _UNKNOWN
    return Planned(
        row.task,
        row.level,
        row.kind,
        size.n,
        confidence,
        churn=guess.square(row),
        smallest=smallest,
        identical=identical_loss(row, guess, confidence),
        needed=needed,
        reason=reason,
    )


_UNKNOWN = "How much its items change is not known: measure it with --from RUN."


def _ruled(rule: Rule, row: Row, guess: _Guess) -> Planned:
    limit, value = limit_of(rule)
    base = Planned(row.task, row.level, row.kind, guess.sizes[row.task].n, rule.confidence, describe(rule))
    if limit == "max_flips":
        return _flips(base, row, guess, value)
    allowed = _allowed(limit, value, row, guess)
    if allowed is None:
        return replace(base, reason="The baseline's score is not known: measure it with --from RUN.")
    return _answered(
        replace(
            base,
            allowed=allowed,
            churn=guess.square(row),
            smallest=smallest_loss(row, guess, rule.confidence),
            identical=identical_loss(row, guess, rule.confidence),
        ),
        row,
        guess,
    )


def _allowed(limit: str, value: float, row: Row, guess: _Guess) -> float | None:
    if limit == "max_drop":
        return value / 100
    if limit == "max_ppl_ratio":
        return math.log(value)
    known = guess.measured.get(row.task)
    return None if known is None else (1 - value) * known.baseline


def _answered(row: Planned, what: Row, guess: _Guess) -> Planned:
    """The row with its answer, given the loss allowed and the smallest provable."""
    allowed, best = row.allowed or 0.0, _loss(row.kind, row.smallest or 0.0)
    asked = _loss(row.kind, allowed)
    if row.identical is not None and row.identical >= allowed:
        words = f"{asked} cannot be proved with {_items(row.n)}: not even the baseline would pass"
        answer: Answer = "impossible"
    elif row.smallest is None:
        return replace(row, reason=_UNKNOWN)
    elif row.smallest > allowed:
        words = f"{_items(row.n)} prove {best} at best, {asked} asked"
        answer = "too few items"
    else:
        words, answer = f"{_items(row.n)} prove {best}, {asked} asked", "provable"
    needed = None if row.smallest is None else needed_items(what, guess, row.confidence, allowed)
    more = f"; it takes about {gate_words.count(needed)}" if needed and answer != "provable" else ""
    return replace(row, answer=answer, needed={row.limit: needed}, reason=f"{words}{more}.")


def _items(n: int) -> str:
    return f"{gate_words.count(n)} item" + ("" if n == 1 else "s")


def _flips(base: Planned, row: Row, guess: _Guess, most: float) -> Planned:
    """Flips: provable where the exact interval of the expected share stays below the limit."""
    known = guess.measured.get(row.task)
    share = guess.churn if known is None or known.flips is None else known.flips
    tail = 1 - base.confidence
    alone = math.ceil(math.log(tail) / math.log(1 - most))  # items of which none may flip
    base = replace(base, allowed=most, churn=share, identical=1 - tail ** (1 / base.n) if base.n else 1.0)
    reach = _z(base.confidence) + _z(guess.power)
    needed = None
    if share < most:
        needed = max(alone, math.ceil(reach**2 * share * (1 - share) / (most - share) ** 2))
    answer: Answer = "impossible" if base.n < alone else "too few items"
    if needed is not None and needed <= base.n:
        answer = "provable"
    words = f"{100 * share:.3g} % of answers change, {100 * most:.3g} % asked"
    takes = "no number of items proves it" if needed is None else f"it takes {_items(needed)}"
    reason = f"{words}: {takes}, {gate_words.count(base.n)} there are."
    return replace(base, answer=answer, needed={base.limit: needed}, reason=reason)


# --- the smallest loss --------------------------------------------------------------------------


def smallest_loss(row: Row, guess: _Guess, confidence: float) -> float | None:
    """The smallest loss that a candidate as good as the baseline proves with the guessed power; None where
    only a run could tell."""
    if row.level == "average":
        return _averaged([smallest_loss(one, guess, confidence) for one in _parts(guess)])
    square, worth = guess.square(row), guess.worth(row)
    if square is None:
        return None
    if row.kind == "accuracy":
        return _reach(worth, min(square, 1.0), confidence, guess.power)
    if not worth:
        return 1.0
    reach = (_z(confidence) + _z(guess.power)) * math.sqrt(square / worth)
    return max(reach, identical_loss(row, guess, confidence) or 0.0)


def _reach(worth: float, churn: float, confidence: float, power: float) -> float:
    """The lower side of the gate's interval for a draw that is luckier than this one with `power`.

    Nearer to simulation than `stats.smallest_margin`, which for 300 items and 5 % churn says 3.2 points
    where 3.6 are needed (and 71 % pass instead of 80 %).
    """
    changed = churn * worth
    more = min(_z(power) * math.sqrt(changed), changed)
    losses, gains = (changed + more) / 2, (changed - more) / 2
    return -stats.accuracy_interval(losses, max(gains, 0.0), worth, 2 * confidence - 1)[0]


def identical_loss(row: Row, guess: _Guess, confidence: float) -> float | None:
    """The loss that even the baseline's own answers cannot rule out: the reach of the gate's interval
    where no item changes."""
    if row.level == "average":
        return _averaged([identical_loss(one, guess, confidence) for one in _parts(guess)])
    if row.kind == "perplexity":
        return 0.0
    worth = guess.worth(row)
    if row.kind == "accuracy":
        return -stats.accuracy_interval(0, 0, worth, 2 * confidence - 1)[0]
    return _identical_score(math.floor(worth), 2 * confidence - 1)


@lru_cache(maxsize=1024)
def _identical_score(n: int, level: float) -> float:
    """The lower side of the interval of `n` continuous scores without any difference."""
    few = min(n, _MANY)  # beyond, it shrinks as 1 / n
    values = [0.5] * few
    return -stats.paired_interval(values, values, level=level)[1] * few / max(n, 1) if n else 1.0


def _parts(guess: _Guess) -> list[Row]:
    rows = {row.task: row for row in suite_rows(guess.suite, guess.sizes)}
    return [rows[name] for name in guess.suite.average]


def _averaged(losses: Sequence[float | None]) -> float | None:
    """The reach of a mean of independent tasks: squares add."""
    known = [loss for loss in losses if loss is not None]
    return math.hypot(*known) / len(losses) if len(known) == len(losses) else None


def needed_items(row: Row, guess: _Guess, confidence: float, wanted: float) -> int | None:
    """The items with which `wanted` is the smallest provable loss, all tasks behind the row growing alike;
    None where more than a million times those there are would not do, or there are none to begin with."""
    low, high = -_DOUBLINGS, _DOUBLINGS
    n = guess.sizes[row.task].n
    if not n or not _proves(row, replace(guess, scale=math.exp2(high)), confidence, wanted):
        return None
    while high - low > _FINE:
        middle = (low + high) / 2
        if _proves(row, replace(guess, scale=math.exp2(middle)), confidence, wanted):
            high = middle
        else:
            low = middle
    return math.ceil(n * math.exp2(high))


def _proves(row: Row, guess: _Guess, confidence: float, wanted: float) -> bool:
    smallest = smallest_loss(row, guess, confidence)
    return smallest is not None and smallest <= wanted


def _z(probability: float) -> float:
    return NormalDist().inv_cdf(probability)


# --- for a person and a machine -----------------------------------------------------------------


def table(rows: Sequence[Planned]) -> str:
    """The plan as text: a row per rule, and the sentences of what cannot be decided."""
    if any(row.limit for row in rows):
        headers = ["task", "rule", "items", "churn", "smallest", "items needed", "answer"]
        cells = [[row.task, row.limit, *_numbers(row), _count(_one(row)), row.answer] for row in rows]
    else:
        headers = ["task", "items", "churn", "smallest", *[f"for {points:g} points" for points in MARGINS]]
        cells = [[row.task, *_numbers(row), *_all_needed(row)] for row in rows]
    align = ["right" if header in ("items", "churn", "smallest") else "left" for header in headers]
    text = tabulate(cells, headers=headers, tablefmt="simple", disable_numparse=True, colalign=align)
    reasons = [f"{row.task}: {row.reason}" for row in rows if row.reason and row.answer != "provable"]
    return "\n\n".join([text, *(["\n".join(reasons)] if reasons else []), *_plainly(rows)])


def _plainly(rows: Sequence[Planned]) -> list[str]:
    lost = [row for row in rows if row.answer == "impossible"]
    if not lost:
        return []
    names = ", ".join(dict.fromkeys(row.task for row in lost))
    return [
        f"This policy cannot be passed, not even by an identical model, with the items there are: {names}."
    ]


def _numbers(row: Planned) -> list[str]:
    churn = "" if row.churn is None or row.kind != "accuracy" else f"{100 * row.churn:.1f} %"
    return [gate_words.count(row.n), churn, "" if row.smallest is None else _loss(row.kind, row.smallest)]


def _loss(kind: Kind, loss: float) -> str:
    """A loss in the unit that its kind of score has."""
    return f"{math.exp(loss):.4f} ×" if kind == "perplexity" else f"{100 * loss:.2f} points"


def _one(row: Planned) -> int | None:
    return next(iter(row.needed.values())) if row.needed else None


def _all_needed(row: Planned) -> list[str]:
    return [_count(n) for n in row.needed.values()] if row.needed else ["" for _ in MARGINS]


def _count(n: int | None) -> str:
    return "" if n is None else gate_words.count(n)


def document(rows: Sequence[Planned]) -> dict[str, Any]:
    """The plan as JSON-able data; the fields are those of Planned."""
    return {"schema": "qeval.plan/1", "rows": [asdict(row) for row in rows]}
