"""Shrinking many noisy differences towards their common mean, so that small groups do not shout."""

from __future__ import annotations

from collections.abc import Sequence


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
    weights = [1 / (variance + between) for variance in variances]
    mean = sum(w * d for w, d in zip(weights, deltas, strict=True)) / sum(weights)
    pairs = zip(deltas, variances, strict=True)
    return tuple(mean + (delta - mean) * between / (between + variance) for delta, variance in pairs)


def between_variance(deltas: Sequence[float], variances: Sequence[float]) -> float:
    """The variance of the true differences, 0 where the noise explains all (DerSimonian, Laird 1986)."""
    weights = [1 / variance for variance in variances]
    total = sum(weights)
    mean = sum(w * d for w, d in zip(weights, deltas, strict=True)) / total
    heterogeneity = sum(w * (d - mean) ** 2 for w, d in zip(weights, deltas, strict=True))
    scale = total - sum(w * w for w in weights) / total
    return max(0.0, (heterogeneity - (len(deltas) - 1)) / scale)
