"""One rule on one row: the interval that decides it, the verdict, and who is to blame when several fail."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from statistics import NormalDist

from qeval.base import numbers
from qeval.base.records import Comparison, Decision, Policy, Rule, Verdict
from qeval.base.rules import limit_of
from qeval.compare import stats, wording
from qeval.compare.interval import compare, compare_agreement, compare_recovery
from qeval.compare.margin import Margin
from qeval.compare.pairs import UNPAIRED, Pairs
from qeval.judge import reasons

POWER = 0.8
"""The probability with which the number of items named beside an undecided rule would decide it."""


_MOST_ITEMS = 10_000_000
_TINY = 1e-12
_BEYOND = 100
"""How many times the items that there are is beyond reach: a number of them would say nothing more."""
_FAR_MORE = f"over {_BEYOND} times its items"


def decide(
    rule: Rule,
    pairs: Pairs | None,
    policy: Policy,
    *,
    title: str = "",
    margin: Margin | None = None,
) -> Decision | None:
    """The decision, or None where there is nothing to decide on. `title` is the row's name; no number is
    rounded across the limit or the `margin` of a report."""
    if pairs is None or (rule.max_flips is not None and pairs.flips is None):
        return None
    comparison, allowed = measure(rule, pairs, 2 * rule.confidence - 1)
    status = verdict(comparison, allowed)
    needed, ending = None, ""
    if status == "INCONCLUSIVE":
        needed = more_items(rule, comparison, allowed)
        ending = _what_would_decide(comparison, needed) + _and_then(rule, comparison, allowed, needed)
    elif status == "PASS" and comparison.limited:
        of = f"{numbers.count(comparison.n)} of {numbers.count(comparison.n_available)} items"
        if policy.allow_limited:
            ending = f" on {of}, as --allow-limited permits"
        else:
            status = "INCONCLUSIVE"
            ending = f": good on {of}, but a limited run never passes; score all items"
    limit = margin.delta(comparison) if margin else None
    limits = () if limit is None else (-limit, limit)
    reason = reasons.sentence(rule, comparison, allowed, status, ending, title=title, limits=limits)
    total = None if needed is None else comparison.n + needed
    return Decision(rule, pairs.variant, pairs.task, status, reason, comparison, allowed, needed, total)


def verdict(comparison: Comparison, allowed: float) -> Verdict:
    """PASS if every loss in the interval is allowed, FAIL if none is, else INCONCLUSIVE; a bound that
    touches the limit decides nothing."""
    if comparison.low > -allowed:
        return "PASS"
    return "FAIL" if comparison.high < -allowed else "INCONCLUSIVE"


def measure(rule: Rule, pairs: Pairs, level: float) -> tuple[Comparison, float]:
    """The comparison whose interval, of the two-sided `level`, decides the rule, and the loss allowed.

    The row passes where low > -allowed and fails where high < -allowed. Points and perplexities: the
    row's own interval. Flips: the share of answers that stayed the same against all of them (the exact
    interval, or that of texts where wider). Recovery r: the interval of candidate - r * baseline, moved by (1
    - r) * baseline so that it lies about the difference, as does the loss allowed.
    """
    limit, value = limit_of(rule)
    if limit == "max_flips":
        return compare_agreement(pairs, level), value
    if limit == "min_recovery":
        return compare_recovery(pairs, value, level), (1 - value) * pairs.baseline
    comparison = compare(pairs, level)
    return comparison, math.log(value) if limit == "max_ppl_ratio" else value / 100


def more_items(rule: Rule, comparison: Comparison, allowed: float, power: float = POWER) -> int | None:
    """How many more items would decide with this probability, were the loss and the churn what they seem;
    None where no practicable number would, or where the churn is not known."""
    distance = abs(comparison.delta + allowed)
    unknown = UNPAIRED in comparison.notes or not math.isfinite(comparison.high - comparison.low)
    if unknown or _few_texts(comparison) or not distance:
        return None
    mean = comparison.level in ("macro", "average")
    if rule.max_drop is not None and not mean and comparison.losses is not None:
        changed = comparison.losses + (comparison.gains or 0)
        total = stats.required_n(changed / comparison.n, min(distance, 0.99), rule.confidence, power)
        if not _as_alone(comparison, rule.confidence):
            total = max(
                total, math.ceil(_items_for(comparison, distance, rule.confidence, power, mean=False))
            )
    else:
        total = math.ceil(_items_for(comparison, distance, rule.confidence, power, mean=mean))
    return None if total > _MOST_ITEMS else max(total - comparison.n, 1)


def _as_alone(comparison: Comparison, confidence: float) -> bool:
    """Whether the interval is the one that the items would have if none shared a text: few of them do then,
    and the items that are needed are as many as if none did."""
    if comparison.texts is None:
        return True
    lost, won = comparison.losses or 0, comparison.gains or 0
    low, high = stats.accuracy_interval(lost, won, comparison.n, 2 * confidence - 1)
    return comparison.low >= low - _TINY and comparison.high <= high + _TINY


def _items_for(
    comparison: Comparison, distance: float, confidence: float, power: float, *, mean: bool
) -> float:
    """How many items bring the interval's half-width so far below `distance` that luck seldom matters."""
    reach = 1 + NormalDist().inv_cdf(power) / NormalDist().inv_cdf(confidence)
    half = (comparison.high - comparison.low) / 2
    bounded = comparison.kind == "score" or (comparison.kind == "accuracy" and comparison.texts is not None)
    if mean or not bounded:
        return comparison.n * (reach * half / distance) ** 2
    units: float = comparison.texts or comparison.n
    if comparison.losses == comparison.gains == 0:  # all of it is what may be unseen: one text as it weighs
        units, half = math.log(1 - confidence) / math.log1p(-half), 0.0
    return stats.bounded_n(half, units, distance, confidence, luck=reach - 1) * comparison.n / units


