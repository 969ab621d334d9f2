"""What is said beside a verdict, wherever it is printed: what was let pass, and what to be wary of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from qeval.base import numbers
from qeval.base.records import Comparison, Decision, Policy
from qeval.base.rules import describe
from qeval.compare import noise, stats
from qeval.compare.evidence import Evidence
from qeval.compare.pairs import UNPAIRED
from qeval.judge.checks import Doubt
from qeval.judge.matching import concerns, matches_some

NOTABLE = 0.01
"""The least gain that is worth a warning: a point, or a hundredth of a nat per word."""


def notes(
    evidence: Evidence, policy: Policy, decisions: Sequence[Decision], doubts: Sequence[Doubt]
) -> tuple[str, ...]:
    """The sentences, each once."""
    found = (
        *_forgiven(policy),
        *(f"Let pass by {one.allowed}: {one.variant}: {one.text}" for one in doubts if one.allowed),
        *_idle(evidence, policy, decisions),
        *_wary(decisions),
        *_toothless(decisions),
        *_improbable(evidence),
        *_filtered(evidence, decisions),
        *_noise(evidence),
        *_warnings(evidence),
    )
    return tuple(dict.fromkeys(found))


def _forgiven(policy: Policy) -> Iterator[str]:
    if policy.allow_limited:
        yield "Limited runs are allowed to pass (--allow-limited)."
    if policy.allow_inconclusive:
        yield "Undecided rules are let through (--allow-inconclusive)."


def _idle(evidence: Evidence, policy: Policy, decisions: Sequence[Decision]) -> Iterator[str]:
    """Rules that judge nothing, or not every variant."""
    names = [result.variant.name for result in evidence.candidates]
    ids = [row.id for row in evidence.rows]
    for number, rule in enumerate(policy.rules, 1):
        judged = {one.variant for one in decisions if one.rule == rule}
        where = f"Rule {number} ({describe(rule)})"
        rows = any(concerns(rule, row, ids) for row in evidence.rows)
        if not (rows and matches_some(rule.variants, names)):
            general = rule.tasks == rule.variants == "*"  # such as those that --max-drop brings with it
            if not (rule.required and rule.tier == "required") and not general:
                yield f"{where} concerns nobody in this run: {rule.tasks!r}, {rule.variants!r}."
        elif not judged:
            yield f"{where} judges nothing: later or more literal rules hold for all that it names."
        elif rule.variants == "*" and len(judged) < len(names):
            yield f"{where} does not judge {', '.join(name for name in names if name not in judged)}."


def _wary(decisions: Sequence[Decision]) -> Iterator[str]:
    comparisons = [one.comparison for one in decisions if one.comparison is not None]
    if any(one.limited for one in comparisons):
        yield "Limited run: not all items of every task were scored."
    if any(UNPAIRED in one.notes for one in comparisons):
        yield "Some scores were published without items: they are compared unpaired, with wider intervals."


def _toothless(decisions: Sequence[Decision]) -> Iterator[str]:
    """Limits that let a score of guessing through."""
    for one in decisions:
        comparison = one.comparison
        if comparison is None or one.allowed is None or comparison.kind != "accuracy":
            continue
        floor = comparison.chance or 0.0
        if one.rule.max_drop is not None and comparison.baseline - one.allowed <= floor:
            limit = numbers.as_written(one.rule.max_drop)
            reach = f"{numbers.points(floor)}, a score of guessing" if floor else "a score of nothing"
            yield f"The limit of {limit} points on {one.task} lets {reach}, through."


def _improbable(evidence: Evidence) -> Iterator[str]:
    """Candidates better than their baseline by more than noise, which quantisation hardly explains."""
    rows = {row.id for row in evidence.rows if row.headline}
    found = [one for one in evidence.comparisons if one.task in rows and one.p is not None]
    adjusted = stats.holm([one.p for one in found if one.p is not None]) if found else ()
    for one, p in zip(found, adjusted, strict=True):
        if one.delta >= NOTABLE and one.low > 0 and p <= 1 - one.confidence:
            better = f"{one.variant} is better than its baseline on {one.task}, by {_gain(one)}"
            yield f"{better}: are prompts, versions and weights what you think?"


def _filtered(evidence: Evidence, decisions: Sequence[Decision]) -> Iterator[str]:
    """By which metric and filter the tasks are judged whose answers go through one."""
    judged = {one.task for one in decisions}
    rows = [row for row in evidence.rows if row.id in judged and row.level in ("task", "pooled", "subtask")]
    named = [f"{row.id} ({row.judged_by})" for row in rows if any(task.filtered for task in row.members)]
    if named:
        yield f"Judged by the answers that a filter finds: {', '.join(named)}."


def _noise(evidence: Evidence) -> Iterator[str]:
    """The noise floor, and who is no further from the baseline than twice that. It decides nothing."""
    yield noise.sentence(evidence)
    for result in evidence.candidates:
        if words := noise.within_sentence(evidence, result.variant.name):
            yield f"{result.variant.name} is {words[0].lower()}{words[1:]}"


def _warnings(evidence: Evidence) -> Iterator[str]:
    """What is to be known of each variant. Of an import all that it said: what was left out, and why."""
    for result in (evidence.baseline, *evidence.candidates):
        made = result.provenance
        if made is not None:
            for note in (*made.warnings, *(made.notes if evidence.run.source != "qeval" else ())):
                yield f"{result.variant.name}: {note}"


def _gain(one: Comparison) -> str:
    if one.kind == "perplexity":
        return f"{numbers.ratio(one.delta)} of its perplexity"
    return f"{numbers.signed_points(one.delta)} points"
