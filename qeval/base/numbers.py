"""Numbers as a person reads them; rounding never moves one across a limit that decided something."""

from __future__ import annotations

import math
from collections.abc import Iterable

MINUS = "\u2212"
NONE = "–"
_MOST_DIGITS = 8
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_READABLE = (1e-4, 1e6)  # numbers between these are written without powers of ten
_LARGE_PERPLEXITY = 10
_SMALL_P = 0.001


def sign(text: str) -> str:
    """`text` of a number with a true minus sign, which lines up in columns and breaks no line."""
    return text.replace("-", MINUS)


def digits_to_keep(value: float, limits: Iterable[float], least: int = 2) -> int:
    """The fewest decimals, at least `least`, at which rounded `value` lies on its true side of every limit.

    So -2.04 beside an allowed -2.0 never shows as -2.0, and -0.004 never as 0.00. A value equal to a
    limit needs no more.
    """
    for digits in range(least, _MOST_DIGITS):
        shown = round(value, digits)
        if all(_side(shown, limit) == _side(value, limit) for limit in limits):
            return digits
    return _MOST_DIGITS


def _side(value: float, limit: float) -> int:
    """-1 below, 0 on, 1 above the limit; a difference of float noise counts as on it."""
    if math.isclose(value, limit, rel_tol=0.0, abs_tol=1e-10):
        return 0
    return 1 if value > limit else -1


def plain(value: float | None, digits: int = 2) -> str:
    """A number with fixed decimals; a dash where there is none."""
    if value is None or math.isnan(value):
        return NONE
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    return sign(f"{value:.{digits}f}")


def points(fraction: float | None, digits: int = 2) -> str:
    """A score of 0 to 1 in percentage points, without the sign of per cent."""
    return plain(None if fraction is None else 100 * fraction, digits)


def signed_points(fraction: float, limits: Iterable[float] = ()) -> str:
    """A difference of scores in points, signed; `limits` are fractions it must not be rounded across."""
    if not math.isfinite(fraction):
        return plain(fraction)
    value = 100 * fraction
    digits = digits_to_keep(value, [0.0, *(100 * limit for limit in limits)])
    text = f"{value:+.{digits}f}"
    return sign(text) if float(text) else f"{0:.{digits}f}"


def interval_points(low: float, high: float, limits: Iterable[float] = ()) -> str:
    """An interval of differences in points: "−1.30 to −0.21"."""
    kept = tuple(limits)
    return f"{signed_points(low, kept)} to {signed_points(high, kept)}"


def perplexity(score: float | None) -> str:
    """exp(-score) of a mean log-likelihood in nats, with four significant digits or more."""
    if score is None or math.isnan(score):
        return NONE
    value = _exp(-score)
    return plain(value, 2 if value >= _LARGE_PERPLEXITY else 3)


def ratio(delta: float, limits: Iterable[float] = ()) -> str:
    """The perplexity ratio exp(-delta), "×1.014"; `limits` are deltas it must not be rounded across."""
    value = _exp(-delta)
    if not math.isfinite(value):
        return f"×{plain(value)}"
    digits = digits_to_keep(value, [1.0, *(_exp(-limit) for limit in limits)], least=3)
    return f"×{value:.{digits}f}"


def interval_ratio(low: float, high: float, limits: Iterable[float] = ()) -> str:
    """An interval of log-likelihood differences as perplexity ratios, the smaller ratio first."""
    kept = tuple(limits)
    return f"{ratio(high, kept)} to {ratio(low, kept)}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share as per cent: "98.7 %". A share below 1 never shows as 100 %, nor one above 0 as 0 %."""
    if share is None or not math.isfinite(share):
        return NONE
    value = 100 * share
    return f"{plain(value, digits_to_keep(value, (0.0, 100.0), least=digits))} %"


def p_value(p: float | None) -> str:
    """A p-value with two digits; below a thousandth, only that."""
    if p is None or math.isnan(p):
        return NONE
    return "<0.001" if p < _SMALL_P else f"{p:.2g}"


def count(number: int | None) -> str:
    """A whole number in groups of three, parted by a narrow space that breaks no line."""
    return NONE if number is None else f"{number:,}".replace(",", "\u202f")


def size(number: float | None) -> str:
    """Bytes in the binary unit that reads best."""
    if not number:
        return NONE
    power = min(int(math.log2(number)) // 10, len(_UNITS) - 1)
    return f"{significant(number / 2 ** (10 * power))} {_UNITS[power]}"


def significant(value: float | None, digits: int = 3) -> str:
    """A measured quantity with so many significant digits, never in powers of ten from 1e-4 to 1e6."""
    if value is None or not math.isfinite(value):
        return plain(value)
    if value == 0:
        return "0"
    if not _READABLE[0] <= abs(value) < _READABLE[1]:
        return sign(f"{value:.{digits - 1}e}")
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return sign(f"{value:.{decimals}f}")


def _exp(value: float) -> float:
    """Exponential that says infinity where Python raises."""
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
