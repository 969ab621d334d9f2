"""Paired scores of any kind: the linearised ratio, cluster-robust where items share a text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from qeval.compare.stats.accuracies import accuracy_interval, proportion_interval
from qeval.compare.stats.columns import (
    as_columns,
    checked_level,
    codes_of,
    is_binary,
    is_bounded,
    student_quantile,
)
from qeval.compare.stats.several import p_value
from qeval.compare.stats.unpaired import wilson_interval
from qeval.compare.stats.unseen import chance_below, lowest_mean

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from qeval.compare.stats.columns import Floats


NO_INFORMATION = (0.0, -1.0, 1.0)
_TINY = 1e-12


FEWEST_CLUSTERS = 20
"""With fewer clusters an interval says nothing: too few texts to tell how they differ."""


BEYOND = 2.0
"""How far from the mean an unseen unit of an unbounded score may lie, in distances of the worst one seen."""


Ends = tuple[float, float]


def paired_interval(
    baseline: ArrayLike,
    candidate: ArrayLike,
    weights: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """The difference of two scores, sum(value) / sum(weight) each, and its interval.

    For 0/1 values of weight 1 that stand alone it is `accuracy_interval`. Else clusters are independent,
    items within one are not, and `around` allows for a cluster that was not seen.

    Args:
        baseline: (n,) values.
        candidate: (n,) values of the same items in the same order.
        weights: (n,) at least 0; all 1 by default.
        clusters: (n,) labels; every item by itself by default.
        level: two-sided.

    Returns:
        (difference, low, high). (0, -1, 1) if nothing weighs anything. From a single item, or with clusters
        fewer than `FEWEST_CLUSTERS`, nothing is known of the spread: [-1, 1] if the score is bounded, else
        (-inf, inf).
    """
    columns = as_columns(baseline, candidate, weights)
    first, second, _ = columns
    if clusters is None and len(first) and is_binary(*columns):
        losses, gains = np.count_nonzero(first > second), np.count_nonzero(first < second)
        delta = float(second.mean() - first.mean())
        return (delta, *accuracy_interval(losses, gains, len(first), level))
    return _weighted(columns, clusters, level, (-1.0, 1.0) if is_bounded(*columns) else None)


def paired_p_value(
    baseline: ArrayLike,
    candidate: ArrayLike,
    weights: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
) -> float:
    """The two-sided p-value of no difference that `paired_interval` with the same arguments implies: 1 minus
    the greatest level at which the interval of scores that are not 0/1 leaves 0 out. Unknown spread: 1.
    """
    columns = as_columns(baseline, candidate, weights)
    if columns[2].sum() <= 0:
        return 1.0
    sums, shares, known = _units(columns, clusters)
    sign = 1.0 if sums.sum() > 0 else -1.0
    if not known or not sums.sum():
        return 1.0
    ends = (-1.0, 1.0) if is_bounded(*columns) else None
    worst, _ = _ends(sign * sums, shares) if ends is None else ends
    chance = chance_below(sign * sums, shares, float(np.square(shares).sum()), worst, 0.0)
    if ends is not None:
        return min(2 * chance, 1.0)
    error, freedom = leverage_error(sums, shares)
    return min(max(2 * chance, p_value(float(sums.sum()), error, freedom)), 1.0)


def _weighted(
    columns: tuple[Floats, Floats, Floats], clusters: ArrayLike | None, level: float, ends: Ends | None
) -> tuple[float, float, float]:
    """`paired_interval` of any values; `ends` are the least and greatest difference an item can have."""
    if columns[2].sum() <= 0:
        checked_level(level)
        return NO_INFORMATION
    sums, shares, known = _units(columns, clusters)
    if not known:
        return (float(sums.sum()), *unknown(level, ends))
    return around(sums, shares, float(np.square(shares).sum()), level, ends)


def _units(columns: tuple[Floats, Floats, Floats], clusters: ArrayLike | None) -> tuple[Floats, Floats, bool]:
    """What each independent unit adds to the difference, its share of all weight, and if there are enough."""
    first, second, weight = columns
    total = float(weight.sum())
    sums, shares, fewest = (second - first) / total, weight / total, 2
    if clusters is not None:
        codes, count = codes_of(clusters, len(weight))
        sums, shares, fewest = summed(codes, sums, count), summed(codes, shares, count), FEWEST_CLUSTERS
    return sums, shares, int(np.count_nonzero(shares)) >= fewest


def summed(codes: NDArray[np.intp], values: Floats, count: int) -> Floats:
    """The sum of `values` for each of the `count` codes."""
    return np.asarray(np.bincount(codes, values, count), dtype=np.float64)


def unknown(level: float, ends: Ends | None) -> tuple[float, float]:
    """The bounds where nothing is known of the spread."""
    checked_level(level)
    return ends or (-math.inf, math.inf)


def paired_standard_error(
    baseline: ArrayLike,
    candidate: ArrayLike,
    weights: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
) -> float:
    """The standard error of the difference of `paired_interval`'s scores, which takes the same arguments.

    Linearised ratio, cluster-robust (CR0) times G / (G - 1); Miller 2024, arXiv 2411.00640, section 2.
    For display: it is 0 where no pair differs. Infinite with fewer than two clusters.
    """
    columns = as_columns(baseline, candidate, weights)
    first, second, weight = columns
    total = float(weight.sum())
    if total <= 0:
        return math.inf
    delta = float((second - first).sum()) / total
    parts, groups = contributions(columns, clusters, delta)
    return math.sqrt(float(np.square(parts).sum()) * groups / (groups - 1)) if groups > 1 else math.inf


def paired_ratio_margin(
    baseline: ArrayLike,
    candidate: ArrayLike,
    ratio: float,
    level: float = 0.95,
    weights: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
) -> tuple[float, float, float]:
    """The value of candidate - ratio * baseline, and its interval; arguments as for `paired_interval`.

    A recovery candidate / baseline of at least `ratio` is proved where the lower bound is above 0, with
    no division by a baseline that is itself uncertain. (Recovery above chance: above (1 - ratio) *
    chance.) For 0/1 values it is the sum of the difference, in `accuracy_interval`, and of
    (1 - ratio) * baseline, in Wilson's interval; squared distances add (Zou and Donner 2008, Stat Med
    27:1693). The two are negatively correlated if ratio < 1, which makes this cautious; for ratio > 1
    the distances themselves add. At ratio 1 it is `accuracy_interval`. Other values: `paired_interval`.
    """
    columns = as_columns(baseline, candidate, weights)
    if clusters is not None or not is_binary(*columns) or not len(columns[0]):
        ends = (-max(ratio, 1.0), 1.0) if is_bounded(*columns) else None
        return _weighted((ratio * columns[0], *columns[1:]), clusters, level, ends)
    score = float(columns[0].mean())
    delta, low, high = paired_interval(columns[0], columns[1], level=level)
    sides = sorted((1 - ratio) * bound for bound in wilson_interval(score, len(columns[0]), level))
    value = delta + (1 - ratio) * score
    add = math.hypot if ratio <= 1 else _plus
    below = add(delta - low, (1 - ratio) * score - sides[0])
    above = add(high - delta, sides[1] - (1 - ratio) * score)
    return value, value - below, value + above


def _plus(one: float, two: float) -> float:
    return one + two


def contributions(
    columns: tuple[Floats, Floats, Floats], clusters: ArrayLike | None, delta: float
) -> tuple[Floats, int]:
    """What each cluster adds to the error of `delta`, to first order, and the number of clusters.

    For a ratio of sums R = sum(y) / sum(w) it is (y - R w) / sum(w), summed over the cluster.
    """
    first, second, weight = columns
    residual = (second - first - delta * weight) / weight.sum()
    if clusters is None:
        return residual, int(np.count_nonzero(weight))
    codes, count = codes_of(clusters, len(weight))
    sums = np.asarray(np.bincount(codes, residual, count), dtype=np.float64)
    return sums, int(np.count_nonzero(np.bincount(codes, weight, count)))


def around(
    sums: Floats, shares: Floats, unseen: float, level: float, ends: Ends | None
) -> tuple[float, float, float]:
    """(delta, low, high) of a mean over independent units: (g,) what each adds to it, and its share of all
    weight. `unseen` is the share of the unit that was not seen, `ends` the least and greatest mean that a
    unit can have.

    With ends, each bound is `lowest_mean` or its mirror image. Without, the unit that was not seen lies
    `BEYOND` times as far out as the furthest seen, and a bound is no nearer than `leverage_interval`'s.
    """
    delta = float(sums.sum())
    reach = leverage_reach(sums, shares, level) if ends is None else 0.0
    worst, best = _ends(sums, shares) if ends is None else ends
    low = lowest_mean(sums, shares, unseen, worst, level)
    high = -lowest_mean(-sums, shares, unseen, -best, level)
    return delta, min(low, delta - reach), max(high, delta + reach)


def _ends(sums: Floats, shares: Floats) -> Ends:
    """How far out a unit of an unbounded score that was not seen is taken to lie, to both sides."""
    delta, rates = float(sums.sum()), sums[shares > 0] / shares[shares > 0]
    return (
        delta + BEYOND * (float(rates.min()) - delta),
        delta + BEYOND * (float(rates.max()) - delta),
    )


def leverage_reach(sums: Floats, shares: Floats, level: float) -> float:
    """How far Student's t interval of sum(sums) reaches, as for `around`, where units weigh unequally."""
    error, freedom = leverage_error(sums, shares)
    return student_quantile(level, freedom) * error


