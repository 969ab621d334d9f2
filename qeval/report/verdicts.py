"""What a report says on top: each variant's verdict and the reason for it, in a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from qeval.base import numbers
from qeval.base.records import Comparison, Decision, Result
from qeval.compare.evidence import Evidence

Claims = Mapping[tuple[str, str], int]
"""What `evidence.claims` gives."""

WORST_FIRST = ("FAIL", "MISSING", "INCONCLUSIVE", "PASS")
MARKS = {
    "PASS": "✓",
    "FAIL": "✕",
    "INCONCLUSIVE": "?",
    "MISSING": "∅",
    "BROKEN": "!",
    "BASELINE": "●",
    "LOSS": "▼",
    "GAIN": "▲",
    "UNCLEAR": "≈",
    "NONE": "·",
}
WORDS = {
    "PASS": "Pass",
    "FAIL": "Fail",
    "INCONCLUSIVE": "Undecided",
    "MISSING": "Data missing",
    "BROKEN": "Did not run",
    "BASELINE": "Baseline",
    "LOSS": "A real loss",
    "GAIN": "A real gain",
    "UNCLEAR": "No change shown",
    "NONE": "Nothing to compare",
}


_TOGETHER = {"FAIL": "failed", "MISSING": "could not be judged", "INCONCLUSIVE": "are undecided"}


@dataclass(frozen=True)
class Verdict:
    """A variant's verdict. `status` is a key of `MARKS`; `reasons` are the judged rules' sentences,
    the decisive ones first; `advice` those of advisory rules, which change no verdict."""

    variant: str
    status: str
    sentence: str
    reasons: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()

    @property
    def mark(self) -> str:
        """A sign that tells the verdict without colour."""
        return MARKS[self.status]

    @property
    def word(self) -> str:
        """The verdict in words."""
        return WORDS[self.status]


def verdict_of(result: Result, evidence: Evidence, claimed: Claims, decisions: Sequence[Decision]) -> Verdict:
    """The verdict on one variant, from the decisions on it and what `claims` lets say of it."""
    name = result.variant.name
    decisions = [one for one in decisions if one.variant == name]
    if result.status == "failed":
        return Verdict(name, "BROKEN", result.error or "The variant failed and left no message.")
    if name == evidence.run.baseline:
        return Verdict(name, "BASELINE", "The others are compared with this one.")
    required = _worst_first(d for d in decisions if d.rule.tier == "required")
    if required:
        advice = tuple(d.reason for d in decisions if d.rule.tier == "advisory")
        return Verdict(name, required[0].status, _judged(required), tuple(d.reason for d in required), advice)
    if result.stop is not None:
        return Verdict(name, "FAIL", result.error or "Scoring stopped early: a rule is certainly broken.")
    if result.status == "stopped":
        return Verdict(name, "MISSING", "Scoring stopped early, for a rule about another baseline.")
    own = [one for one in evidence.comparisons if one.variant == name]
    return _described(name, own, claimed)


def _worst_first(decisions: Iterable[Decision]) -> list[Decision]:
    """Worst status first; among equals a proven culprit first, else as they came."""
    return sorted(decisions, key=lambda d: (WORST_FIRST.index(d.status), not d.culprit))


def _judged(decisions: Sequence[Decision]) -> str:
    """The decisive rule's own sentence, and how many rules stand beside it."""
    worst = decisions[0]
    same = sum(1 for d in decisions if d.status == worst.status)
    if worst.status == "PASS":
        if same == 1:
            return worst.reason
        return f"All {same} rules hold."
    beside = f" {same} of {len(decisions)} rules {_TOGETHER[worst.status]}." if same > 1 else ""
    return f"{worst.reason}{beside}"


def _described(name: str, comparisons: Sequence[Comparison], claimed: Claims) -> Verdict:
    """What can be said without a rule: the change on the row that sums the variant up, and if it is real."""
    told = _telling(comparisons, claimed)
    if told is None:
        return Verdict(name, "NONE", "It has no task in common with the baseline.")
    level = f"{numbers.percent(told.confidence, 0)} interval"
    if told.kind == "perplexity":
        change = f"perplexity {numbers.ratio(told.delta)}"
        around = numbers.interval_ratio(told.low, told.high)
    else:
        change = f"{numbers.signed_points(told.delta)} points"
        around = numbers.interval_points(told.low, told.high)
    status = {-1: "LOSS", 1: "GAIN"}.get(claimed.get((name, told.task), 0), "UNCLEAR")
    apart = told.high < 0 or told.low > 0
    chance = f" Among {len(claimed)} comparisons it may be chance." if apart and status == "UNCLEAR" else ""
    return Verdict(name, status, f"{told.task}: {change} ({level} {around}).{chance}")


def _telling(comparisons: Sequence[Comparison], claimed: Claims) -> Comparison | None:
    """The row that sums a variant up: the average if there is one, else the first task, else the first
    perplexity. Where nothing is claimed of that row, the surest loss of any other row goes before it: a
    variant that ruined one task may not read as unchanged."""
    order = ("average", "macro", "pooled", "task", "subtask")
    ranked = sorted(comparisons, key=lambda c: (c.kind == "perplexity", order.index(c.level)))
    if not ranked or claimed.get((ranked[0].variant, ranked[0].task)):
        return ranked[0] if ranked else None
    losses = [one for one in comparisons if claimed.get((one.variant, one.task)) == -1]
    return min(losses, key=lambda c: c.p or 0.0, default=ranked[0])
