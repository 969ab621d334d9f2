"""Which rows a short report shows: those that a reader must see first."""

from __future__ import annotations

from dataclasses import replace

from qeval.report.context import Context
from qeval.report.verdicts import WORST_FIRST


def foremost(context: Context, most: int) -> tuple[Context, int]:
    """The context with at most so many columns, in their order, and how many were left out: the average
    stays, then what a rule judged, the worst first, then that on which a variant most surely lost."""
    kept = sorted(_by_weight(context)[:most])
    lines = [replace(line, figures=tuple(line.figures[place] for place in kept)) for line in context.lines]
    columns = tuple(context.columns[place] for place in kept)
    return replace(context, columns=columns, lines=tuple(lines)), len(context.columns) - len(kept)


def _by_weight(context: Context) -> list[int]:
    """The places of the columns, the weightiest first."""
    surest: dict[str, float] = {}
    for one in context.evidence.comparisons:
        p = one.p if one.p is not None and one.delta < 0 else 1.0
        surest[one.task] = min(surest.get(one.task, 1.0), p)
    judged: dict[str, int] = {}
    for decision in context.decisions:
        rank = WORST_FIRST.index(decision.status)
        judged[decision.task] = min(judged.get(decision.task, rank), rank)
    names = [column.row.id for column in context.columns]
    return sorted(
        range(len(names)),
        key=lambda place: (
            names[place] != "average",
            judged.get(names[place], len(WORST_FIRST)),
            surest.get(names[place], 1.0),
            place,
        ),
    )
