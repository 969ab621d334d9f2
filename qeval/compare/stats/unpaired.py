"""Published scores without items, compared unpaired and conservatively."""

from __future__ import annotations

import math

from qeval.base.errors import QevalError
from qeval.compare.stats.columns import normal_quantile


def unpaired_interval(
    baseline: float,
    n_baseline: float,
    candidate: float,
    n_candidate: float,
    level: float = 0.95,
    *,
    ratio: float = 1.0,
) -> tuple[float, float]:
    """The interval of candidate - ratio * baseline for scores in [0, 1] known without their items.

    Newcombe's hybrid score interval for independent proportions (1998, Stat Med 17:873). It is wider
    than a paired one wherever the two tend to be right on the same items, and a continuous score in
    [0, 1] varies no more than a 0/1 score of the same mean: so it is conservative for both. No items: the
    widest possible.

    Raises:
        QevalError: a score is not in [0, 1].
    """
    for score in (baseline, candidate):
        if not 0 <= score <= 1:
            raise QevalError(
                f"A published score is {score}, where fractions from 0 to 1 are compared.",
                "Give accuracies as fractions or in percent, and leave perplexities out.",
            )
    one, two = wilson_interval(baseline, n_baseline, level), wilson_interval(candidate, n_candidate, level)
    delta = candidate - ratio * baseline
    below = math.hypot(candidate - two[0], ratio * (one[1] - baseline))
    above = math.hypot(two[1] - candidate, ratio * (baseline - one[0]))
    return max(delta - below, -ratio), min(delta + above, 1.0)


def wilson_interval(score: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """The score interval of a proportion (Wilson 1927, J Am Stat Assoc 22:209); (0, 1) without items."""
    z2 = normal_quantile(level) ** 2
    if n <= 0:
        return 0.0, 1.0
    middle = (score + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (score * (1 - score) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return max(min(middle - half, score), 0.0), min(max(middle + half, score), 1.0)


def recovery(
    baseline: float, candidate: float, chance: float | None = None
) -> tuple[float | None, float | None]:
    """The share of the baseline's score that is kept: raw, and counted from `chance` (guessing's score).

    None where it has no meaning: a baseline of 0, chance unknown, a baseline no better than chance.
    """
    raw = candidate / baseline if baseline else None
    if chance is None or baseline <= chance:
        return raw, None
    return raw, (candidate - chance) / (baseline - chance)