def _few_texts(comparison: Comparison) -> bool:
    """Whether the items share so few texts that their interval is everything possible."""
    return comparison.texts is not None and comparison.texts < stats.FEWEST_CLUSTERS


def _what_would_decide(comparison: Comparison, needed: int | None) -> str:
    if _few_texts(comparison):
        shared = f"{numbers.count(comparison.n)} items share only {numbers.count(comparison.texts)} texts"
        return f", as its {shared}, and {stats.FEWEST_CLUSTERS} are needed to tell how texts differ"
    if UNPAIRED in comparison.notes:
        return "; compared item by item it would say more"
    if needed is None:
        return "; no practicable number of items would decide it"
    if _beyond(comparison, needed):
        return f"; it is so close to the limit that {_FAR_MORE} would be needed"
    more = numbers.roughly(needed)
    whole, there = comparison.n + int(more), comparison.n_available
    verb = ("is" if there == 1 else "are") + (" only" if whole > there else "")
    return (
        f"; at this Δ and churn about {more} more item{'' if needed == 1 else 's'} would decide it"
        f" ({numbers.count(whole)} in all; there {verb} {numbers.count(there)})"
    )


def need(comparison: Comparison, needed: int | None, limit: str = "limit") -> str:
    """The same in brief, where several such stand together: "needs about 5200 items, has 1172"; `limit` is
    what the difference is held against."""
    if _few_texts(comparison):
        return f"{numbers.count(comparison.n)} items share only {numbers.count(comparison.texts)} texts"
    if UNPAIRED in comparison.notes:
        return "compared item by item it would say more"
    if needed is None:
        return "no practicable number of items would decide it"
    if _beyond(comparison, needed):
        return f"so close to the {limit} that {_FAR_MORE} would be needed"
    of = f" of {numbers.count(comparison.n_available)}" if comparison.limited else ""
    whole = numbers.roughly(comparison.n + needed)
    return f"needs about {whole} items, has {numbers.count(comparison.n)}{of}"


def _beyond(comparison: Comparison, needed: int) -> bool:
    """Whether so many more items are needed that their number would say nothing."""
    return comparison.n + needed > _BEYOND * comparison.n_available


def _and_then(rule: Rule, comparison: Comparison, allowed: float, needed: int | None) -> str:
    """That more items would most likely mean failing, where they would."""
    if needed is None or _beyond(comparison, needed) or comparison.delta >= -allowed:
        return ""
    points = limit_of(rule)[0] in ("max_drop", "min_recovery") and comparison.kind != "perplexity"
    return f", and it would then fail if {wording.DELTA if points else 'what was measured'} stays as it is"


def name_culprits(decisions: list[Decision], pairs: Mapping[tuple[str, str], Pairs]) -> list[Decision]:
    """Mark the failures of one variant that stand after Holm's correction for the number of its rules."""
    p_values = [_p_of_failure(one, pairs) if one.status == "FAIL" else 1.0 for one in decisions]
    adjusted = stats.holm(p_values) if decisions else ()
    return [
        replace(one, culprit=one.status == "FAIL" and bool(p <= 1 - one.rule.confidence))
        for one, p in zip(decisions, adjusted, strict=True)
    ]


def _p_of_failure(decision: Decision, pairs: Mapping[tuple[str, str], Pairs]) -> float:
    """The one-sided p-value of "the loss is no greater than allowed": 1 - c for the greatest confidence c
    at which the row still fails, found by halving an interval of log(1 - c)."""
    row = pairs.get((decision.variant, decision.task))
    if row is None:  # stopped early: Ville's inequality promises this much
        return 1 - decision.rule.confidence
    low, high = math.log(1e-15), math.log(1 - decision.rule.confidence)
    for _ in range(24):
        middle = (low + high) / 2
        comparison, allowed = measure(decision.rule, row, 1 - 2 * math.exp(middle))
        low, high = (low, middle) if comparison.high < -allowed else (middle, high)
    return math.exp(high)
