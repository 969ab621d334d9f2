"""The words and digits of a verdict: numbers in the units people use, and the sentence of reason.

Digits are chosen so that a rounded bound stands on the same side of the limit as the true one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from qeval.base import numbers
from qeval.base.records import Comparison, Rule
from qeval.base.rules import limit_of
from qeval.compare.pairs import UNPAIRED

_ENDINGS = {"PASS": "passes", "FAIL": "fails", "INCONCLUSIVE": "undecided"}


@dataclass(frozen=True)
class Shown:
    """One decision's numbers as text, a loss counted positive.

    `change` and its interval `low` to `high` are in `unit`: points lost, per cent of answers changed, or
    the perplexity as a multiple of the baseline's; `allowed` is the limit in the same unit.
    """

    baseline: str
    candidate: str
    change: str
    low: str
    high: str
    allowed: str
    unit: str


def shown(rule: Rule, comparison: Comparison, allowed: float) -> Shown:
    """The numbers of a decision. `allowed` is the limit in the comparison's unit."""
    kind, limit = limit_of(rule)
    if kind == "max_ppl_ratio":
        return _shown_ratio(comparison, limit)
    if kind == "max_kl":
        return _shown_nats(comparison, limit)
    bounds = [100 * value for value in (-comparison.delta, -comparison.high, -comparison.low)]
    if kind == "min_recovery":
        digits = numbers.digits_to_keep(bounds, (100 * allowed,), least=1, round_limits=True)
        change, low, high, most = (numbers.plain(value, digits) for value in (*bounds, 100 * allowed))
    else:
        digits = numbers.digits_to_keep(bounds, (100 * allowed,), least=1)
        change, low, high = (numbers.plain(value, digits) for value in bounds)
        most = numbers.as_written(100 * allowed)
    return Shown(
        baseline=numbers.points(comparison.baseline),
        candidate=numbers.points(comparison.candidate),
        change=change,
        low=low,
        high=high,
        allowed=most,
        unit=_UNITS.get(kind, "points"),
    )


_UNITS = {
    "max_flips": "% of answers changed",
    "min_top1_agreement": "% of positions with a different token first",
}


def _shown_nats(comparison: Comparison, limit: float) -> Shown:
    bounds = [-comparison.delta, -comparison.high, -comparison.low]
    digits = numbers.digits_to_keep(bounds, (limit,), least=_decimals(min(limit, bounds[0])))
    change, low, high = (numbers.plain(value, digits) for value in bounds)
    most = numbers.as_written(limit, 2)
    return Shown(numbers.plain(0.0, 1), change, change, low, high, most, unit="nats")


def _decimals(value: float) -> int:
    """The decimals that show three digits of a small number."""
    return 3 if value <= 0 else min(max(3, 2 - math.floor(math.log10(value))), 9)


def _shown_ratio(comparison: Comparison, limit: float) -> Shown:
    bounds = [numbers.exp(value) for value in (-comparison.delta, -comparison.high, -comparison.low)]
    digits = numbers.digits_to_keep(bounds, (limit,), least=3)
    change, low, high = (numbers.plain(value, digits) for value in bounds)
    return Shown(
        baseline=numbers.plain(numbers.exp(-comparison.baseline), 3),
        candidate=numbers.plain(numbers.exp(-comparison.candidate), 3),
        change=change,
        low=low,
        high=high,
        allowed=numbers.as_written(limit, 2),
        unit="x perplexity",
    )


def sentence(rule: Rule, comparison: Comparison, allowed: float, status: str, ending: str = "") -> str:
    """One sentence: what was lost, how surely, what is allowed, and what follows."""
    kind, limit = limit_of(rule)
    level = f"{numbers.level(comparison.confidence)} interval"
    if kind == "max_drop" and comparison.delta > 0:
        text = shown(rule, _mirrored(comparison), -allowed)
        what = f"{text.change} points gained ({level} {text.low} to {text.high})"
        limit_words = f"{numbers.as_written(100 * allowed)} lost allowed"
    else:
        text = shown(rule, comparison, allowed)
        what, limit_words = _phrases(kind, limit, text, level)
    unpaired = ", from published scores without items" if UNPAIRED in comparison.notes else ""
    return f"{comparison.task}: {what}, {limit_words}{unpaired}: {_ENDINGS[status]}{ending}."


def _phrases(kind: str, limit: float, text: Shown, level: str) -> tuple[str, str]:
    interval = f"({level} {text.low} to {text.high})"
    if kind == "max_ppl_ratio":
        return f"{text.change} times the baseline's perplexity {interval}", f"{text.allowed} allowed"
    if kind == "max_flips":
        return f"{text.change}% of answers changed {interval}", f"{text.allowed} allowed"
    if kind == "max_kl":
        return f"{text.change} nats from the baseline {interval}", f"{text.allowed} allowed"
    if kind == "min_top1_agreement":
        what = f"{text.change}% of positions have a different most likely token {interval}"
        return what, f"{text.allowed} allowed"
    what = f"{text.change} points lost {interval}"
    if kind == "min_recovery":
        return (
            what,
            f"{text.allowed} allowed to keep {numbers.as_written(100 * limit, 0)}% of the baseline's score",
        )
    return what, f"{text.allowed} allowed"


def _mirrored(comparison: Comparison) -> Comparison:
    """The same with gains counted positive by `shown`."""
    return replace(comparison, delta=-comparison.delta, low=-comparison.high, high=-comparison.low)
