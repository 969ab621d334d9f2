"""The words and digits of a verdict: numbers in the units people use, and the sentence of reason.

Digits are chosen so that a rounded bound stands on the same side of the limit as the true one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from qeval.base.records import Comparison, Rule
from qeval.base.rules import limit_of
from qeval.compare.pairs import UNPAIRED

_MOST_DIGITS = 9
_ENDINGS = {"PASS": "passes", "FAIL": "fails", "INCONCLUSIVE": "not decided"}


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


def faithful(values: Sequence[float], limit: float, digits: int = 1) -> list[str]:
    """`values` with at least `digits` decimals, and as many as keep each on its side of `limit`."""
    for count in range(digits, _MOST_DIGITS + 1):
        if all(_side(round(value, count), limit) == _side(value, limit) for value in values):
            return [_fixed(value, count) for value in values]
    return [repr(value) for value in values]


def rounded(values: Sequence[float], limit: float, digits: int = 1) -> list[str]:
    """`values` and last the `limit`, all rounded to the fewest decimals that keep their order; for a limit
    that is itself the result of a computation."""
    for count in range(digits, _MOST_DIGITS + 1):
        near = round(limit, count)
        if all(_side(round(value, count), near) == _side(value, limit) for value in values):
            return [_fixed(value, count) for value in (*values, limit)]
    return [repr(value) for value in (*values, limit)]


def _side(value: float, limit: float) -> int:
    if math.isclose(value, limit, rel_tol=1e-12, abs_tol=1e-12):  # equal but for the float's last digits
        return 0
    return (value > limit) - (value < limit)


def _fixed(value: float, digits: int) -> str:
    if math.isinf(value):
        return "−∞" if value < 0 else "∞"
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def plain(value: float, digits: int = 1) -> str:
    """A limit as the user wrote it, with at least `digits` decimals: 1.0, 0.25, 0.333."""
    exact = f"{Decimal(repr(round(value, 12))):f}"
    return f"{value:.{max(len(exact.rstrip('0').partition('.')[2]), digits)}f}"


def shown(rule: Rule, comparison: Comparison, allowed: float) -> Shown:
    """The numbers of a decision. `allowed` is the limit in the comparison's unit."""
    kind, limit = limit_of(rule)
    if kind == "max_ppl_ratio":
        return _shown_ratio(comparison, limit)
    bounds = [100 * value for value in (-comparison.delta, -comparison.high, -comparison.low)]
    if kind == "min_recovery":
        change, low, high, most = rounded(bounds, 100 * allowed)
    else:
        change, low, high = faithful(bounds, 100 * allowed)
        most = plain(100 * allowed)
    return Shown(
        baseline=f"{100 * comparison.baseline:.2f}",
        candidate=f"{100 * comparison.candidate:.2f}",
        change=change,
        low=low,
        high=high,
        allowed=most,
        unit="% of answers changed" if kind == "max_flips" else "points",
    )


def _shown_ratio(comparison: Comparison, limit: float) -> Shown:
    bounds = (-comparison.delta, -comparison.high, -comparison.low)
    change, low, high = faithful([_exp(value) for value in bounds], limit, 3)
    return Shown(
        baseline=f"{_exp(-comparison.baseline):.3f}",
        candidate=f"{_exp(-comparison.candidate):.3f}",
        change=change,
        low=low,
        high=high,
        allowed=plain(limit, 2),
        unit="× perplexity",
    )


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def sentence(rule: Rule, comparison: Comparison, allowed: float, status: str, ending: str = "") -> str:
    """One sentence: what was lost, how surely, what is allowed, and what follows."""
    kind, limit = limit_of(rule)
    level = f"{round(100 * comparison.confidence, 2):g} % interval"
    if kind == "max_drop" and comparison.delta > 0:
        text = shown(rule, _mirrored(comparison), -allowed)
        what = f"{text.change} points gained ({level} {text.low} to {text.high})"
        limit_words = f"{plain(100 * allowed)} lost are allowed"
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
        return f"{text.change} % of answers changed {interval}", f"{text.allowed} allowed"
    what = f"{text.change} points lost {interval}"
    if kind == "min_recovery":
        return what, f"{text.allowed} allowed to keep {plain(100 * limit, 0)} % of the baseline's score"
    return what, f"{text.allowed} allowed"


def _mirrored(comparison: Comparison) -> Comparison:
    """The same with gains counted positive by `shown`."""
    return replace(comparison, delta=-comparison.delta, low=-comparison.high, high=-comparison.low)


def about(number: int) -> str:
    """A rough number of items: two significant digits, thousands apart: "5 200"."""
    scale = 10 ** max(len(str(number)) - 2, 0)
    return f"{math.ceil(number / scale) * scale:,}".replace(",", " ")


def count(number: int) -> str:
    """An exact number, thousands apart: "14 042"."""
    return f"{number:,}".replace(",", " ")
