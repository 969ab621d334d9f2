"""The words and digits of a verdict: numbers as every table shows them, and the sentence of reason.

Digits are chosen so that a rounded bound stands on the same side of the limit as the true one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from qeval.base import numbers
from qeval.base.records import Comparison, Rule
from qeval.base.rules import allowed_words, is_brought, limit_of
from qeval.compare import wording
from qeval.compare.pairs import UNPAIRED

_BROUGHT = " (qeval's own limit beside max_drop; max_ppl_ratio sets another)"
_ENDINGS = {"PASS": "passes", "FAIL": "fails", "INCONCLUSIVE": "undecided"}


@dataclass(frozen=True)
class Shown:
    """One decision's numbers as text, in the signs and units of the report's tables.

    `change` with its interval `low` to `high` is what a rule limits: Δ in points, below 0 worse; the
    perplexity's ratio; the share of answers that changed; KL; the share of positions with the same most
    likely token. `allowed` is the limit in the same unit. `baseline` and `candidate` are empty where the
    rule is about no score.
    """

    baseline: str
    candidate: str
    change: str
    low: str
    high: str
    allowed: str


def shown(rule: Rule, comparison: Comparison, allowed: float, limits: tuple[float, ...] = ()) -> Shown:
    """The numbers of a decision. `allowed` is the loss allowed in the comparison's unit; `limits` are further
    deltas that differences must not be rounded across."""
    kind, value = limit_of(rule)
    if kind == "max_kl":
        return _nats(comparison, value)
    if kind in ("max_flips", "min_top1_agreement"):
        return _shares(rule, comparison, value)
    return _scores(rule, comparison, allowed, limits)


def _scores(rule: Rule, one: Comparison, allowed: float, limits: tuple[float, ...]) -> Shown:
    kept = (-allowed, *limits)
    score = numbers.perplexity if one.kind == "perplexity" else numbers.points
    low, _, high = wording.interval(one, kept).partition(" to ")
    most = allowed_words(rule)
    if rule.min_recovery is not None:
        most = numbers.signed(-100 * allowed, _digits_of_recovery(one, allowed))
    return Shown(score(one.baseline), score(one.candidate), wording.delta(one, kept), low, high, most)


def _digits_of_recovery(one: Comparison, allowed: float) -> int:
    """Those of what is allowed, a result here and rounded too, so that each bound lies on its true side."""
    values = [100 * value for value in (one.delta, one.low, one.high)]
    return numbers.digits_to_keep(values, (-100 * allowed,), round_limits=True)


def _shares(rule: Rule, one: Comparison, limit: float) -> Shown:
    """Of flips the share that changed; of the most likely token the share of positions that kept it."""
    if rule.max_flips is not None:
        values, digits = (-one.delta, -one.high, -one.low), 1
    else:
        values, digits = (1 + one.delta, 1 + one.low, 1 + one.high), 2
    change, low, high = (numbers.percent(value, digits, (limit,)) for value in values)
    return Shown("", "", change, low, high, allowed_words(rule))


def _nats(one: Comparison, limit: float) -> Shown:
    bounds = [-one.delta, -one.high, -one.low]
    digits = numbers.digits_to_keep(bounds, (limit,), least=_decimals(min(limit, bounds[0])))
    change, low, high = (numbers.plain(value, digits) for value in bounds)
    return Shown("", "", change, low, high, numbers.as_written(limit, 2))


def _decimals(value: float) -> int:
    """The decimals that show three digits of a small number."""
    return 3 if value <= 0 else min(max(3, 2 - math.floor(math.log10(value))), 9)


def sentence(
    rule: Rule,
    comparison: Comparison,
    allowed: float,
    status: str,
    ending: str = "",
    *,
    title: str = "",
    limits: tuple[float, ...] = (),
) -> str:
    """One sentence: what changed, how surely, what is allowed, what follows. `title` is the row's name."""
    text = shown(rule, comparison, allowed, limits)
    what, limit = _phrases(rule, text)
    limit += _BROUGHT if is_brought(rule) and status != "PASS" else ""
    around = f"({numbers.level(comparison.confidence)} interval {text.low} to {text.high})"
    unpaired = ", from published scores without items" if UNPAIRED in comparison.notes else ""
    name = title or comparison.task
    return f"{name}: {what} {around}, {limit}{unpaired}: {_ENDINGS[status]}{ending}."


def _phrases(rule: Rule, text: Shown) -> tuple[str, str]:
    """What the rule limits with its name and unit, and the limit."""
    kind, value = limit_of(rule)
    allowed = f"{text.allowed} allowed"
    if kind == "max_flips":
        return f"{text.change} of answers changed", allowed
    if kind == "max_kl":
        return f"KL {text.change} nats", allowed
    if kind == "min_top1_agreement":
        return f"same top-1 at {text.change} of positions", f"at least {text.allowed} required"
    if kind == "max_ppl_ratio":
        return f"perplexity {text.change}", allowed
    if kind == "min_recovery":
        kept = f"{numbers.as_written(100 * value, 0)}%"
        return f"{wording.DELTA} {text.change} points", f"{allowed} to keep {kept} of the baseline's score"
    return f"{wording.DELTA} {text.change} points", allowed
