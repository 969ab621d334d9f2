"""The smallest loss that so many items can prove, under what is supposed of the candidates to come."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist

from qeval.base.records import Suite
from qeval.compare import stats
from qeval.compare.rows import Row
from qeval.judge.sizing import Churn, Size, rows_of_sizes

_MANY = 2000


_DOUBLINGS = 20.0


_FINE = 1e-5


@dataclass(frozen=True)
class Guess:
    """What is supposed of the candidates to come."""

    churn: float
    power: float
    suite: Suite
    sizes: Mapping[str, Size]
    measured: Mapping[str, Churn]
    scale: float = 1.0

    def worth(self, row: Row) -> float:
        """The items of a row, if all tasks had `scale` times as many."""
        return self.sizes[row.id].worth * self.scale

    def square(self, row: Row) -> float | None:
        """The mean square of the items' differences; None where only a run could tell."""
        if row.id in self.measured:
            return self.measured[row.id].square
        return None if row.kind == "perplexity" else self.churn


def smallest_loss(row: Row, guess: Guess, confidence: float) -> float | None:
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
    reach = (quantile(confidence) + quantile(guess.power)) * math.sqrt(square / worth)
    return max(reach, identical_loss(row, guess, confidence) or 0.0)


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
    low, high = -_DOUBLINGS, _DOUBLINGS
    n = guess.sizes[row.id].n
    if not n or not _proves(row, replace(guess, scale=math.exp2(high)), confidence, wanted):
        return None
    while high - low > _FINE:
        middle = (low + high) / 2
        if _proves(row, replace(guess, scale=math.exp2(middle)), confidence, wanted):
            high = middle
        else:
            low = middle
    return math.ceil(n * math.exp2(high))


def _proves(row: Row, guess: Guess, confidence: float, wanted: float) -> bool:
    smallest = smallest_loss(row, guess, confidence)
    return smallest is not None and smallest <= wanted


def quantile(probability: float) -> float:
    """The standard normal quantile."""
    return NormalDist().inv_cdf(probability)
