"""Means of strata and of tasks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from qeval.compare.stats.accuracies import accuracy_interval
from qeval.compare.stats.columns import (
    as_columns,
    checked_level,
    codes_of,
    is_binary,
    is_bounded,
    normal_quantile,
    refuse_nan,
)
from qeval.compare.stats.paired import FEWEST_CLUSTERS, NO_INFORMATION, around, summed, unknown

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from qeval.compare.stats.columns import Floats
    from qeval.compare.stats.paired import Ends


_PULL = 10


def stratified_interval(
    baseline: ArrayLike,
    candidate: ArrayLike,
    strata: ArrayLike,
    level: float = 0.95,
    clusters: ArrayLike | None = None,
) -> tuple[float, float, float]:
    """The difference of unweighted means over strata (MMLU's 57 subjects), and its interval.

    The strata are fixed: another sample would have the same subjects, with other questions. Items of small
    strata weigh most, so the bounds of `around` allow for one unseen unit of the weight usual in the
    stratum where units weigh most. For 0/1 values they are no nearer than `accuracy_interval` at the mean
    rates of losses and gains and at an effective number of items: the one that gives the mean its variance,
    but no more than if all strata churned alike, so that strata without a flip do not count as certain. It
    decides alone where all strata have one size and items stand alone.

    Args:
        baseline: (n,) values of weight 1.
        candidate: (n,) values of the same items in the same order.
        strata: (n,) labels.
        level: two-sided.
        clusters: (n,) labels; every item by itself by default. A cluster ends where its stratum does.

    Returns:
        (difference, low, high); (0, -1, 1) without items. Of one item, or with clusters fewer than
        `FEWEST_CLUSTERS`, nothing is known of the spread.
    """
    columns = as_columns(baseline, candidate, None)
    if not len(columns[0]):
        checked_level(level)
        return NO_INFORMATION
    codes, count = codes_of(strata, len(columns[0]))
    sizes = np.bincount(codes, minlength=count)
    difference = columns[1] - columns[0]
    delta = float((np.bincount(codes, difference, count) / sizes).mean())
    binary = is_binary(*columns)
    low, high = _stratified_accuracy(difference, codes, sizes, level) if binary else (delta, delta)
    if not binary or clusters is not None or len(set(sizes.tolist())) > 1:
        ends = (-1.0, 1.0) if is_bounded(*columns) else None
        changes = difference if binary else _centred(difference, codes, sizes, delta)
        _, wide_low, wide_high = _of_units(changes, codes, sizes, clusters, level, ends)
        low, high = min(low, wide_low), max(high, wide_high)
    return delta, low, high


def _of_units(
    changes: Floats,
    codes: NDArray[np.intp],
    sizes: NDArray[np.intp],
    clusters: ArrayLike | None,
    level: float,
    ends: Ends | None,
) -> tuple[float, float, float]:
    """`around` the mean over strata of `changes`, its units being items or the clusters within strata."""
    shares = 1 / (sizes * len(sizes))[codes]
    sums, fewest = changes * shares, 2
    if clusters is not None:
        fewest, numbers = FEWEST_CLUSTERS, codes_of(clusters, len(codes))[0]
        units, count = codes_of(numbers * len(sizes) + codes, len(codes))
        sums, shares, codes = summed(units, sums, count), summed(units, shares, count), _first(units, codes)
    if len(sums) < fewest:
        return (float(sums.sum()), *unknown(level, ends))
    usual = summed(codes, shares**2, len(sizes)) * len(sizes)
    return around(sums, shares, float(usual.max()), level, ends)


def _first(units: NDArray[np.intp], codes: NDArray[np.intp]) -> NDArray[np.intp]:
    """The code of each unit, all of whose items have the same."""
    return codes[np.unique(units, return_index=True)[1]]


def _centred(difference: Floats, codes: NDArray[np.intp], sizes: NDArray[np.intp], delta: float) -> Floats:
    """Differences without what is their stratum's own, for the strata are fixed: it does not add to the
    error. A stratum of few items hardly knows its own mean, and one of a single item keeps the common one."""
    own = (np.bincount(codes, difference, len(sizes)) / sizes - delta) * (sizes - 1) / (sizes + _PULL)
    return np.asarray(difference - own[codes] + own.mean(), dtype=np.float64)


def _stratified_accuracy(
    difference: Floats, codes: NDArray[np.intp], sizes: NDArray[np.intp], level: float
) -> tuple[float, float]:
    count = len(sizes)
    losses = np.bincount(codes, difference < 0, count) / sizes
    gains = np.bincount(codes, difference > 0, count) / sizes
    loss, gain = float(losses.mean()), float(gains.mean())
    spread = loss + gain - (gain - loss) ** 2
    effective = _alike(sizes)
    within = losses + gains - (gains - losses) ** 2
    variance = float(np.where(sizes > 1, within / np.maximum(sizes - 1, 1), spread).sum()) / count**2
    if variance > 0:
        total = len(codes)  # both variances unbiased, so that one stratum of n items has n effective ones
        effective = min(effective, spread * total / max(total - 1, 1) / variance)
    return accuracy_interval(loss * effective, gain * effective, effective, level)


def _alike(sizes: NDArray[np.intp]) -> float:
    """The effective number of items behind the mean over strata if all churn alike."""
    return len(sizes) ** 2 / float((1 / sizes).sum())


def average_interval(
    deltas: ArrayLike, standard_errors: ArrayLike, level: float = 0.95, *, bounded: bool = True
) -> tuple[float, float, float]:
    """The unweighted mean of the differences of independent tasks; variances add.

    Args:
        deltas: (k,) one difference per task.
        standard_errors: (k,), or (k, 2) with one below and one above each difference, as `side_errors`
            makes them from the tasks' own intervals: so that the mean's interval is as careful with few
            items and skewed counts as theirs are (Zou and Donner 2008, Stat Med 27:1693).
        level: two-sided.
        bounded: whether all scores are in [0, 1], so that no difference is beyond [-1, 1]. Log-likelihoods
            are not.

    Returns:
        (mean, low, high) with low <= mean <= high, and within [-1, 1] where `bounded`; (0, -1, 1) without
        tasks, (0, -inf, inf) where they would not be bounded.
    """
    values = np.asarray(deltas, dtype=np.float64)
    errors = np.asarray(standard_errors, dtype=np.float64)
    z = normal_quantile(level)
    end = 1.0 if bounded else math.inf
    if not len(values):
        return 0.0, -end, end
    refuse_nan(values, errors)
    sides = np.broadcast_to(errors.reshape(len(values), -1), (len(values), 2))
    below, above = z * np.sqrt((sides**2).sum(axis=0)) / len(values)
    mean = float(values.mean())
    return mean, max(mean - float(below), -end), min(mean + float(above), end)


def side_errors(delta: float, low: float, high: float, level: float = 0.95) -> tuple[float, float]:
    """The standard errors below and above `delta` that a normal interval of the two-sided `level` would
    need to reach [low, high]: what a task gives to `average_interval` at the same level."""
    z = normal_quantile(level)
    return max(delta - low, 0.0) / z, max(high - delta, 0.0) / z
