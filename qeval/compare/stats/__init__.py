"""Intervals, tests and sample sizes for scores compared item by item; docs/statistics.md gives the reasons.

Everywhere: differences are candidate minus baseline, `level` is the two-sided confidence level of an
interval, p-values are two-sided, and an interval is a tuple of floats, its lower bound before its upper.
Losses are items that only the baseline gets right, gains those that only the candidate gets right. A
score is *bounded* where every value lies between 0 and its weight, as for all accuracies; intervals of
bounded scores stay within [-1, 1], and say just that where there are no items. All functions are pure.

Raises, in all functions: ValueError where a call makes no sense (counts that do not fit, columns of
different lengths, a level outside (0, 1)); QevalError where data hold a value that is not a number.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from qeval.base.errors import QevalError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

NO_INFORMATION = (0.0, -1.0, 1.0)
HALF_ITEM = 0.5
"""The continuity correction of `accuracy_interval`: counts are whole, so a bound moves by half of one."""
UNSEEN = 3
"""How many more items like the worst one seen a bound of `paired_interval` allows for."""
_BISECTIONS = 50
_SAME = 1e-9


# --- accuracies: counts of losses and gains -----------------------------------------------------


def mcnemar_exact(losses: int, gains: int) -> float:
    """The exact conditional p-value of "losses and gains are equally likely" (McNemar; binomial test)."""
    tail, _ = _binomial_tail(losses, gains)
    return min(1.0, 2 * tail)


def mcnemar_midp(losses: int, gains: int) -> float:
    """The mid-p version of `mcnemar_exact`: half of the observed table's own probability is left out.
    Closer to its nominal level (Fagerland, Lydersen and Laake 2013, BMC Med Res Methodol 13:91)."""
    tail, point = _binomial_tail(losses, gains)
    return min(1.0, 2 * tail - point)


def _binomial_tail(losses: int, gains: int) -> tuple[float, float]:
    """P(X <= k) and P(X = k) for the smaller count k and X binomial with losses + gains fair coins."""
    from scipy import special  # here, so that commands without statistics start faster

    _check_counts(losses, gains, losses + gains)
    few, total = min(losses, gains), losses + gains
    log_point = math.lgamma(total + 1) - math.lgamma(few + 1) - math.lgamma(total - few + 1)
    return float(special.bdtr(few, total, 0.5)), math.exp(log_point - total * math.log(2))


def tango_interval(
    losses: float, gains: float, n: float, level: float = 0.95, *, correction: float = 0.0
) -> tuple[float, float]:
    """The score interval of a paired difference of proportions (Tango 1998, Stat Med 17:891).

    It holds every difference that the score test does not refute, so it needs no estimated variance and
    has a width even where no pair is discordant. `n` counts all pairs; counts may be fractions (an
    effective number of items). `correction` items are subtracted from the test's distance: see
    `accuracy_interval`. Without items: (-1, 1).
    """
    _check_counts(losses, gains, n)
    z = _normal_quantile(level)
    if n <= 0:
        return -1.0, 1.0
    low = _score_bound(losses, gains, n, z, correction)
    return low, -_score_bound(gains, losses, n, z, correction)


def accuracy_interval(losses: float, gains: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Tango's interval with a continuity correction of half an item: the one that gates decide with.

    Without it a candidate exactly at the margin passes too often where n is unlucky: enumerated exactly,
    up to 6.9 % where 5 % is promised, 19 % where 10 % is. With it the promise holds (docs/statistics.md).
    """
    return tango_interval(losses, gains, n, level, correction=HALF_ITEM)


def _score_bound(losses: float, gains: float, n: float, z: float, correction: float) -> float:
    """The smallest difference that the score test at quantile `z` leaves possible, by bisection."""
    low, high = -1.0, (gains - losses) / n
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        distance = gains - losses - n * middle - correction
        if distance > z * math.sqrt(n * _null_variance(losses, gains, n, middle)):
            low = middle
        else:
            high = middle
    return low


