"""Means of divergences over the positions of a text, whose positions lean on each other: documents are the
units."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from qeval.compare.stats.columns import codes_of, student_quantile
from qeval.compare.stats.paired import summed

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from qeval.compare.stats.columns import Floats

_FEWEST = 2


def mean_divergence(
    values: ArrayLike, clusters: ArrayLike, level: float = 0.95
) -> tuple[float, float, float]:
    """The mean of values that are not negative, and its interval by clusters.

    The mean is sum(v) / sum(n) over clusters; its standard error that of a ratio, each cluster weighed by its
    leverage, which is the jackknife's (CR3: what it adds is divided by 1 - its share, so that it is how far
    off the mean is without it; Bell and McCaffrey 2002). The interval is Student's t on the logarithm, by the
    delta method, for means of divergences are skewed to the right; degrees of freedom are those of the sum of
    squares (Satterthwaite), of shares as unequal as these. Simulated coverage:
    tests/compare/test_divergence.py.

    Args:
        values: (n,) divergences in nats.
        clusters: (n,) the document of each.
        level: two-sided.

    Returns:
        (mean, low, high). (0, 0, 0) where all are 0; high is infinite, and low 0, with a single cluster.
    """
    columns = np.asarray(values, np.float64)
    codes, count = codes_of(clusters, len(columns))
    mean = float(columns.mean())
    if mean <= 0:
        return mean, min(mean, 0.0), max(mean, 0.0)
    if count < _FEWEST:
        return mean, 0.0, math.inf
    shares = summed(codes, np.ones_like(columns), count) / len(columns)
    parts = (summed(codes, columns, count) / len(columns) - mean * shares) / (1 - shares)
    error = math.sqrt(float(np.square(parts).sum()) * (count - 1) / count)
    reach = student_quantile(level, _freedom(shares)) * error / mean
    return mean, mean * math.exp(-reach), mean * math.exp(min(reach, 700.0))


def _freedom(shares: Floats) -> float:
    """The degrees of freedom of a sum of squares whose terms weigh as the squares of these shares; one is
    taken for the mean itself."""
    weights: NDArray[np.float64] = np.square(shares)
    return max(1.0, float(weights.sum()) ** 2 / float(np.square(weights).sum()) - 1)
