"""Numbers as a person reads them: one way to say each, in plain ASCII that `float()` reads back.

Rounding never moves a number across a limit that decided something. `typographic` gives the same with a true
minus sign, narrow spaces and a multiplication sign, for HTML alone.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal

_MOST_DIGITS = 12
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_MINUTES, _HOURS = 90, 100
"""Seconds, and minutes, from which on a length of time is told in the next larger unit."""
_ALL, _NEXT_TO_ALL = 100, f"99.{'9' * _MOST_DIGITS}"
_READABLE = (1e-4, 1e6)  # numbers between these are written without powers of ten
_LARGE_PERPLEXITY = 10
_SMALL_P = 0.001
_NOTHING = 1e-9  # a difference of log-likelihoods that the order of a sum makes
_NOISE = 7  # decimals beyond those that are shown
_ROUGHLY = 2  # significant digits of a rough number


class Numeral(str):
    """The text of a number, an interval or a dash that stands for none; plain ASCII."""

    __slots__ = ()


NONE = Numeral("-")


@functools.lru_cache(maxsize=2**14)  # a page shows few numbers often
def typographic(text: Numeral) -> str:
    """The numeral as a page shows it, with signs that line up in columns and break no line."""
    if text == NONE:
        return "\u2013"
    return signs(re.sub(r"(?<![\d.])\d{5,}(?![\d.])", _grouped, text))


def signs(sentence: str) -> str:
    """A sentence whose numbers have typographic signs; hyphens of names and options stay."""
    minus = re.sub(r"(?<![\w.-])-(?=\d|inf\b)", "\u2212", sentence)
    return re.sub(r"\binf\b", "\u221e", re.sub(r"\bx(?=\d[\d.]*(?!\S*[a-z])|inf\b)", "\u00d7", minus))


def _grouped(digits: re.Match[str]) -> str:
    return f"{int(digits[0]):,}".replace(",", "\u202f")


# --- digits -------------------------------------------------------------------------------------


def digits_to_keep(
    values: float | Sequence[float], limits: Iterable[float], least: int = 2, *, round_limits: bool = False
) -> int:
    """The fewest decimals, at least `least`, at which rounded values lie on their true side of every limit.

    So -2.04 beside an allowed -2.0 never shows as -2.0, and -0.004 never as 0.00. A value equal to a limit
    needs no more. `round_limits`: the limits are shown rounded too, being results of a computation.
    """
    known, kept = (values,) if isinstance(values, int | float) else tuple(values), tuple(limits)
    for digits in range(least, _MOST_DIGITS + 1):
        near = [round(limit, digits) for limit in kept] if round_limits else kept
        pairs = [(value, *limit) for value in known for limit in zip(kept, near, strict=True)]
        if all(_side(round(value, digits), shown) == _side(value, limit) for value, limit, shown in pairs):
            return digits
    return _MOST_DIGITS


def _side(value: float, limit: float) -> int:
    """-1 below, 0 on, 1 above the limit; a difference of float noise counts as on it."""
    if math.isclose(value, limit, rel_tol=1e-12, abs_tol=1e-10):
        return 0
    return 1 if value > limit else -1


def exp(value: float) -> float:
    """E to the power of `value`; infinity where Python raises."""
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


# --- numbers ------------------------------------------------------------------------------------


def plain(value: float | None, digits: int = 2) -> Numeral:
    """A number with fixed decimals; a dash where there is none. No zero has a sign. The noise of floats does
    not part a half that two sums gave: both are rounded alike."""
    if value is None or math.isnan(value):
        return NONE
    if math.isinf(value):
        return Numeral("inf" if value > 0 else "-inf")
    text = f"{round(value, digits + _NOISE):.{digits}f}"
    return Numeral(text.lstrip("-") if float(text) == 0 else text)


def signed(value: float | None, digits: int = 2) -> Numeral:
    """`plain` with a plus before what is above zero, for values that lie on either side of it."""
    text = plain(value, digits)
    return Numeral(f"+{text}") if value is not None and value > 0 and text.strip("0.") else text


def as_written(value: float, digits: int = 1) -> Numeral:
    """A limit as the user wrote it, with at least `digits` decimals: 1.0, 0.25, 0.333."""
    exact = f"{Decimal(repr(round(value, 12))):f}"
    return Numeral(f"{value:.{max(len(exact.rstrip('0').partition('.')[2]), digits)}f}")


def points(fraction: float | None, digits: int = 2) -> Numeral:
    """A score of 0 to 1 in percentage points, without a sign of per cent."""
    return plain(None if fraction is None else 100 * fraction, digits)


def signed_points(fraction: float, limits: Iterable[float] = ()) -> Numeral:
    """A difference of scores in points, signed; `limits` are fractions it must not be rounded across."""
    if not math.isfinite(fraction):
        return plain(fraction)
    value = 100 * fraction
    return signed(value, digits_to_keep(value, [0.0, *(100 * limit for limit in limits)]))


def interval_points(low: float, high: float, limits: Iterable[float] = ()) -> Numeral:
    """An interval of differences in points: "-1.30 to -0.21"."""
    kept = tuple(limits)
    return Numeral(f"{signed_points(low, kept)} to {signed_points(high, kept)}")


def perplexity(score: float | None) -> Numeral:
    """exp(-score) of a mean log-likelihood in nats, with four significant digits or more."""
    if score is None or math.isnan(score):
        return NONE
    value = exp(-score)
    return plain(value, 2 if value >= _LARGE_PERPLEXITY else 3)


def ratio(delta: float, limits: Iterable[float] = ()) -> Numeral:
    """The perplexity ratio exp(-delta), "x1.014"; `limits` are deltas it must not be rounded across."""
    value = 1.0 if abs(delta) < _NOTHING else exp(-delta)
    if not math.isfinite(value):
        return Numeral(f"x{plain(value)}")
    digits = digits_to_keep(value, [1.0, *(exp(-limit) for limit in limits)], least=3)
    return Numeral(f"x{value:.{digits}f}")


def interval_ratio(low: float, high: float, limits: Iterable[float] = ()) -> Numeral:
    """An interval of log-likelihood differences as perplexity ratios, the smaller ratio first."""
    kept = tuple(limits)
    return Numeral(f"{ratio(high, kept)} to {ratio(low, kept)}")


def percent(share: float | None, digits: int = 1, limits: Iterable[float] = ()) -> Numeral:
    """A share as per cent: "98.7%". A share below 1 never shows as 100%, nor one above 0 as 0%; `limits` are
    other shares that it must not be rounded across."""
    if share is None or not math.isfinite(share):
        return NONE
    value, kept = 100 * share, (0.0, 100.0, *(100 * limit for limit in limits))
    return Numeral(f"{plain(value, digits_to_keep(value, kept, least=digits))}%")


def level(confidence: float) -> Numeral:
    """A confidence as people name it: "95%", "97.5%"; what is not certain is never 100%."""
    value = 100 * confidence
    digits = digits_to_keep(value, (0.0, 50.0, 100.0))
    shown = as_written(round(value, digits), 0)
    return Numeral(f"{shown if confidence >= 1 or float(shown) < _ALL else _NEXT_TO_ALL}%")


def p_value(p: float | None) -> Numeral:
    """A p-value with two digits; below a thousandth, only that."""
    if p is None or math.isnan(p):
        return NONE
    return Numeral("<0.001" if p < _SMALL_P else f"{p:.2g}")


def count(number: int | None) -> Numeral:
    """A whole number."""
    return NONE if number is None else Numeral(str(number))


def roughly(number: int) -> Numeral:
    """A rough number of items, rounded up to two significant digits: "5200"."""
    scale = 10 ** max(len(str(number)) - _ROUGHLY, 0)
    return Numeral(str(math.ceil(number / scale) * scale))


def size(number: float | None) -> Numeral:
    """Bytes in the binary unit that reads best."""
    if not number:
        return NONE
    power = min(int(math.log2(number)) // 10, len(_UNITS) - 1)
    return Numeral(f"{significant(number / 2 ** (10 * power))} {_UNITS[power]}")


def duration(seconds: float) -> str:
    """A length of time as people say it: "45 s", "3 min", "1 h 40 min"; no finer than it may be trusted."""
    if seconds < _MINUTES:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < _HOURS:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def significant(value: float | None, digits: int = 3) -> Numeral:
    """A measured quantity with so many significant digits, never in powers of ten from 1e-4 to 1e6."""
    if value is None or not math.isfinite(value):
        return plain(value)
    if value == 0:
        return Numeral("0")
    if not _READABLE[0] <= abs(value) < _READABLE[1]:
        return Numeral(f"{value:.{digits - 1}e}")
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return Numeral(f"{value:.{decimals}f}")


def in_bytes(size: int) -> str:
    """An amount of memory as a person reads it: decimal, as disks are sold."""
    for unit, step in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= step:
            return f"{size / step:.2f} {unit}" if size < 10 * step else f"{size / step:.0f} {unit}"
    return f"{size} B"
