"""The gate on a terminal: verdicts first, then every decision that did not pass, with its reason."""

from __future__ import annotations

from collections.abc import Sequence

from qeval.base import layout
from qeval.base.layout import Column
from qeval.base.records import Decision
from qeval.base.text import one_line
from qeval.judge.formats import Format
from qeval.judge.formats.cells import ORDER, cells, headers, in_rows
from qeval.judge.gate import Outcome

_GOES = (0, 0, 2, 2, 0, 1, 0)
"""Which columns give way first on a narrow terminal: both scores, then what is allowed; reasons name them."""
_NAMES = 2


def table(outcome: Outcome, width: int | None = None, *, every: bool = False) -> str:
    """What the terminal shows, in so many columns: the verdict and the model, a row for each decision that
    did not pass (or for `every` one), the variants' verdicts with the reasons, and the notes."""
    rows = in_rows(outcome.decisions)
    shown = [one for one in rows if every or one.status != "PASS"]
    parts = [
        outcome.headline,
        *([_rows(outcome, shown, width)] if shown else []),
        *([_closed(len(rows) - len(shown), len(shown))] if len(shown) < len(rows) else []),
        *[
            f"{status}: {one_line(name)}" + _because(outcome, name)
            for name, status in outcome.verdicts.items()
        ],
        *([chr(10).join(map(one_line, outcome.notes))] if outcome.notes else []),
    ]
    return "\n\n".join(parts)


def _rows(outcome: Outcome, shown: Sequence[Decision], width: int | None) -> str:
    columns = [
        Column(
            one_line(title),
            "left" if place < _NAMES or title == "verdict" else "right",
            goes,
            leads=place < _NAMES,
        )
        for place, (title, goes) in enumerate(zip(headers(outcome), _GOES, strict=True))
    ]
    return layout.table(columns, [[one_line(cell) for cell in cells(outcome, one)] for one in shown], width)


def _closed(passed: int, shown: int) -> str:
    which = (
        "All rules passed"
        if not shown
        else "1 more rule passed"
        if passed == 1
        else f"{passed} more rules passed"
    )
    return f"{which} (--verbose shows each)."


def _because(outcome: Outcome, variant: str) -> str:
    mine = [one for one in outcome.decisions if one.variant == variant and one.status != "PASS"]
    mine.sort(key=lambda one: ORDER.index(one.status))
    return "".join(f"\n  {one_line(one.reason)}{_advice(one)}" for one in mine)


def _advice(one: Decision) -> str:
    return " (advisory)" if one.rule.tier == "advisory" else ""


FORMAT = Format("table", table)
