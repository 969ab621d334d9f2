"""The smallest loss that so many items can prove, under what is supposed of the candidates to come.

A candidate as good as the baseline passes where the lower bound of its interval is above the loss: where the
interval's reach, and as much bad luck as the power allows for, are below it. Both shrink with more items:
noise as 1 / sqrt(n), what was not seen as 1 / n, and their squares add.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

from qeval.base.records import Suite
from qeval.compare import stats
from qeval.compare.rows import Row
from qeval.judge.sizing import Churn, Size, rows_of_sizes

_CARE = 1.05
"""Simulated, the reach of bounded scores and of texts is up to so much greater than its two parts tell."""
_CARE_UNBOUNDED = 1.15
"""And that of documents, whose worst one in one run tells little of the worst in the next."""
_DOUBLINGS = 20.0
_FINE = 1e-5


@dataclass(frozen=True)
class Guess:
    """What is supposed of the candidates to come, if all tasks had `scale` times as many items."""

    churn: float
    power: float
    suite: Suite
    sizes: Mapping[str, Size]
    measured: Mapping[str, Churn]
    scale: float = 1.0

    def worth(self, row: Row) -> float:
        """The items of a row, as plain ones."""
        return self.sizes[row.id].worth * self.scale

    def unit(self, row: Row) -> float:
        """The share of a text, or of an item alone, in the row's score."""
        return min(self.sizes[row.id].share / self.scale, 1.0)

    def square(self, row: Row) -> float | None:
        """The mean square of the items' differences; None where only a run could tell."""
        if row.id in self.measured:
            return self.measured[row.id].square
        return None if row.kind == "perplexity" else self.churn

    def design(self, row: Row) -> float:
        """How many times the variance of items alone the difference has: as measured, else as if the items of
        a text changed as one."""
        known = self.measured.get(row.id)
        return self.sizes[row.id].together if known is None else known.design

    def few_texts(self, row: Row) -> bool:
        """Whether items share so few texts that the gate's interval is everything possible."""
        texts = self.sizes[row.id].texts
        return texts is not None and texts * self.scale < stats.FEWEST_CLUSTERS


def smallest_loss(row: Row, guess: Guess, confidence: float) -> float | None:
    """The smallest loss that a candidate as good as the baseline proves with the guessed power; None where
    only a run could tell."""
    if row.level == "average":
        return _averaged([smallest_loss(one, guess, confidence) for one in _parts(guess)])
    square, worth = guess.square(row), guess.worth(row)
    if square is None:
        return None
    if row.kind == "perplexity":
        return _documents(guess.measured[row.id], guess, confidence)
    if not worth or guess.few_texts(row):
        return 1.0
    if row.kind == "accuracy" and not guess.sizes[row.id].by_units:
        return _reach(worth, min(square, 1.0), confidence, guess.power)
    error = math.sqrt(square * guess.design(row) / worth)
    reach = bounded_loss(error, guess.unit(row), confidence, guess.power)
    if row.kind == "accuracy":
        reach = max(reach, _reach(worth, min(square, 1.0), confidence, guess.power))
    return max(reach, identical_loss(row, guess, confidence) or 0.0)


def bounded_loss(error: float, unit: float, confidence: float, power: float) -> float:
    """What a bounded score proves whose difference has this standard error, a `unit` of its weight being what
    may be unseen: the reach of `stats.paired_interval` and the luck of a draw."""
    reach = math.hypot(quantile(confidence) * error, -math.log1p(-confidence) * unit)
    return min(_CARE * (reach + quantile(power) * error), 1.0)


def _documents(known: Churn, guess: Guess, confidence: float) -> float:
    """The same of documents: the reach of the measured interval, parted into noise and what may be unseen."""
    error = known.error()
    noise, reach = quantile(confidence) * error, known.reach(confidence)
    if not math.isfinite(reach):
        return math.inf
    unseen = math.sqrt(max(reach**2 - noise**2, 0.0))
    luck = quantile(guess.power) * error / math.sqrt(guess.scale)
    return _CARE_UNBOUNDED * (math.hypot(noise / math.sqrt(guess.scale), unseen / guess.scale) + luck)


def _reach(worth: float, churn: float, confidence: float, power: float) -> float:
    """The lower side of the gate's interval for a draw that is luckier than this one with `power`.

    Nearer to simulation than `stats.smallest_margin`, which for 300 items and 5% churn says 3.2 points
    where 3.6 are needed (and 71% pass instead of 80%).
    """
    changed = churn * worth
    more = min(quantile(power) * math.sqrt(changed), changed)
    losses, gains = (changed + more) / 2, (changed - more) / 2
    return -stats.accuracy_interval(losses, max(gains, 0.0), worth, 2 * confidence - 1)[0]


def identical_loss(row: Row, guess: Guess, confidence: float) -> float | None:
    """The loss that even the baseline's own answers cannot rule out: the reach of the gate's interval
    where no item changes."""
    if row.level == "average":
        return _averaged([identical_loss(one, guess, confidence) for one in _parts(guess)])
    if row.kind == "perplexity":
        return 0.0
    worth, size = guess.worth(row), guess.sizes[row.id]
    if guess.few_texts(row) or (row.kind == "score" and worth < 2):  # noqa: PLR2004 - a spread needs two
        return 1.0
    unseen = -math.expm1(guess.unit(row) * math.log1p(-confidence))
    if row.kind != "accuracy":
        return unseen
    alone = -stats.accuracy_interval(0, 0, worth, 2 * confidence - 1)[0]
    return max(alone, unseen) if size.by_units else alone


def _parts(guess: Guess) -> list[Row]:
    rows = {row.id: row for row in rows_of_sizes(guess.suite, guess.sizes)}
    return [rows[name] for name in guess.suite.average]


def _averaged(losses: Sequence[float | None]) -> float | None:
    """The reach of a mean of independent tasks: squares add."""
    known = [loss for loss in losses if loss is not None]
    return math.hypot(*known) / len(losses) if len(known) == len(losses) else None


def needed_items(row: Row, guess: Guess, confidence: float, wanted: float) -> int | None:
    """The items with which `wanted` is the smallest provable loss, all tasks behind the row growing alike;
    None where more than a million times those there are would not do, or there are none to begin with."""

    def proves(grown: Guess) -> bool:
        smallest = smallest_loss(row, grown, confidence)
        return smallest is not None and smallest <= wanted

    return least_items(row, guess, proves)


def least_items(row: Row, guess: Guess, proves: Callable[[Guess], bool]) -> int | None:
    """The items of a row from which on something is proved, as `needed_items`."""
    low, high = -_DOUBLINGS, _DOUBLINGS
    n = guess.sizes[row.id].n
    if not n or not proves(replace(guess, scale=math.exp2(high))):
        return None
    while high - low > _FINE:
        middle = (low + high) / 2
        if proves(replace(guess, scale=math.exp2(middle))):
            high = middle
        else:
            low = middle
    return math.ceil(n * math.exp2(high))


def quantile(probability: float) -> float:
    """The standard normal quantile."""
    return NormalDist().inv_cdf(probability)