def leverage_error(sums: Floats, shares: Floats) -> tuple[float, float]:
    """The standard error of sum(sums), as for `around`, and its degrees of freedom.

    The variance of the linearised ratio has each squared residual divided by 1 - share, for a heavy unit
    draws the mean to itself (HC2), and Bell and McCaffrey's degrees of freedom (2002, Survey Methodology
    28:169): n - 1 for n units of one weight, 1 where one unit outweighs all others.
    """
    residuals, rest = sums - float(sums.sum()) * shares, np.maximum(1 - shares, _TINY)
    variance = float((residuals**2 / rest).sum())
    total, factor = float(np.square(shares).sum()), shares**2 / rest
    trace = float((factor * (1 - 2 * shares + total)).sum())
    even, odd, squared = (float((factor * shares**power).sum()) for power in range(3))
    off = 2 * even * squared + 2 * odd**2 - 4 * total * even * odd + total**2 * even**2
    diagonal = (factor**2 * ((1 - 2 * shares + total) ** 2 - (total - 2 * shares) ** 2)).sum()
    return math.sqrt(variance), trace**2 / float(off + diagonal) if trace > 0 else 1.0


def changed_interval(
    changed: ArrayLike, clusters: ArrayLike | None = None, level: float = 0.95
) -> tuple[float, float]:
    """The interval of a share of items, for flips: the wider of `proportion_interval` and, where items share
    texts, the cluster-robust one. (0, 1) without items or with fewer than `FEWEST_CLUSTERS` clusters.

    Args:
        changed: (n,) whether each item changed.
        clusters: (n,) labels; every item by itself by default.
        level: two-sided.
    """
    values = np.asarray(changed, dtype=np.float64)
    low, high = proportion_interval(int(values.sum()), len(values), level) if len(values) else (0.0, 1.0)
    if clusters is None or not len(values):
        return low, high
    columns = as_columns(np.zeros(len(values)), values, None)
    _, wide_low, wide_high = _weighted(columns, clusters, level, (0.0, 1.0))
    return min(low, wide_low), max(high, wide_high)
