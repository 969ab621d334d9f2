"""How a change from the baseline is written, for every format: one name, one sign, one rounding.

Δ is the variant minus the baseline in percentage points, so below 0 is worse; for perplexities it is the
ratio, above x1 is worse. Tables, sentences, reasons of a gate and notes all take their words from here.
"""

from __future__ import annotations

from collections.abc import Iterable

from qeval.base import numbers
from qeval.base.records import Comparison

DELTA = "Δ"


def delta(one: Comparison, limits: Iterable[float] = ()) -> numbers.Numeral:
    """The change alone: "-1.20", "x1.014"; `limits` are deltas that it must not be rounded across."""
    words = numbers.ratio if one.kind == "perplexity" else numbers.signed_points
    return words(one.delta, limits)


def interval(one: Comparison, limits: Iterable[float] = ()) -> numbers.Numeral:
    """Its interval: "-2.10 to -0.30", "x1.010 to x1.018"."""
    words = numbers.interval_ratio if one.kind == "perplexity" else numbers.interval_points
    return words(one.low, one.high, limits)


def change(one: Comparison, limits: Iterable[float] = ()) -> str:
    """Both in a sentence: "Δ -1.20 points (95% interval -2.10 to -0.30)"."""
    kept = tuple(limits)
    around = f"({numbers.level(one.confidence)} interval {interval(one, kept)})"
    return f"{named(one, kept)} {around}"


def named(one: Comparison, limits: Iterable[float] = ()) -> str:
    """The change with its name and unit: "Δ -1.20 points", "perplexity x1.014"."""
    said = delta(one, limits)
    return f"perplexity {said}" if one.kind == "perplexity" else f"{DELTA} {said} points"


def heading(level: str) -> str:
    """The heading of a column that holds both; `level` is "" where intervals have several."""
    return f"{DELTA} ({level} interval)" if level else f"{DELTA} (interval)"
