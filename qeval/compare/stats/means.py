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
from qeval.compare.stats.paired import NO_INFORMATION, around

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from qeval.compare.stats.columns import Floats


def stratified_interval(
    baseline: ArrayLike, candidate: ArrayLike, strata: ArrayLike, level: float = 0.95
) -> tuple[float, float, float]:
    """The difference of unweighted means over strata (MMLU's 57 subjects), and its interval.

    The strata are fixed: another sample would have the same subjects, with other questions. For 0/1
    values it is `accuracy_interval` at the mean rates of losses and gains and at an effective number of
    items: the one that gives the mean its variance, but no more than if all strata churned alike, so
    that strata without a flip do not count as certain. Other values: `_reach` within strata.

    Args:
        baseline: (n,) values of weight 1.
        candidate: (n,) values of the same items in the same order.
        strata: (n,) labels.
        level: two-sided.

    Returns:
        (difference, low, high); (0, -1, 1) without items.
    """
    columns = as_columns(baseline, candidate, None)
    if not len(columns[0]):
        checked_level(level)
        return NO_INFORMATION
    codes, count = codes_of(strata, len(columns[0]))
    sizes = np.bincount(codes, minlength=count)
    difference = columns[1] - columns[0]
    delta = float((np.bincount(codes, difference, count) / sizes).mean())
    if is_binary(*columns):
        return (delta, *_stratified_accuracy(difference, codes, sizes, level))
    parts, freedom = _stratified_contributions(difference, codes, sizes)
    return around(delta, parts, _alike(sizes), freedom, level, bounded=is_bounded(*columns))


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


def _stratified_contributions(
    difference: Floats, codes: NDArray[np.intp], sizes: NDArray[np.intp]
) -> tuple[Floats, float]:
    """What each item adds to the error of the mean over strata, scaled so that the squares sum to its
    variance, and Satterthwaite's degrees of freedom. Strata of one item are compared with each other."""
    count = len(sizes)
    means = np.bincount(codes, difference, count) / sizes
    single = sizes == 1
    alone = int(single.sum())
    means[single] = means[single].mean() if alone > 1 else means.mean()
    factor = np.sqrt(sizes / np.maximum(sizes - 1, 1))
    factor[single] = math.sqrt(alone / max(alone - 1, 1))
    parts = (difference - means[codes]) * (factor / (sizes * count))[codes]
    variances = np.bincount(codes, parts**2, count)
    groups = np.append(variances[~single], variances[single].sum())
    freedoms = np.append(sizes[~single] - 1, max(alone - 1, 0))
    known = freedoms > 0
    lost = float((groups[known] ** 2 / freedoms[known]).sum())
    return parts, float(groups.sum()) ** 2 / lost if lost > 0 else float(freedoms.sum())


def average_interval(
    deltas: ArrayLike, standard_errors: ArrayLike, level: float = 0.95
) -> tuple[float, float, float]:
    """The unweighted mean of the differences of independent tasks with scores in [0, 1]; variances add.

    Args:
        deltas: (k,) one difference per task.
        standard_errors: (k,), or (k, 2) with one below and one above each difference, as `side_errors`
            makes them from the tasks' own intervals: so that the mean's interval is as careful with few
            items and skewed counts as theirs are (Zou and Donner 2008, Stat Med 27:1693).
        level: two-sided.

    Returns:
        (mean, low, high) within [-1, 1]; (0, -1, 1) without tasks.
    """
    values = np.asarray(deltas, dtype=np.float64)
    errors = np.asarray(standard_errors, dtype=np.float64)
    z = normal_quantile(level)
    if not len(values):
        return NO_INFORMATION
    refuse_nan(values, errors)
    sides = np.broadcast_to(errors.reshape(len(values), -1), (len(values), 2))
    below, above = z * np.sqrt((sides**2).sum(axis=0)) / len(values)
    mean = float(values.mean())
    return mean, max(mean - float(below), -1.0), min(mean + float(above), 1.0)


def side_errors(delta: float, low: float, high: float, level: float = 0.95) -> tuple[float, float]:
    """The standard errors below and above `delta` that a normal interval of the two-sided `level` would
    need to reach [low, high]: what a task gives to `average_interval` at the same level."""
    z = normal_quantile(level)
    return max(delta - low, 0.0) / z, max(high - delta, 0.0) / z
