"""How many more items would decide what the margin of a report leaves undecided."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from statistics import NormalDist

from qeval.base.records import Comparison, Rule
from qeval.compare.evidence import CONFIDENCE
from qeval.compare.margin import Finding
from qeval.judge.deciding import POWER, more_items, need

_ONE_SIDE = (1 + CONFIDENCE) / 2


def items_needed(found: Finding) -> int | None:
    """How many more items than there are would probably decide an undecided finding, were the difference and
    the churn what they seem; None where no practicable number would.

    A difference within the margin is decided by an interval that lies within it on both sides, one beyond it
    by an interval beyond, and by a loss or gain that stands once all comparisons are corrected for.
    """
    numbers = list(_numbers(found, _downward(found.comparison)))
    return None if None in numbers else max(one for one in numbers if one is not None)


def need_by_margin(found: Finding) -> str:
    """The same in words: "needs about 5200 items, has 1172"."""
    return need(_downward(found.comparison), items_needed(found), "margin")


def _numbers(found: Finding, one: Comparison) -> Iterator[int | None]:
    """What each condition asks for; `one` is a loss."""
    limit = found.limit
    if one.delta > -limit:
        both = (1 + POWER) / 2  # for each of two sides, so that both hold with POWER
        yield more_items(_rule(one, _ONE_SIDE), one, limit, both)
        return
    if one.high >= -limit:
        yield more_items(_rule(one, _ONE_SIDE), one, limit)
    if not found.claim:
        level = 1 - (1 - CONFIDENCE) / (2 * found.among)
        yield more_items(_rule(one, level), _wider(one, level), 0.0)


def _rule(one: Comparison, confidence: float) -> Rule:
    """A rule of this confidence on such numbers; the loss that it allows is given apart."""
    if one.kind == "perplexity":
        return Rule(max_ppl_ratio=1.0, confidence=confidence)
    return Rule(max_drop=0.0, confidence=confidence)


def _wider(one: Comparison, confidence: float) -> Comparison:
    """The comparison with about the interval that it would have at this one-sided confidence."""
    times = NormalDist().inv_cdf(confidence) / NormalDist().inv_cdf(_ONE_SIDE)
    low, high = (one.delta + times * (bound - one.delta) for bound in (one.low, one.high))
    return replace(one, low=low, high=high)


def _downward(one: Comparison) -> Comparison:
    """The comparison, or of a gain its mirror image: numbers of items are the same."""
    if one.delta <= 0:
        return one
    return replace(one, delta=-one.delta, low=-one.high, high=-one.low, losses=one.gains, gains=one.losses)
