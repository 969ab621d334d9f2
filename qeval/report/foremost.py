"""Which rows a short report shows: those that a reader must see first."""

from __future__ import annotations

from dataclasses import replace

from qeval.base.records import Comparison
from qeval.report.context import Context
from qeval.report.verdicts import WORST_FIRST


def foremost(context: Context, most: int) -> tuple[Context, tuple[str, ...]]:
    """The context with at most so many columns, in their order, and the titles of those left out: the average
    stays, then what a rule judged, the worst first, then that on which a variant most surely lost; a loss
    beyond the margin that nothing bounds is as grave as one that is sure."""
    kept = sorted(_by_weight(context)[:most])
    lines = [replace(line, figures=tuple(line.figures[place] for place in kept)) for line in context.lines]
    columns = tuple(context.columns[place] for place in kept)
    left = tuple(column.title for place, column in enumerate(context.columns) if place not in kept)
    return replace(context, columns=columns, lines=tuple(lines)), left


def _chance(context: Context, one: Comparison) -> float:
    """The p-value of a loss; where there is none, 0 for one that may be a ruin."""
    if one.p is not None:
        return one.p
    found = context.evidence.findings.get((one.variant, one.task))
    return 0.0 if found is not None and found.may_ruin and one.delta < -found.limit else 1.0


def _by_weight(context: Context) -> list[int]:
    """The places of the columns, the weightiest first."""
    surest: dict[str, float] = {}
    for one in context.evidence.comparisons:
        surest[one.task] = min(surest.get(one.task, 1.0), _chance(context, one) if one.delta < 0 else 1.0)
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
