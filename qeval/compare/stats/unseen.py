"""Bounds on a mean that allow for what was not drawn: one unit more than was seen, as bad as can be."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from qeval.compare.stats.columns import checked_level, normal_quantile

if TYPE_CHECKING:
    from qeval.compare.stats.columns import Floats

_STEPS = 60
_CLOSE = 1e-9
_MIDDLE = 1e-4


def lowest_mean(sums: Floats, shares: Floats, unseen: float, worst: float, level: float) -> float:
    """The lower end of the interval of a mean, at the two-sided `level`, from independent units.

    Every unit gets a random weight, exponential of mean 1, and so does one that was not seen; the bound is
    the (1 - level) / 2 quantile of the mean so weighted. For values that cannot be below `worst` it is
    Gaffke's bound (2005, Math Methods Stat 14:451; Learned-Miller and Thomas 2019, arXiv 1905.06208), for
    0/1 values Clopper and Pearson's, and where units weigh differently the idea of Fay and Feuer (1997, Stat
    Med 16:791): what was missed is one unit, counted in full. Needs no variance, and so no minimum of n.

    Args:
        sums: (g,) what each unit adds to the mean.
        shares: (g,) each unit's share of all weight, at least 0, together 1.
        unseen: the share of the unit that was not seen.
        worst: its mean.
        level: two-sided.
    """
    z = normal_quantile(level)
    mean = float(sums.sum())
    if _all_alike(sums, shares, mean):
        return mean - max(mean - worst, 0.0) * -math.expm1(unseen * math.log((1 - level) / 2))
    add, values = np.append(shares, unseen), np.append(sums, unseen * worst)
    at = mean - z * _length(values - mean * add) - unseen * (mean - worst)
    return _search(values, add, _start(values, add, mean, z), mean, at, z)


def _search(values: Floats, shares: Floats, low: float, mean: float, at: float, z: float) -> float:
    """The mean between `low` and `mean` that lies `z` away: Newton's step from `at`, then secants, halving
    where they leave the interval."""
    high, before = mean, (math.nan, math.nan)
    for _ in range(_STEPS):
        if not low < at < high:
            at = (low + high) / 2
        distance, slope = _distance(values - at * shares, shares)
        low, high = (at, high) if distance > z else (low, at)
        if not math.isnan(before[0]) and before[0] != at:
            slope = (before[1] - distance) / (at - before[0])
        step = (distance - z) / slope if math.isfinite(distance) and slope > 0 else math.inf
        if abs(step) <= _CLOSE * (mean - at) or high - low <= _CLOSE * (mean - low):
            break
        before, at = (at, distance) if math.isfinite(distance) else before, at + step
    return at


def chance_below(sums: Floats, shares: Floats, unseen: float, worst: float, mean: float) -> float:
    """The probability that the mean, weighted as in `lowest_mean`, is below `mean`: the one-sided p-value
    of "the true mean is no greater". The bound at a level is above `mean` where this is below its tail."""
    add = np.append(shares, unseen)
    distance, _ = _distance(np.append(sums, unseen * worst) - mean * add, add)
    return math.erfc(distance / math.sqrt(2)) / 2


def unseen_share(n: float, confidence: float = 0.95) -> float:
    """How frequent something can be that none of `n` independent units showed: 1 - (1 - confidence)^(1 / n),
    about 3 / n at 95% (exact binomial bound). Without units 1."""
    return -math.expm1(math.log(1 - checked_level(confidence)) / n) if n > 0 else 1.0


def effective_number(weights: Floats) -> float:
    """How many units of equal weight are worth these: (sum w)^2 / sum w^2 (Kish 1965); 0 without weight."""
    squares = float(np.square(weights).sum())
    return float(weights.sum()) ** 2 / squares if squares > 0 else 0.0


def _length(values: Floats) -> float:
    """The root of the sum of squares, without BLAS, whose threads cost more than they bring."""
    return math.sqrt(float(np.square(values).sum()))


def _all_alike(sums: Floats, shares: Floats, mean: float) -> bool:
    return float(np.abs(sums - mean * shares).max()) <= _CLOSE * float(shares.max())


def _start(values: Floats, shares: Floats, mean: float, z: float) -> float:
    """A mean that is too low: below every unit that weighs anything, and further where others add to it."""
    weighty = shares > 0
    low = float((values[weighty] / shares[weighty]).min())
    while _distance(values - low * shares, shares)[0] <= z:
        low -= max(mean - low, float(np.abs(values).max()))
    return low


def _distance(terms: Floats, shares: Floats) -> tuple[float, float]:
    """How many standard deviations 0 lies below the sum of `terms`, each times an exponential variable, and
    how fast that falls when every term falls by its share.

    The saddlepoint of the sum (Lugannani and Rice 1980, Adv Appl Prob 12:475, in Barndorff-Nielsen's form
    r + log(v / r) / r). Where a single term decides it is right to 4% of the tail, to 2% with three terms
    or more, and on the safe side. Infinite where all terms have one sign.
    """
    least, most = float(terms.min()), float(terms.max())
    if least >= 0 or most <= 0:
        return (math.inf, 0.0) if least >= 0 else (-math.inf, 0.0)
    tilt = _tilt(terms, -1 / most, -1 / least)
    tilted = 1 / (1 + tilt * terms)
    root = math.copysign(math.sqrt(2 * max(-float(np.log(tilted).sum()), 0.0)), tilt)
    if abs(root) < _MIDDLE:
        return root, 0.0
    width = tilt * _length(terms * tilted)
    slope = tilt / root * float((shares * tilted).sum())
    return root + math.log(width / root) / root, slope


def _tilt(terms: Floats, low: float, high: float) -> float:
    """The u in (low, high) at which sum(terms / (1 + u terms)) is 0.

    Newton's steps for all terms but the least, whose pole at `high` is kept: often that one decides.
    """
    least = terms <= -(1 - _CLOSE) / high
    poles, others, tilt = int(least.sum()), terms[~least], 0.0
    for _ in range(_STEPS):
        ratio = others / (1 + tilt * others)
        rest, steep, room = float(ratio.sum()), float(np.square(ratio).sum()), high - tilt
        low = tilt if rest * room > poles else low
        middle = steep * room + rest
        step = 2 * (rest * room - poles) / (middle + math.sqrt(middle**2 - 4 * steep * (rest * room - poles)))
        if abs(step) <= _CLOSE * abs(tilt):
            break
        tilt = tilt + step if tilt + step > low else (tilt + low) / 2
    return tilt
