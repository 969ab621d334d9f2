"""Several tests together, and the p-value of one."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from qeval.compare.stats.columns import refuse_nan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qeval.compare.stats.columns import Floats


def holm(p_values: Sequence[float] | Floats) -> Floats:
    """p-values adjusted for their number, in the order given (Holm 1979, Scand J Stat 6:65): whoever
    names all below a blames anyone wrongly with probability at most a, however they depend."""
    values = np.asarray(p_values, dtype=np.float64)
    refuse_nan(values)
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
