"""What a report ends with, or begins with: who lost least, and what would decide what is undecided."""

from __future__ import annotations

from collections.abc import Sequence

from qeval.base.names import in_a_sentence
from qeval.base.records import Decision
from qeval.compare import wording
from qeval.judge.deciding import need
from qeval.judge.enough import need_by_margin
from qeval.report.ranking import Entry, Ranking
from qeval.report.verdicts import decisive

_MOST = 4
"""Undecided variants that are told of one by one."""


def closing(table: Ranking, decisions: Sequence[Decision]) -> tuple[str, ...]:
    """Sentences: who lost least as measured, where there are several to choose from, and how many items would
    decide each undecided variant, in the order of the table."""
    return tuple(filter(None, (least(table), _undecided(table, decisions))))


def least(table: Ranking) -> str:
    """Who lost least on the row that the table is of. A measured order proves nothing, and this says so."""
    known = [(entry, entry.finding) for entry in table.entries if entry.finding is not None]
    if len(known) < 2:  # noqa: PLR2004 - one has nobody to be compared with
        return ""
    most = max(found.comparison.delta for _, found in known)
    best = [(entry, found) for entry, found in known if found.comparison.delta == most]
    names = in_a_sentence([entry.short for entry, _ in best])
    (first, found), alone = best[0], len(best) == 1
    where = "on average" if found.comparison.level == "average" else f"on {found.name}"
    change = wording.named(found.comparison, found.kept)
    verdict = f" ({_verdict(first)})" if alone else ""
    what = "Least lost" if most < 0 else "Best"
    return (
        f"{what} {where}, as measured: {names}, {change}{verdict}. "
        "This does not prove that another variant lost more."
    )


def _verdict(entry: Entry) -> str:
    """Its verdict in a sentence, without the row that was just named."""
    found = entry.sums_up
    if found is None or found.status != entry.verdict.status:
        return entry.verdict.word.lower()
    return found.said if entry.of_another else found.words


def _undecided(table: Ranking, decisions: Sequence[Decision]) -> str:
    found = [entry for entry in table.entries if entry.verdict.status in ("UNDECIDED", "INCONCLUSIVE")]
    alike: dict[str, list[str]] = {}
    for entry in found[:_MOST]:
        alike.setdefault(_why(entry, decisions), []).append(entry.short)
    if not alike:
        return ""
    told = ", ".join(f"{in_a_sentence(names)} ({why})" for why, names in alike.items())
    more = f" and {len(found) - _MOST} more" if len(found) > _MOST else ""
    counted = " Numbers of items are for this Δ and churn." if "needs about" in told else ""
    return f"Undecided: {told}{more}.{counted}"


def _why(entry: Entry, decisions: Sequence[Decision]) -> str:
    """What a variant is undecided on, and what would decide that."""
    if entry.verdict.status == "INCONCLUSIVE":
        return "; ".join(filter(None, (entry.verdict.by, _of_rules(entry, decisions))))
    found = entry.sums_up
    if found is None or found.missing:
        return f"{', '.join(found.missing)} not scored" if found else ""
    return "; ".join(filter(None, (found.of, need_by_margin(found))))


def _of_rules(entry: Entry, decisions: Sequence[Decision]) -> str:
    """What would decide the rule that a verdict comes from; "" of a check."""
    worst = decisive(decisions, entry.variant)
    if worst is None or worst.comparison is None or worst.allowed is None:
        return ""
    if worst.comparison.low > -worst.allowed:
        return "good on a part of the items, and only all of them decide it"
    return need(worst.comparison, worst.items_needed_more)
