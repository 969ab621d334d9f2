"""Shrinking many noisy differences towards their common mean, so that small groups do not shout."""

from __future__ import annotations

from collections.abc import Sequence

_PULL = 10
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
    weights = [1 / (variance + between) for variance in variances]
    mean = sum(w * d for w, d in zip(weights, deltas, strict=True)) / sum(weights)
    pairs = zip(deltas, variances, strict=True)
    return tuple(mean + (delta - mean) * between / (between + variance) for delta, variance in pairs)


def settled(errors: Sequence[float], sizes: Sequence[int]) -> tuple[float, ...]:
    """Sampling variances of k groups' differences from their plain standard errors and numbers of items.

    A group's spread of items is averaged with that of all groups, which counts as `_PULL` items: so no
    group is known without error for want of a flip. Always above 0.
    """
    spreads = [n * error * error for error, n in zip(errors, sizes, strict=True)]
    common = sum(n * spread for n, spread in zip(sizes, spreads, strict=True)) / max(sum(sizes), 1)
    pulled = [(n * one + _PULL * common) / (n + _PULL) for n, one in zip(sizes, spreads, strict=True)]
    return tuple(max(one / n, _LEAST) for one, n in zip(pulled, sizes, strict=True))


def between_variance(deltas: Sequence[float], variances: Sequence[float]) -> float:
    """The variance of the true differences, 0 where the noise explains all (DerSimonian, Laird 1986)."""
    weights = [1 / variance for variance in variances]
    total = sum(weights)
    mean = sum(w * d for w, d in zip(weights, deltas, strict=True)) / total
    heterogeneity = sum(w * (d - mean) ** 2 for w, d in zip(weights, deltas, strict=True))
    scale = total - sum(w * w for w in weights) / total
    return max(0.0, (heterogeneity - (len(deltas) - 1)) / scale)
