"""What a policy can decide at all, before a GPU is paid for: items there are against items needed.

Nothing is scored here. A candidate is supposed to be as good as its baseline while `churn` of the answers
change; a margin counts as provable where such a candidate passes with the probability `power`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from qeval.base import layout, numbers
from qeval.base.errors import UsageError
from qeval.base.layout import Column
from qeval.base.names import in_a_sentence
from qeval.base.records import Kind, Level, Policy, Rule, Suite, Tier
from qeval.base.rules import describe, limit_of
from qeval.compare.rows import Row
from qeval.judge.deciding import POWER
from qeval.judge.margins import (
    Guess,
    bounded_loss,
    identical_loss,
    least_items,
    needed_items,
    quantile,
    smallest_loss,
)
from qeval.judge.matching import check_rules, rules_for
from qeval.judge.sizing import Churn, Size, rows_of_sizes

Answer = Literal["provable", "too few items", "impossible", "unknown"]
"""too few items: a candidate that loses nothing passes with less than `power`. impossible: not even the
baseline itself would pass. unknown: a run is needed to tell (`measure`)."""
CHURN = 0.1
"""The share of answers that change between right and wrong, where no run tells: 8 to 14% is usual for
4-bit schemes on multiple choice."""
EVEN = 0.5
"""The least power that is worth planning for: no more than a coin promises."""
UNDECIDED: frozenset[Answer] = frozenset({"too few items", "impossible"})
"""The answers on rules that cannot be decided; of what is unknown, a run tells."""
MARGINS = (0.5, 1.0, 2.0)
"""Points of which a plan without a policy speaks."""


@dataclass(frozen=True)
class Planned:
    """A rule on a row, or a row alone. Losses are in the unit of Comparison: fractions, or nats per word.

    `allowed` is the loss allowed, `smallest` the smallest that can be proved, `identical` the smallest that
    the baseline itself would pass. `needed` maps a loss in points (or the rule's own limit) to the items
    that it takes. `reason` is one sentence. `texts` counts the texts behind the items where some share one.
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
    texts: int | None = None
    tier: Tier = "required"

    @property
    def undecided(self) -> bool:
        """Whether this is a required rule that the items there are cannot decide."""
        return bool(self.limit) and self.tier == "required" and self.answer in UNDECIDED


# --- what can be decided ------------------------------------------------------------------------


def plan(
    suite: Suite,
    n_by_task: Mapping[str, Size],
    policy: Policy | None = None,
    *,
    churn: float = CHURN,
    power: float = POWER,
    measured: Mapping[str, Churn] | None = None,
) -> tuple[Planned, ...]:
    """For each row and rule what can be decided; without a policy, for each task of the suite.

    Args:
        suite: what would be asked.
        n_by_task: from `sizes`.
        policy: the rules; None for the smallest provable margins alone.
        churn: the share of answers that change between right and wrong, where `measured` does not tell.
        power: the probability of passing that counts as provable, at least 0.5 and below 1.
        measured: from `measure`.

    Raises:
        UsageError: a rule matches no row, or churn or power is no fraction.
    """
    if not 0 < churn < 1:
        raise UsageError(f"churn is {churn:g}.", "It must lie between 0 and 1, both excluded.")
    if not EVEN <= power < 1:
        raise UsageError(f"power is {power:g}.", "It must lie between 0.5 and 1, 1 excluded.")
    rows = rows_of_sizes(suite, n_by_task)
    guess = Guess(churn, power, suite, n_by_task, measured or {})
    if policy is None:
        return tuple(_unruled(row, guess) for row in rows if row.level != "subtask")
    check_rules(policy, rows)
    ids = [row.id for row in rows]
    return tuple(
        _ruled(rule, row, guess)
        for row in rows
        for rule in policy.rules
        if rule in _rules_for_any(policy, row, ids)
    )


def _rules_for_any(policy: Policy, row: Row, ids: Collection[str]) -> set[Rule]:
    """The rules that hold for a row of some variant: which variants there will be is not known yet."""
    return {
        rule for one in policy.rules for rule in rules_for(policy, row, one.variants, ids, (one.variants,))
    }


def _unruled(row: Row, guess: Guess) -> Planned:
    confidence = Rule().confidence
    smallest = smallest_loss(row, guess, confidence)
    size = guess.sizes[row.id]
    needed = None
    if row.kind != "perplexity" and smallest is not None:
        needed = {f"{points:g}": needed_items(row, guess, confidence, points / 100) for points in MARGINS}
    reason = "" if smallest is not None else _UNKNOWN
    return Planned(
        row.id,
        row.level,
        row.kind,
        size.n,
        confidence,
        churn=_churn(row, guess),
        smallest=smallest,
        identical=identical_loss(row, guess, confidence),
        needed=needed,
        reason=reason,
        texts=size.texts,
    )


def _churn(row: Row, guess: Guess) -> float | None:
    """The churn of a row's own items; None of a mean of rows of which each was measured by itself."""
    return None if row.parts and guess.measured and row.id not in guess.measured else guess.square(row)


_UNKNOWN = "It is not known how much its items change; --from RUN takes that from a run."


def _ruled(rule: Rule, row: Row, guess: Guess) -> Planned:
    limit, value = limit_of(rule)
    size = guess.sizes[row.id]
    base = Planned(
        row.id, row.level, row.kind, size.n, rule.confidence, describe(rule), texts=size.texts, tier=rule.tier
    )
    if limit == "max_flips":
        return _flips(base, row, guess, value)
    allowed = _allowed(limit, value, row, guess)
    if allowed is None:
        return replace(base, reason="The baseline's score is not known; --from RUN takes it from a run.")
    return _answered(
        replace(
            base,
            allowed=allowed,
            churn=_churn(row, guess),
            smallest=smallest_loss(row, guess, rule.confidence),
            identical=identical_loss(row, guess, rule.confidence),
        ),
        row,
        guess,
    )


def _allowed(limit: str, value: float, row: Row, guess: Guess) -> float | None:
    if limit == "max_drop":
        return value / 100
    if limit == "max_ppl_ratio":
        return math.log(value)
    known = guess.measured.get(row.id)
    return None if known is None else (1 - value) * known.baseline


def _answered(row: Planned, what: Row, guess: Guess) -> Planned:
    """The row with its answer, given the loss allowed and the smallest provable."""
    allowed, least = row.allowed or 0.0, row.smallest or 0.0
    best, asked = _drop(row.kind, least, allowed), _loss(row.kind, allowed, least)
    items = _items(row.n)
    if row.identical is not None and row.identical >= allowed:
        shared = "" if row.texts is None else f" under {numbers.count(row.texts)} texts"
        drop = _drop(row.kind, allowed, least)
        words = f"{items}{shared} cannot rule out {drop}: not even the baseline would pass"
        answer: Answer = "impossible"
    elif row.smallest is None:
        return replace(row, reason=_UNKNOWN)
    elif row.smallest > allowed:
        words = f"{items} can at best rule out {best}; the limit is {asked}"
        answer = "too few items"
    else:
        words, answer = f"{items} can rule out {best}; the limit is {asked}", "provable"
    needed = None if row.smallest is None else needed_items(what, guess, row.confidence, allowed)
    more = f"; about {numbers.count(needed)} are needed in all" if needed and answer != "provable" else ""
    return replace(row, answer=answer, needed={row.limit: needed}, reason=f"{words}{more}.")


def _items(n: int) -> str:
    return f"{numbers.count(n)} item" + ("" if n == 1 else "s")


def _flips(base: Planned, row: Row, guess: Guess, most: float) -> Planned:
    """Flips: provable where the interval of the expected share, the exact one or that of texts, stays below
    the limit."""
    known = guess.measured.get(row.id)
    share = guess.churn if known is None or known.flips is None else known.flips
    tail = 1 - base.confidence
    alone = math.ceil(math.log(tail) / math.log(1 - most))  # items of which none may flip
    identical = 1 - tail ** (1 / base.n) if base.n else 1.0
    if base.texts is not None:
        identical = (
            1.0 if guess.few_texts(row) else max(identical, -math.expm1(guess.unit(row) * math.log(tail)))
        )
    base = replace(base, allowed=most, churn=share, identical=identical)
    reach = quantile(base.confidence) + quantile(guess.power)
    needed = None
    if share < most:
        needed = max(alone, math.ceil(reach**2 * share * (1 - share) / (most - share) ** 2))
        shared = None if base.texts is None else _flips_of_texts(row, guess, base.confidence, share, most)
        needed = needed if shared is None else max(needed, shared)
    answer: Answer = "impossible" if base.n < alone or identical >= most else "too few items"
    if answer != "impossible" and needed is not None and needed <= base.n:
        answer = "provable"
    words = f"{100 * share:.3g}% of answers change; the limit is {100 * most:.3g}%"
    takes = "no number of items proves that" if needed is None else f"{_items(needed)} needed"
    reason = f"{words}: {takes}, {numbers.count(base.n)} available."
    return replace(base, answer=answer, needed={base.limit: needed}, reason=reason)


def _flips_of_texts(row: Row, guess: Guess, confidence: float, share: float, most: float) -> int | None:
    """The items from which on the interval that counts texts stays below the limit."""

    def proves(grown: Guess) -> bool:
        error = math.sqrt(share * (1 - share) * grown.design(row) / grown.worth(row))
        reach = bounded_loss(error, grown.unit(row), confidence, grown.power)
        return not grown.few_texts(row) and share + reach < most

    return least_items(row, guess, proves)


# --- for a person and a machine -----------------------------------------------------------------


def table(
    rows: Sequence[Planned],
    noise: Sequence[str] = (),
    width: int | None = None,
    *,
    power: float = POWER,
    measured: bool = False,
) -> str:
    """The plan as text of so many columns: a row per rule, the sentences of what cannot be decided, those of
    `noise`, and what the numbers are for; `measured` is whether a run tells the churn."""
    if any(row.limit for row in rows):
        headers = ["task", "rule", "items", "churn", "smallest limit", _NEEDED, "answer"]
        cells = [[row.task, row.limit, *_numbers(row), _count(_one(row)), row.answer] for row in rows]
    else:
        headers = [
            "task",
            "items",
            "churn",
            "smallest limit",
            *_OF_MARGINS,
        ]
        cells = [[row.task, *_numbers(row), *_all_needed(row)] for row in rows]
    text, titles = layout.with_titles([*map(_column, headers)], cells, width)
    told = [row for row in rows if row.answer != "provable"]
    reasons = [f"{row.task}: {row.reason}" for row in told if row.reason]
    below = ["\n".join(lines) for lines in (reasons, noise) if lines]
    return "\n\n".join([text, *below, *_plainly(rows), *_footnotes(rows, titles, power, measured=measured)])


def _footnotes(
    rows: Sequence[Planned], titles: Collection[str], power: float, *, measured: bool
) -> Iterator[str]:
    """What the numbers in the columns of these titles are for, and where churn is from if a run tells it."""
    counted = [title for title in (_NEEDED, *_OF_MARGINS) if title in titles]
    if counted and any(row.needed for row in rows):
        heads = in_a_sentence(counted)
        limit = "" if counted == [_NEEDED] else " that limit"
        yield (
            f"{heads[:1].upper()}{heads[1:]}: how many items, in all, a variant that loses nothing needs to"
            f" pass{limit} with a probability of {100 * power:.0f}%. (Beside an undecided rule qeval gate"
            " names other numbers: those that decide it if the difference stays as it was measured.)"
        )
    guessed = next((row.churn for row in rows if row.kind == "accuracy" and row.churn), None)
    if guessed is not None and not measured:
        yield (
            f"All of this supposes that {100 * guessed:.3g}% of the answers change; --churn says otherwise,"
            " and --from RUN takes it from a run."
        )
    if "churn" in titles and measured and any(row.kind == "accuracy" and row.churn for row in rows):
        yield (
            "Churn: of the variant that changes most, the share of answers that changed less the square of"
            " the difference, as only their spread about it takes items."
        )


_NEEDED = "items needed"
_OF_MARGINS = tuple(f"for {points:g} {'point' if points == 1 else 'points'}" for points in MARGINS)
_COUNTS = {"items", "churn", "smallest limit", _NEEDED, *_OF_MARGINS}


def _column(title: str) -> Column:
    """A column, with its turn to give way on a narrow terminal."""
    goes = {"churn": 4, "for 0.5 points": 3, "for 2 points": 2, "smallest limit": 1}.get(title, 0)
    align: Literal["left", "right"] = "right" if title in _COUNTS else "left"
    return Column(title, align, goes, leads=title in ("task", "rule"))


def _plainly(rows: Sequence[Planned]) -> list[str]:
    lost = [row for row in rows if row.answer == "impossible" and row.tier == "required"]
    if not lost:
        return []
    names = ", ".join(dict.fromkeys(row.task for row in lost))
    return [f"This policy cannot be passed with these items, not even by an identical model: {names}."]


def _numbers(row: Planned) -> list[str]:
    churn = "" if row.churn is None or row.kind != "accuracy" else f"{100 * row.churn:.1f}%"
    shared = "" if row.texts is None else f" in {numbers.count(row.texts)} texts"
    return [
        f"{numbers.count(row.n)}{shared}",
        churn,
        "" if row.smallest is None else _loss(row.kind, row.smallest, row.allowed),
    ]


def _loss(kind: Kind, loss: float, beside: float | None = None) -> str:
    """A loss in the unit that its kind of score has; a small one is not shown as none, nor as if it lay on
    the other side of the one `beside` it."""
    near = [0.0] if beside is None else [0.0, beside]
    if kind == "perplexity":
        value = numbers.exp(loss)
        return f"x{value:.{numbers.digits_to_keep(value, map(numbers.exp, near), least=4)}f}"
    return f"{100 * loss:.{numbers.digits_to_keep(100 * loss, [100 * one for one in near])}f} points"


def _drop(kind: Kind, loss: float, beside: float | None = None) -> str:
    """The same as the thing that is ruled out or not."""
    return f"{'a perplexity ratio' if kind == 'perplexity' else 'a drop'} of {_loss(kind, loss, beside)}"


def _one(row: Planned) -> int | None:
    return next(iter(row.needed.values())) if row.needed else None


def _all_needed(row: Planned) -> list[str]:
    return [_count(n) for n in row.needed.values()] if row.needed else ["" for _ in MARGINS]


def _count(n: int | None) -> str:
    return "" if n is None else numbers.count(n)


def document(rows: Sequence[Planned], noise: Sequence[str] = ()) -> dict[str, Any]:
    """The plan as JSON-able data; the fields are those of Planned, `noise` are sentences."""
    return {"schema": "qeval.plan/1", "rows": [asdict(row) for row in rows], "noise": list(noise)}
