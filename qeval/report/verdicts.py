"""What a report says on top: each variant's verdict and the reason for it, in a sentence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from qeval.base.next_steps import not_yet
from qeval.base.records import Decision, Result
from qeval.base.rules import allowed_words, describe
from qeval.compare import margin
from qeval.compare.evidence import Evidence

WORST_FIRST = ("FAIL", "MISSING", "INCONCLUSIVE", "PASS")
MARKS: dict[str, str] = {
    "PASS": "✓",
    "FAIL": "✕",
    "INCONCLUSIVE": "?",
    "MISSING": "∅",
    "BROKEN": "!",
    "BASELINE": "●",
    **{str(status): mark for status, mark in margin.MARKS.items()},
    "NONE": "·",
}
WORDS = {
    "PASS": "Pass",
    "FAIL": "Fail",
    "INCONCLUSIVE": "Undecided",
    "MISSING": "Data missing",
    "BROKEN": "Did not run",
    "BASELINE": "Baseline",
    "WORSE": "Worse",
    "UNDECIDED": "Undecided",
    "MEASURABLE": "Measurable",
    "EQUIVALENT": "Equivalent",
    "BETTER": "Better",
    "NONE": "Nothing to compare",
}


_TOGETHER = {"FAIL": "failed", "MISSING": "could not be judged", "INCONCLUSIVE": "are undecided"}


@dataclass(frozen=True)
class Verdict:
    """A variant's verdict. `status` is a key of `MARKS` and `word` says it; `reasons` are the judged rules'
    sentences, the decisive ones first; `advice` those of advisory rules, which change no verdict. Of a
    variant that rules judged, `by` names the rule that decides, and `beside`
    what the margin alone would say."""

    variant: str
    status: str
    word: str
    sentence: str
    reasons: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()
    by: str = ""
    beside: str = ""

    @property
    def mark(self) -> str:
        """A sign that tells the verdict without colour."""
        return MARKS[self.status]


def verdict_of(result: Result, evidence: Evidence, decisions: Sequence[Decision]) -> Verdict:
    """The verdict on one variant: from the decisions on it, else what the evidence finds of it."""
    name = result.variant.name
    decisions = [one for one in decisions if one.variant == name]
    if result.status == "failed":
        return _plain(name, "BROKEN", result.error or "The variant failed without a message.")
    if name == evidence.run.baseline:
        return _plain(name, "BASELINE", "The others are compared with this one.")
    required = _worst_first(d for d in decisions if d.rule.tier == "required")
    if required:
        reasons = tuple(d.reason for d in required)
        advice = tuple(d.reason for d in decisions if d.rule.tier == "advisory")
        status = required[0].status
        by, beside = deciding(required, evidence.titles), beside_rules(evidence, name)
        return Verdict(name, status, WORDS[status], _judged(required), reasons, advice, by, beside)
    return _unjudged(result, evidence)


def deciding(worst_first: Sequence[Decision], titles: Mapping[str, str]) -> str:
    """The rule that a verdict comes from, and how many decide with it or are open beside it: "hellaswag,
    limit -1; and 2 more". Of a pass all rules do."""
    worst = worst_first[0]
    same = sum(one.status == worst.status for one in worst_first)
    if worst.status == "PASS" and same > 1:
        return f"all {same} rules"
    more = f"; and {same - 1} more" if same > 1 else ""
    beside = f"; and {undecided} more undecided" if (undecided := _open(worst_first)) else ""
    return f"{_limited(worst, titles)}{more}{beside}"


def _open(worst_first: Sequence[Decision]) -> int:
    """How many rules are undecided beside worse ones, which decide."""
    if worst_first[0].status == "INCONCLUSIVE":
        return 0
    return sum(one.status == "INCONCLUSIVE" for one in worst_first)


def _limited(one: Decision, titles: Mapping[str, str]) -> str:
    """A row and the limit on it, or that a check beside the rules decides."""
    name = titles.get(one.task, one.task.strip("()"))
    return f"{name}, limit {allowed_words(one.rule)}" if describe(one.rule) else f"{name}, a check"


def beside_rules(evidence: Evidence, name: str) -> str:
    """What the margin says of a variant that rules judged, labelled as such: it decides nothing."""
    found = evidence.finding(name)
    return f"By the margin, not the policy: {found.said}." if found else ""


def decisive(decisions: Sequence[Decision], variant: str) -> Decision | None:
    """The decision that a variant's verdict comes from; None where no rule judged it."""
    own = (one for one in decisions if one.variant == variant and one.rule.tier == "required")
    return next(iter(_worst_first(own)), None)


def _unjudged(result: Result, evidence: Evidence) -> Verdict:
    """The verdict where no rule concerns the variant."""
    name, found = result.variant.name, evidence.finding(result.variant.name)
    if result.stop is not None:
        return _plain(
            name, "FAIL", result.error or "Scoring stopped early, as a rule is certain to be broken."
        )
    if result.status == "stopped":
        return _plain(name, "MISSING", "Scoring stopped early, because of a rule about another baseline.")
    if found is None:
        why = evidence.refused.get(name) or _interrupted(result, evidence)
        return _plain(name, "NONE", why or "It has no task in common with the baseline.")
    return Verdict(name, found.status, capitalised(found.said), found.sentence)


def _interrupted(result: Result, evidence: Evidence) -> str:
    """That a run of qeval's own ended before the variant or its baseline was scored; "" where it did not."""
    open_ones = [one for one in (evidence.baseline, result) if one.status == "partial"]
    if not open_ones or evidence.run.source != "qeval":
        return ""
    name = open_ones[0].variant.name
    return capitalised(not_yet(name, "", evidence.standing_of(name)))


def _plain(name: str, status: str, sentence: str) -> Verdict:
    return Verdict(name, status, WORDS[status], sentence)


def capitalised(words: str) -> str:
    """The words as a sentence or a cell begins."""
    return words[:1].upper() + words[1:]


def _worst_first(decisions: Iterable[Decision]) -> list[Decision]:
    """Worst status first; among equals a proven culprit first, then what most items are needed to decide,
    else as they came."""
    return sorted(decisions, key=lambda d: (WORST_FIRST.index(d.status), not d.culprit, -_needed(d)))


def _needed(one: Decision) -> float:
    """How many more items would decide it: infinitely many where no number would; 0 where that is not asked,
    as of a limited run's good row."""
    if one.status != "INCONCLUSIVE" or one.comparison is None or one.allowed is None:
        return 0
    if one.items_needed_more is None:
        return 0 if one.comparison.low > -one.allowed else math.inf
    return one.items_needed_more


def _judged(decisions: Sequence[Decision]) -> str:
    """The decisive rule's own sentence, and how many rules stand beside it."""
    worst = decisions[0]
    same = sum(1 for d in decisions if d.status == worst.status)
    if worst.status == "PASS":
        if same == 1:
            return worst.reason
        return f"All {same} rules passed."
    beside = f" {same} of {len(decisions)} rules {_TOGETHER[worst.status]}." if same > 1 else ""
    undecided = _open(decisions)
    more = f" {undecided} more rule{' is' if undecided == 1 else 's are'} undecided." if undecided else ""
    return f"{worst.reason}{beside}{more}"
