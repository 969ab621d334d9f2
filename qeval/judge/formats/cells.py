"""What the gate's tables show of a decision: headings, cells, and the status in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from qeval.base import numbers
from qeval.base.records import Decision
from qeval.base.rules import allowed_words, describe, limit_of
from qeval.compare import wording
from qeval.judge import reasons
from qeval.judge.gate import Outcome

_OF = {"max_flips": " (flips)", "max_kl": " (KL)", "min_top1_agreement": " (top-1)"}
ORDER = ("FAIL", "MISSING", "INCONCLUSIVE", "PASS")


def in_rows(decisions: Sequence[Decision]) -> list[Decision]:
    """The decisions as a table has them: what a check found of a row that a required rule judged is no row of
    its own, which would be empty, but the worse status of that one."""
    rows: list[Decision] = []
    ruled: dict[tuple[str, str], int] = {}
    for one in decisions:
        at = ruled.get((one.variant, one.task)) if _checked(one) else None
        if at is None:
            if one.comparison is not None and one.rule.tier == "required":
                ruled.setdefault((one.variant, one.task), len(rows))
            rows.append(one)
        else:
            rows[at] = replace(rows[at], status=min(rows[at].status, one.status, key=ORDER.index))
    return rows


def _checked(one: Decision) -> bool:
    """Whether a check beside the rules found this, which has no numbers."""
    return one.comparison is None and not describe(one.rule)


def headers(outcome: Outcome) -> tuple[str, ...]:
    """The headings of a table of decisions."""
    levels = _levels(outcome)
    change = wording.heading(levels[0] if len(levels) == 1 else "")
    return ("variant", "task", outcome.baseline, "candidate", change, "allowed", "verdict")


def _levels(outcome: Outcome) -> list[str]:
    found = {one.comparison.confidence for one in outcome.decisions if one.comparison is not None}
    return [numbers.level(level) for level in sorted(found)]


def cells(outcome: Outcome, one: Decision) -> tuple[str, ...]:
    """A decision as a row of that table."""
    task = outcome.titles.get(one.task, one.task)
    name = f"{task}{_OF.get(limit_of(one.rule)[0], '') if describe(one.rule) else ''}"
    if one.comparison is None or one.allowed is None:
        allowed = allowed_words(one.rule) if describe(one.rule) else ""
        return (one.variant, name, "", "", "", allowed, status_words(one))
    text = reasons.shown(one.rule, one.comparison, one.allowed)
    change = f"{text.change} ({text.low} to {text.high})"
    return (one.variant, name, text.baseline, text.candidate, change, text.allowed, status_words(one))


def status_words(one: Decision) -> str:
    """The status with its tier and whether the row is a culprit: "FAIL, culprit", "FAIL (advisory)"."""
    culprit = ", culprit" if one.culprit else ""
    return one.status + culprit + (" (advisory)" if one.rule.tier == "advisory" else "")
