"""Shrinking many noisy differences towards their common mean, so that small groups do not shout."""

from __future__ import annotations

from collections.abc import Sequence

_LEAST = 1e-12


def shrink(deltas: Sequence[float], variances: Sequence[float]) -> tuple[float, ...]:
    """Empirical-Bayes estimates of k true differences from k noisy ones, each with its sampling variance.

    The spread between groups is DerSimonian and Laird's moment estimate (Control Clin Trials 1986,
    7:177); each difference is then drawn to the precision-weighted mean by the share of its variance
    that is noise (Efron and Morris, J Am Stat Assoc 1975, 70:311). With no spread beyond noise all
    estimates are the mean. Variances must be positive; fewer than two groups come back as they are.
    """
    if len(deltas) <= 1:
        return tuple(deltas)
    between = between_variance(deltas, variances)
    mean = _mean(deltas, variances, between)
    pairs = zip(deltas, variances, strict=True)
    return tuple(mean + (delta - mean) * between / (between + variance) for delta, variance in pairs)


def common_mean(deltas: Sequence[float], variances: Sequence[float]) -> float:
    """The precision-weighted mean that `shrink` draws these differences to; of one, that one. There must be
    one at least."""
    between = between_variance(deltas, variances) if len(deltas) > 1 else 0.0
    return _mean(deltas, variances, between)


def _mean(deltas: Sequence[float], variances: Sequence[float], between: float) -> float:
    weights = [1 / (variance + between) for variance in variances]
    return sum(w * d for w, d in zip(weights, deltas, strict=True)) / sum(weights)


def settled(errors: Sequence[float], sizes: Sequence[int]) -> tuple[float, ...]:
    """Sampling variances of k groups' differences from their plain standard errors and numbers of items: the
    spread of items that all groups have in common, over each one's items.

    A group's own spread is not used. The variance of a difference grows with what was lost, so groups without
    a flip would seem known best, and would pull the common mean towards 0; where groups differ no more than
    by noise, that mean is the one over all items. Always above 0.
    """
    total = max(sum(sizes), 1)
    common = sum((n * error) ** 2 for error, n in zip(errors, sizes, strict=True)) / total
    return tuple(max(common / n, _LEAST) for n in sizes)


def between_variance(deltas: Sequence[float], variances: Sequence[float]) -> float:
    """The variance of the true differences, 0 where the noise explains all (DerSimonian, Laird 1986)."""
    weights = [1 / variance for variance in variances]
    total = sum(weights)
    mean = sum(w * d for w, d in zip(weights, deltas, strict=True)) / total
    heterogeneity = sum(w * (d - mean) ** 2 for w, d in zip(weights, deltas, strict=True))
    scale = total - sum(w * w for w in weights) / total
    return max(0.0, (heterogeneity - (len(deltas) - 1)) / scale)
