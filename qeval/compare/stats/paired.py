"""Paired scores of any kind: the linearised ratio, cluster-robust where items share a text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from qeval.compare.stats.accuracies import accuracy_interval
from qeval.compare.stats.columns import (
    SAME,
    as_columns,
    checked_level,
    codes_of,
    is_binary,
    is_bounded,
    student_quantile,
)
from qeval.compare.stats.unpaired import wilson_interval

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from qeval.compare.stats.columns import Floats


NO_INFORMATION = (0.0, -1.0, 1.0)


UNSEEN = 3
"""How many more items like the worst one seen a bound of `paired_interval` allows for."""


def paired_interval(
    baseline: ArrayLike,
    candidate: ArrayLike,
    weights: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """The difference of two scores, sum(value) / sum(weight) each, and its interval.

    For 0/1 values of weight 1 that stand alone it is `accuracy_interval`. Else Student's t on the
    linearised ratio, clusters being independent and items within one not (G - 1 degrees of freedom for G
    clusters), in a form that keeps its promise where items are few or skewed: see `_reach`.

    Args:
        baseline: (n,) values.
        candidate: (n,) values of the same items in the same order.
        weights: (n,) at least 0; all 1 by default.
        clusters: (n,) labels; every item by itself by default.
        level: two-sided.

    Returns:
        (difference, low, high). (0, -1, 1) if nothing weighs anything. With fewer than two clusters
        nothing is known of the spread: [-1, 1] if the score is bounded, else (-inf, inf).
    """
    columns = as_columns(baseline, candidate, weights)
    first, second, weight = columns
    total = float(weight.sum())
    if total <= 0:
        checked_level(level)
        return NO_INFORMATION
    delta = float(second.sum() / total - first.sum() / total)
    if clusters is None and is_binary(*columns):
        losses, gains = np.count_nonzero(first > second), np.count_nonzero(first < second)
        return (delta, *accuracy_interval(losses, gains, len(first), level))
    parts, groups = contributions(columns, clusters, delta)
    return around(delta, parts, groups, groups - 1, level, bounded=is_bounded(*columns))


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
        return paired_interval(ratio * columns[0], columns[1], weights, clusters, level)
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
    delta: float, parts: Floats, count: float, freedom: float, level: float, *, bounded: bool
) -> tuple[float, float, float]:
    """(delta, low, high) from the contributions to the error of delta, by `count` independent units.

    Where nothing varies in a bounded score, a share p of units that would change entirely was not met:
    p is less than 1 - tail**(1 / count), or one would have been seen (an exact bound).
    """
    tail = (1 - checked_level(level)) / 2
    if freedom <= 0:
        return (delta, -1.0, 1.0) if bounded else (delta, -math.inf, math.inf)
    if bounded and float(np.abs(parts).max()) * count < SAME:
        reach = 1 - tail ** (1 / count)
        return delta, max(delta - reach, -1.0), min(delta + reach, 1.0)
    quantile = student_quantile(level, freedom)
    low, high = delta - _reach(parts, quantile), delta + _reach(-parts, quantile)
    return (delta, max(low, -1.0), min(high, 1.0)) if bounded else (delta, low, high)


def _reach(parts: Floats, quantile: float) -> float:
    """How far below the estimate the lower bound lies (the upper one by symmetry).

    A t interval is too short where a few items carry the loss, for those that decide may not have been
    drawn. So variance and third moment count `UNSEEN` more contributions, as bad as the largest seen is
    large; and the bound solves the score equation reach = t sqrt(variance + reach * step), where every
    further loss of `step` (third moment over variance) adds to the variance as in a compound Poisson
    sum. With step 0 it is the t interval; for rare losses of one size it is Wilson's.
    """
    largest = float(np.abs(parts).max())
    squares = float(np.square(parts).sum()) + UNSEEN * largest**2
    cubes = UNSEEN * largest**3 - float((np.square(parts) * parts).sum())
    if squares <= 0:
        return 0.0
    count = len(parts) + UNSEEN
    half = quantile**2 * max(cubes, 0.0) / squares / 2
    return half + math.sqrt(half**2 + quantile**2 * squares * count / (count - 1))
