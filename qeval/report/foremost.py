"""What a short report shows: the rows and the columns that a reader must see first."""

from __future__ import annotations

from dataclasses import replace

from qeval.report.context import Context
from qeval.report.ranking import Entry, Ranking
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


def decision_cells(told: Ranking, most: int | None) -> tuple[list[str], list[list[str]]]:
    """The headings and the rows of the decision table, the reference's last. `most`: with so many columns at
    most, the difference and its interval in one of them."""
    headers = [
        *("Variant", "Verdict", f"{told.title} Δ"),
        *(() if most else ("interval",)),
        *(("Worst task, Δ",) if told.has_worst else ()),
        *((f"{told.ratio_of}, ratio",) if told.ratio_of else ()),
        *(f"{title}, {unit}" for title, unit, _ in told.fixed),
    ]
    rows = [_decided(told, entry, together=most is not None) for entry in (*told.entries, told.reference)]
    return headers[:most], [row[:most] for row in rows]


def _decided(told: Ranking, entry: Entry, *, together: bool) -> list[str]:
    around = f"{entry.delta} ({entry.interval})" if entry.interval else entry.delta
    return [
        *(entry.short, f"{entry.verdict.mark} {entry.verdict.word}"),
        *((around,) if together else (entry.delta, entry.interval)),
        *((entry.worst,) if told.has_worst else ()),
        *((entry.ratio,) if told.ratio_of else ()),
        *entry.fixed,
    ]
