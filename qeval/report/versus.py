"""Variant against variant: a matrix, and the report as it is when a person chooses another reference.

Everything is computed by the run's own pairing and intervals, and rendered by the page's own templates: what
the page shows against a variant is what a report with that baseline shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from qeval.compare.against import FEWEST, against, references
from qeval.report import context as reports
from qeval.report.context import Context
from qeval.report.ranking import Entry, Ranking, ranking
from qeval.report.verdicts import WORDS


@dataclass(frozen=True)
class Meeting:
    """A variant against a reference in the matrix: a key of `verdicts.MARKS`, its mark, and words. The status
    is that which sums the variant up, as in the decision table; the difference is that of the table's row.
    `reverse` is the reference's verdict against the variant, "? Undecided", where it is not the mirror image
    of this one."""

    status: str
    mark: str
    delta: str
    words: str
    reverse: str = ""


Matrix = tuple[tuple[Meeting | None, ...], ...]


@dataclass(frozen=True)
class Versus:
    """`names` are the references, the baseline first; `matrix` has a row a variant and a column a reference,
    None where the title's row is not compared; `others` are the reports against the names after the first.
    `judged`: a policy judged the run, whose verdicts are not the matrix's."""

    title: str
    names: tuple[str, ...]
    matrix: Matrix
    others: tuple[Context, ...]
    judged: bool = False


def versus(context: Context) -> Versus | None:
    """All of it; None where there are too few variants to choose from, or too many to compare them all."""
    if not references(context.run):
        return None
    others = tuple(reports.against(context, one) for one in against(context.evidence))
    if len(others) + 1 < FEWEST:
        return None
    names = tuple(one.run.baseline for one in (context, *others))
    tables = [_about(context.ranking, one) for one in (context, *others)]
    matrix = _with_reverse(tuple(_matrix(names, tables)))
    return Versus(context.ranking.title, names, matrix, others, context.judged)


def _about(own: Ranking, other: Context) -> Ranking:
    """The table of a report, about the row that the run's own is about: a matrix has one."""
    same = other.ranking.heads[0] == own.heads[0]
    return other.ranking if same else ranking(other.evidence, heads=own.heads)


_MIRRORED = {"WORSE": "BETTER", "BETTER": "WORSE"}
"""What a verdict is from the other side of its pair; every other one is itself."""


def _with_reverse(matrix: Matrix) -> Matrix:
    """The matrix, each cell with what the other direction says where that differs."""
    places = range(len(matrix))
    return tuple(tuple(_reversed(matrix[row][at], matrix[at][row]) for at in places) for row in places)


def _reversed(one: Meeting | None, other: Meeting | None) -> Meeting | None:
    if one is None or other is None or other.status == _MIRRORED.get(one.status, one.status):
        return one
    return replace(one, reverse=f"{other.mark} {WORDS[other.status]}")


def _matrix(names: Sequence[str], rankings: Sequence[Ranking]) -> Iterable[tuple[Meeting | None, ...]]:
    found = [{entry.variant: entry for entry in one.entries} for one in rankings]
    for name in names:
        yield tuple(_meeting(column.get(name)) for column in found)


def _meeting(entry: Entry | None) -> Meeting | None:
    if entry is not None and entry.verdict.status == "NONE":
        return Meeting("NONE", entry.verdict.mark, "–", entry.verdict.sentence)
    if entry is None or entry.finding is None:
        return None
    one, sums_up = entry.finding, entry.sums_up or entry.finding
    said = f"{sums_up.said} ({entry.by})" if entry.by else sums_up.said
    return Meeting(sums_up.status, sums_up.mark, one.delta_text, f"{one.interval_text}; {said}")
