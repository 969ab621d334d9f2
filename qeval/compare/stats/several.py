"""Several tests together, and the p-value of one."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

import numpy as np

from qeval.compare.stats.columns import checked_level, refuse_nan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qeval.compare.stats.columns import Floats


_ROUNDING = 1e-12


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


def claims(
    p_values: Sequence[float | None], deltas: Sequence[float], level: float = 0.95
) -> tuple[Literal[-1, 0, 1], ...]:
    """Which of all differences that a report shows it may call a loss (-1) or a gain (1); 0 where neither.

    Give every variant on every task that is looked at, so that a report at no true difference claims one
    with probability at most 1 - level: Holm's correction of two-sided p-values, each claim with the sign
    of its difference (a wrong sign is an error too: Shaffer 1980, Ann Stat 8:1342). None is no test, and
    does not count among them.
    """
    tested = [index for index, p in enumerate(p_values) if p is not None]
    adjusted = holm([p for p in p_values if p is not None])
    found: list[Literal[-1, 0, 1]] = [0] * len(p_values)
    for index, p in zip(tested, adjusted, strict=True):
        if p <= 1 - checked_level(level) + _ROUNDING and deltas[index]:
            found[index] = -1 if deltas[index] < 0 else 1
    return tuple(found)


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
