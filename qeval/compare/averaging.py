"""What a suite's average, or a group's row, cannot be made of: said, for what is not there is overlooked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from qeval.base.names import TYPED
from qeval.base.records import Run
from qeval.compare.margin import listed
from qeval.compare.rows import Row, rows_of


def sentences(run: Run) -> tuple[str, ...]:
    """Which rows that the suite names are in no average, which groups have no score, and whether the average
    is there; nothing of a run of which no variant is finished, which tells of that first."""
    rows = rows_of(run)
    found = [*_left_out(run)]
    if any(result.status == "done" for result in run.results):
        found += [*_groups(rows), *_average(rows)]
    return tuple(dict.fromkeys(found))


def _left_out(run: Run) -> Iterator[str]:
    names = run.left_out
    if names and run.suite.name != TYPED:
        are = "are perplexities, which have" if len(names) > 1 else "is a perplexity, which has"
        rest = f"is over {', '.join(run.suite.average)}" if run.suite.average else "is over nothing"
        yield f"{listed(names)} {are} no mean with scores: the average {rest}."


def _groups(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        if row.level == "pooled" and (why := why_not(row, rows)):
            remedy = "Name in the suite one that all have, or the members as tasks."
            yield f"The group {row.id} has no score of its own: {why}. {remedy}"


def _average(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        if row.level == "average" and (why := why_not(row, rows)):
            yield f"The suite's average is not there: {why}."


def why_not(row: Row, rows: Sequence[Row]) -> str:
    """Why a row of several tasks has no score although all of them were scored, without a full stop; "" where
    nothing is wrong with it, or not all of them were."""
    if row.whole:
        return ""
    if row.level == "average":
        there = {one.id: one for one in rows}
        lacking = [name for name in row.parts if name not in there or not there[name].whole]
        return (
            f"it needs {listed(lacking)}, which has no score"
            if lacking
            else "it mixes scores and perplexities"
        )
    several = len({(member.kind, member.metric) for member in row.members}) > 1
    return f"its members are judged by different metrics ({row.judged_by})" if several else ""
