"""A bet against a variant while it is scored: after how many items is a rule certainly broken?

The null hypothesis is that the mean difference is at least -margin. A gambler with a capital of 1 stakes a
fixed fraction on every unit being worse than that: an item, or the text that several share, whole. Where the
null hypothesis is true the capital is a supermartingale, so it reaches 1 / (1 - confidence) with probability
at most 1 - confidence, whenever and however often one looks (Ville 1939). The best fraction is unknown, so
the capital is spread evenly over several: the diversified Kelly betting of Waudby-Smith and Ramdas (J R Stat
Soc B 86:1, arXiv 2010.09686).

Differences lie in [-1, 1] and units must come in random order, as a sample of the task's texts. A text of k
items counts k times, and stakes are as small as the largest text demands: then a text's items may all be lost
or gained together without the chance of a wrong verdict growing. Which differences, for which rule: a drop of
at most m points, candidate - baseline and margin m / 100; a recovery of at least r, candidate - r * baseline
and margin 0; at most f flips, -1 for a flip, else 0, and margin f.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from qeval.base.errors import QevalError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_LEAST, _MOST, _FRACTIONS = 0.01, 0.95, 12
"""Stakes as shares of the greatest one that cannot ruin: from 1% (shortfalls of a fraction of a point)
to 95%, evenly on a logarithmic scale."""


@dataclass(frozen=True)
class Bet:
    """The state of one bet: what it is about, and how it stands after `n` items.

    `largest` is the greatest number of items that a unit may have. `capitals` are the logarithms of the
    capital of each fraction; `broken_at` is the number of items after which the rule was certainly broken,
    None while it is not; it never changes again.
    """

    margin: float
    confidence: float
    largest: int = 1
    n: int = 0
    capitals: tuple[float, ...] = (0.0,) * _FRACTIONS
    broken_at: int | None = None


def start(margin: float, confidence: float = 0.95, largest: int = 1) -> Bet:
    """A bet that the mean difference is below -margin, to be sure with the one-sided `confidence`, on units
    of at most `largest` items.

    Raises:
        ValueError: margin outside [0, 1), confidence outside (0, 1), or `largest` below 1.
    """
    if not (0 <= margin < 1 and 0 < confidence < 1):
        raise ValueError(f"margin {margin} or confidence {confidence} is no fraction")
    if largest < 1:
        raise ValueError(f"units of {largest} items")
    return Bet(margin, confidence, largest)


def update(state: Bet, differences: ArrayLike, sizes: ArrayLike | None = None) -> Bet:
    """The bet after (k,) more units, in the order in which they were drawn.

    Args:
        state: the bet so far.
        differences: (k,) the sum of each unit's differences.
        sizes: (k,) the number of its items, from 1 to `state.largest`; 1 by default.

    Raises:
        ValueError: a unit has another number of items.
        QevalError: a difference of an item is outside [-1, 1] or not a number: it is no score of items.
    """
    items = np.asarray(differences, dtype=np.float64)
    counts = np.ones(len(items), dtype=np.int64) if sizes is None else np.asarray(sizes, dtype=np.int64)
    if counts.shape != items.shape or not np.all((counts >= 1) & (counts <= state.largest)):
        raise ValueError(f"units of 1 to {state.largest} items were promised")
    if not np.all(np.abs(items) <= counts):
        raise QevalError(
            "Differences outside [-1, 1] cannot be bet on.",
            "Judge perplexities after the run: only bounded scores can stop a variant early.",
        )
    if not len(items):
        return state
    excess = (items + state.margin * counts) / state.largest
    paths = np.array(state.capitals)[:, None] + np.cumsum(_gains(excess, state.margin), axis=1)
    broken_at = state.broken_at
    if broken_at is None:
        above = np.logaddexp.reduce(paths, axis=0) - math.log(_FRACTIONS) >= -math.log1p(-state.confidence)
        seen = state.n + np.cumsum(counts)
        broken_at = int(seen[np.argmax(above)]) if above.any() else None
    return replace(
        state, n=state.n + int(counts.sum()), capitals=tuple(paths[:, -1].tolist()), broken_at=broken_at
    )


def _gains(excess: NDArray[np.float64], margin: float) -> NDArray[np.float64]:
    """(fractions, n) logarithms of the factor by which each stake multiplies its capital. The greatest
    stake that survives a gain of 1 is 1 / (1 + margin)."""
    stakes = np.geomspace(_LEAST, _MOST, _FRACTIONS) / (1 + margin)
    return np.log1p(-stakes[:, None] * excess)
