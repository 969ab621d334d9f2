"""Columns of values as arrays, checked; quantiles; what every interval here needs."""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from qeval.base.errors import QevalError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

SAME = 1e-9


def as_columns(
    baseline: ArrayLike, candidate: ArrayLike, weights: ArrayLike | None
) -> tuple[Floats, Floats, Floats]:
    """Both values and the weights (ones where None) as float64 columns of one length (n,).

    Raises ValueError where the lengths differ or a weight is negative, QevalError for NaN.
    """
    first, second = np.asarray(baseline, dtype=np.float64), np.asarray(candidate, dtype=np.float64)
    weight = np.ones_like(first) if weights is None else np.asarray(weights, dtype=np.float64)
    if not first.shape == second.shape == weight.shape or first.ndim != 1:
        raise ValueError(f"columns of shapes {first.shape}, {second.shape}, {weight.shape} are no pairs")
    refuse_nan(first, second, weight)
    if np.any(weight < 0):
        raise ValueError("a weight is negative")
    return first, second, weight


def refuse_nan(*columns: Floats) -> None:
    """Raise QevalError where a column holds NaN."""
    if any(np.isnan(column).any() for column in columns):
        raise QevalError(
            "A value to be compared is not a number (NaN).",
            "Score the variant again, for instance with another --dtype.",
        )


def is_binary(first: Floats, second: Floats, weight: Floats) -> bool:
    """Whether all values are 0 or 1 and all weights 1."""
    return all(bool(np.all((one == 0) | (one == 1))) for one in (first, second)) and bool(np.all(weight == 1))


def is_bounded(first: Floats, second: Floats, weight: Floats) -> bool:
    """Whether every value lies between 0 and its weight."""
    return all(bool(np.all((one >= 0) & (one <= weight))) for one in (first, second))


def codes_of(labels: ArrayLike, n: int) -> tuple[NDArray[np.intp], int]:
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


def check_counts(losses: float, gains: float, n: float) -> None:
    """Raise ValueError where so many losses and gains do not fit into n items."""
    if not (losses >= 0 and gains >= 0 and losses + gains <= n * (1 + SAME)):
        raise ValueError(f"{losses} losses and {gains} gains do not fit in {n} items")


def checked_level(level: float) -> float:
    """The level, if it lies between 0 and 1; else ValueError."""
    if not 0 < level < 1:
        raise ValueError(f"a confidence of {level} is not between 0 and 1")
    return level


def normal_quantile(level: float) -> float:
    """How many standard deviations an interval of the two-sided `level` reaches to each side."""
    return NormalDist().inv_cdf((1 + checked_level(level)) / 2)


def student_quantile(level: float, freedom: float) -> float:
    """The same for Student's t with `freedom` degrees of freedom."""
    from scipy import special

    return float(special.stdtrit(freedom, (1 + level) / 2))