def _null_variance(losses: float, gains: float, n: float, difference: float) -> float:
    """The variance of one pair's difference at the likeliest table whose true difference is `difference`.

    With q the likeliest share of losses: 2 q + difference (1 - difference); q solves a quadratic
    equation (Tango 1998, equation 4), whose root is taken in the form that does not cancel.
    """
    a = 2 * n
    b = (2 * n - gains + losses) * difference - gains - losses
    c = -losses * difference * (1 - difference)
    root = math.sqrt(max(b * b - 4 * a * c, 0.0))
    q = (root - b) / (2 * a) if b <= 0 else -2 * c / (root + b)
    return max(2 * q + difference * (1 - difference), 0.0)


def proportion_interval(count: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The exact interval of a proportion, for flips (Clopper and Pearson 1934). Without items: (0, 1)."""
    from scipy import special

    _check_counts(count, 0, n)
    tail = (1 - _checked_level(level)) / 2
    low = float(special.betaincinv(count, n - count + 1, tail)) if count else 0.0
    high = float(special.betaincinv(count + 1, n - count, 1 - tail)) if count < n else 1.0
    return low, high


# --- paired scores ------------------------------------------------------------------------------


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
    columns = _columns(baseline, candidate, weights)
    first, second, weight = columns
    total = float(weight.sum())
    if total <= 0:
        _checked_level(level)
        return NO_INFORMATION
    delta = float(second.sum() / total - first.sum() / total)
    if clusters is None and _is_binary(*columns):
        losses, gains = np.count_nonzero(first > second), np.count_nonzero(first < second)
        return (delta, *accuracy_interval(losses, gains, len(first), level))
    parts, groups = _contributions(columns, clusters, delta)
    return _around(delta, parts, groups, groups - 1, level, bounded=_is_bounded(*columns))


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
    columns = _columns(baseline, candidate, weights)
    first, second, weight = columns
    total = float(weight.sum())
    if total <= 0:
        return math.inf
    delta = float((second - first).sum()) / total
    parts, groups = _contributions(columns, clusters, delta)
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
    columns = _columns(baseline, candidate, weights)
    if clusters is not None or not _is_binary(*columns) or not len(columns[0]):
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


def _contributions(
    columns: tuple[Floats, Floats, Floats], clusters: ArrayLike | None, delta: float
) -> tuple[Floats, int]:
    """What each cluster adds to the error of `delta`, to first order, and the number of clusters.

    For a ratio of sums R = sum(y) / sum(w) it is (y - R w) / sum(w), summed over the cluster.
    """
    first, second, weight = columns
    residual = (second - first - delta * weight) / weight.sum()
    if clusters is None:
        return residual, int(np.count_nonzero(weight))
    codes, count = _codes(clusters, len(weight))
    sums = np.asarray(np.bincount(codes, residual, count), dtype=np.float64)
    return sums, int(np.count_nonzero(np.bincount(codes, weight, count)))


def _around(
    delta: float, parts: Floats, count: float, freedom: float, level: float, *, bounded: bool
) -> tuple[float, float, float]:
    """(delta, low, high) from the contributions to the error of delta, by `count` independent units.

    Where nothing varies in a bounded score, a share p of units that would change entirely was not met:
    p is less than 1 - tail**(1 / count), or one would have been seen (an exact bound).
    """
    tail = (1 - _checked_level(level)) / 2
    if freedom <= 0:
        return (delta, -1.0, 1.0) if bounded else (delta, -math.inf, math.inf)
    if bounded and float(np.abs(parts).max()) * count < _SAME:
        reach = 1 - tail ** (1 / count)
        return delta, max(delta - reach, -1.0), min(delta + reach, 1.0)
    quantile = _student_quantile(level, freedom)
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


# --- means of strata and of tasks ---------------------------------------------------------------


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
    columns = _columns(baseline, candidate, None)
    if not len(columns[0]):
        _checked_level(level)
        return NO_INFORMATION
    codes, count = _codes(strata, len(columns[0]))
    sizes = np.bincount(codes, minlength=count)
    difference = columns[1] - columns[0]
    delta = float((np.bincount(codes, difference, count) / sizes).mean())
    if _is_binary(*columns):
        return (delta, *_stratified_accuracy(difference, codes, sizes, level))
    parts, freedom = _stratified_contributions(difference, codes, sizes)
    return _around(delta, parts, _alike(sizes), freedom, level, bounded=_is_bounded(*columns))


def stratified_standard_error(baseline: ArrayLike, candidate: ArrayLike, strata: ArrayLike) -> float:
    """The standard error of `stratified_interval`'s difference: the root of the mean's variance within
    strata. For display: it is 0 where no pair differs. Infinite with fewer than two items."""
    columns = _columns(baseline, candidate, None)
    if len(columns[0]) < 2:  # noqa: PLR2004 - the least number that has a spread
        return math.inf
    codes, count = _codes(strata, len(columns[0]))
    sizes = np.bincount(codes, minlength=count)
    parts, _ = _stratified_contributions(columns[1] - columns[0], codes, sizes)
    return math.sqrt(float(np.square(parts).sum()))


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
    z = _normal_quantile(level)
    if not len(values):
        return NO_INFORMATION
    _refuse_nan(values, errors)
    sides = np.broadcast_to(errors.reshape(len(values), -1), (len(values), 2))
    below, above = z * np.sqrt((sides**2).sum(axis=0)) / len(values)
    mean = float(values.mean())
    return mean, max(mean - float(below), -1.0), min(mean + float(above), 1.0)


def side_errors(delta: float, low: float, high: float, level: float = 0.95) -> tuple[float, float]:
    """The standard errors below and above `delta` that a normal interval of the two-sided `level` would
    need to reach [low, high]: what a task gives to `average_interval` at the same level."""
    z = _normal_quantile(level)
    return max(delta - low, 0.0) / z, max(high - delta, 0.0) / z


# --- published scores ---------------------------------------------------------------------------


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
    z2 = _normal_quantile(level) ** 2
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


# --- several tests, and planning ----------------------------------------------------------------


def holm(p_values: Sequence[float] | Floats) -> Floats:
    """p-values adjusted for their number, in the order given (Holm 1979, Scand J Stat 6:65): whoever
    names all below a blames anyone wrongly with probability at most a, however they depend."""
    values = np.asarray(p_values, dtype=np.float64)
    _refuse_nan(values)
    order = np.argsort(values, kind="stable")
    steps = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def p_value(delta: float, standard_error: float, freedom: float = math.inf) -> float:
    """The p-value of "no difference" by Student's t with `freedom` degrees of freedom (normal: inf)."""
    from scipy import special

    if not delta:
        return 1.0
    if standard_error <= 0:
        return 0.0
    if math.isinf(freedom):
        return 2 * NormalDist().cdf(-abs(delta) / standard_error)
    return 2 * float(special.stdtr(freedom, -abs(delta) / standard_error))


def required_n(discordance: float, margin: float, confidence: float = 0.95, power: float = 0.8) -> int:
    """How many items let a candidate as good as the baseline pass, with probability `power`.

    Args:
        discordance: the share of items on which only one of the two is right (losses and gains).
        margin: the loss allowed, a fraction of items in (0, 1).
        confidence: one-sided, as the gate's.
        power: of passing when nothing is truly lost.

    Returns:
        discordance (z_confidence + z_power)² / margin² (the paired test's sample size, as Connor 1987,
        Biometrics 43:207, without the small second-order term), and no fewer than an identical model
        needs in `accuracy_interval`. It promises up to four points of power too much where hundreds
        of items are needed, more where fewer than about twenty are expected to be lost or gained.
    """
    if not (0 <= discordance <= 1 and 0 < margin < 1):
        raise ValueError(f"discordance {discordance} or margin {margin} is no fraction")
    z, reach = _one_sided(confidence, power)
    root = (z * math.sqrt(1 - margin) + math.sqrt(z * z * (1 - margin) + 4 * HALF_ITEM)) / 2
    # The least number is exclusive: exactly there, the bound still touches the margin.
    return max(math.ceil(discordance * (reach / margin) ** 2), math.floor(root * root / margin) + 1)


def smallest_margin(n: float, discordance: float, confidence: float = 0.95, power: float = 0.8) -> float:
    """The margin that `n` items can prove with probability `power`: the inverse of `required_n`.

    With a discordance of 0 it is what an identical model can prove at all. Without items it is 1.
    """
    if n < 1:
        return 1.0
    z, reach = _one_sided(confidence, power)
    b = z * z + 2 * HALF_ITEM
    floor = (b + math.sqrt(b * b - 4 * HALF_ITEM**2 * (1 + z * z / n))) / (2 * (n + z * z))
    return min(max(reach * math.sqrt(discordance / n), floor), 1.0)


def _one_sided(confidence: float, power: float) -> tuple[float, float]:
    """The normal quantile of `confidence`, and its sum with that of `power`."""
    z = NormalDist().inv_cdf(_checked_level(confidence))
    return z, z + NormalDist().inv_cdf(_checked_level(power))


# --- checks and quantiles -----------------------------------------------------------------------


def _columns(
    baseline: ArrayLike, candidate: ArrayLike, weights: ArrayLike | None
) -> tuple[Floats, Floats, Floats]:
    first, second = np.asarray(baseline, dtype=np.float64), np.asarray(candidate, dtype=np.float64)
    weight = np.ones_like(first) if weights is None else np.asarray(weights, dtype=np.float64)
    if not first.shape == second.shape == weight.shape or first.ndim != 1:
        raise ValueError(f"columns of shapes {first.shape}, {second.shape}, {weight.shape} are no pairs")
    _refuse_nan(first, second, weight)
    if np.any(weight < 0):
        raise ValueError("a weight is negative")
    return first, second, weight


def _refuse_nan(*columns: Floats) -> None:
    if any(np.isnan(column).any() for column in columns):
        raise QevalError(
            "A value to be compared is not a number (NaN).",
            "Score the variant again, for instance with another --dtype.",
        )


def _is_binary(first: Floats, second: Floats, weight: Floats) -> bool:
    return all(bool(np.all((one == 0) | (one == 1))) for one in (first, second)) and bool(np.all(weight == 1))


def _is_bounded(first: Floats, second: Floats, weight: Floats) -> bool:
    return all(bool(np.all((one >= 0) & (one <= weight))) for one in (first, second))


def _codes(labels: ArrayLike, n: int) -> tuple[NDArray[np.intp], int]:
    """Labels as numbers from 0, and how many there are."""
    names = np.asarray(labels)
    if names.shape != (n,):
        raise ValueError(f"{names.size} labels for {n} items")
    if n and names.dtype.kind == "i" and int(names.max()) - int(names.min()) < 4 * n:
        shifted = names - names.min()  # small numbers need no sorting: ten times faster
        present = np.bincount(shifted) > 0
        return np.asarray(np.cumsum(present) - 1, dtype=np.intp)[shifted], int(present.sum())
    names, codes = np.unique(names, return_inverse=True)
    return codes, len(names)


def _check_counts(losses: float, gains: float, n: float) -> None:
    if not (losses >= 0 and gains >= 0 and losses + gains <= n * (1 + _SAME)):
        raise ValueError(f"{losses} losses and {gains} gains do not fit in {n} items")


def _checked_level(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"a confidence of {level} is not between 0 and 1")
    return level


def _normal_quantile(level: float) -> float:
    return NormalDist().inv_cdf((1 + _checked_level(level)) / 2)


def _student_quantile(level: float, freedom: float) -> float:
    from scipy import special

    return float(special.stdtrit(freedom, (1 + level) / 2))
