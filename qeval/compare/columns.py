"""The statistics of a comparison, one line each; every format that shows a difference shows them all.

To add one, write its formula in a file of compare/stats and a line here, which imports it from that file:
HTML, Markdown, terminal, CSV and JSON take their columns from this table (docs/extend/statistic.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from qeval.base import numbers
from qeval.base.records import Comparison
from qeval.compare import stats


@dataclass(frozen=True)
class Column:
    """A statistic: its key in files, its heading, its value (None where it has none), and the value in words.

    `brief`: the terminal's narrow table has room for it too.
    """

    id: str
    title: str
    value: Callable[[Comparison], Any]
    words: Callable[[Any], numbers.Numeral]
    brief: bool = True


def _kept(comparison: Comparison) -> tuple[float | None, float | None]:
    """The share of the baseline's score that is kept: of all of it, and of what lies above guessing."""
    if comparison.kind == "perplexity" or comparison.baseline <= 0:
        return None, None
    return stats.recovery(comparison.baseline, comparison.candidate, comparison.chance)


COLUMNS = (
    Column("p", "p", lambda one: one.p, numbers.p_value, brief=False),
    Column("losses", "Lost", lambda one: one.losses, numbers.count),
    Column("gains", "Gained", lambda one: one.gains, numbers.count),
    Column("flips", "Changed", lambda one: one.flips, numbers.count),
    Column("kept", "Kept", lambda one: _kept(one)[0], numbers.percent, brief=False),
    Column("kept_above_chance", "Kept above chance", lambda one: _kept(one)[1], numbers.percent, brief=False),
)

_STORED = {field.name for field in fields(Comparison)}


def statistics(comparison: Comparison) -> dict[str, Any]:
    """The values of all columns that the comparison does not hold as fields already, by key."""
    return {column.id: column.value(comparison) for column in COLUMNS if column.id not in _STORED}


def in_words(comparison: Comparison | None) -> dict[str, numbers.Numeral]:
    """The words of all columns, by key; dashes where there is nothing to compare."""
    return {
        column.id: column.words(column.value(comparison)) if comparison else numbers.NONE
        for column in COLUMNS
    }
