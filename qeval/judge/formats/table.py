"""The gate on a terminal: every decision in a row, the reasons of what did not pass, the verdicts."""

from __future__ import annotations

from tabulate import tabulate

from qeval.base.records import Decision
from qeval.base.text import one_line
from qeval.judge.formats import Format
from qeval.judge.formats.cells import ORDER, cells, headers
from qeval.judge.gate import Outcome


def table(outcome: Outcome) -> str:
    """What the terminal shows: every decision in a row, the reasons of what did not pass, the verdicts."""
    parts = [
        outcome.headline,
        tabulate(
            [[one_line(cell) for cell in cells(one)] for one in outcome.decisions],
            headers=headers(outcome),
            tablefmt="simple",
            disable_numparse=True,
            colalign=("left", "left", "right", "right", "right", "right", "left"),
        ),
        *[
            f"{status}: {one_line(name)}" + _because(outcome, name)
            for name, status in outcome.verdicts.items()
        ],
        *([chr(10).join(outcome.notes)] if outcome.notes else []),
    ]
    return "\n\n".join(parts)


def _because(outcome: Outcome, variant: str) -> str:
    mine = [one for one in outcome.decisions if one.variant == variant and one.status != "PASS"]
    mine.sort(key=lambda one: ORDER.index(one.status))
    return "".join(f"\n  {one_line(one.reason)}{_advice(one)}" for one in mine)


def _advice(one: Decision) -> str:
    return " (advisory)" if one.rule.tier == "advisory" else ""


FORMAT = Format("table", table)
