"""Variant against variant: a matrix, and the report as it is when a person chooses another reference.

Everything is computed by the run's own pairing and intervals, and rendered by the page's own templates: what
the page shows against a variant is what a report with that baseline shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qeval.compare.against import FEWEST, against, references
from qeval.report import context as reports
from qeval.report.context import Context
from qeval.report.ranking import Entry, Ranking, ranking
from qeval.report.verdicts import WORDS


@dataclass(frozen=True)
class Meeting:
    """A variant against a reference in the matrix: a key of `verdicts.MARKS`, its mark, and words. The status
    is that which sums the variant up, as in the decision table, and `word` says it with its row where that is
    another one than the table's; the difference and its interval are those of the table's row."""

    status: str
    mark: str
    word: str
    delta: str
    interval: str
    words: str


Matrix = tuple[tuple[Meeting | None, ...], ...]


@dataclass(frozen=True)
class Versus:
    """`names` are the references, the baseline first, then as in the decision table. `matrix` has each pair
    once: a row for each of `names`, with the meetings with those before it; None where the title's row is not
    compared. `others` are the reports against the names after the first.
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
    others = [reports.against(context, one) for one in against(context.evidence)]
    if len(others) + 1 < FEWEST:
        return None
    order = [entry.variant for entry in context.ranking.entries]
    others.sort(key=lambda one: order.index(one.run.baseline))
    names = tuple(one.run.baseline for one in (context, *others))
    tables = [_about(context.ranking, one) for one in (context, *others)]
    matrix = tuple(_matrix(names, tables))
    return Versus(context.ranking.title, names, matrix, tuple(others), context.judged)


def _about(own: Ranking, other: Context) -> Ranking:
    """The table of a report, about the row that the run's own is about: a matrix has one."""
    same = other.ranking.heads[0] == own.heads[0]
    return other.ranking if same else ranking(other.evidence, heads=own.heads)


def _matrix(names: Sequence[str], rankings: Sequence[Ranking]) -> Iterable[tuple[Meeting | None, ...]]:
    found = [{entry.variant: entry for entry in one.entries} for one in rankings]
    for place, name in enumerate(names):
        yield tuple(_meeting(column.get(name)) for column in found[:place])


def _meeting(entry: Entry | None) -> Meeting | None:
    if entry is not None and entry.verdict.status == "NONE":
        return Meeting("NONE", entry.verdict.mark, WORDS["NONE"], "–", "", entry.verdict.sentence)
    if entry is None or entry.finding is None:
        return None
    one, sums_up = entry.finding, entry.sums_up or entry.finding
    said = f"{sums_up.said} ({entry.by})" if entry.by else sums_up.said
    word = f"{WORDS[sums_up.status]} {sums_up.of}" if entry.of_another else WORDS[sums_up.status]
    return Meeting(sums_up.status, sums_up.mark, word, one.delta_text, one.interval_text, said)
