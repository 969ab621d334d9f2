"""What must hold beside the rules before a variant may pass, one check each.

A rule that passes proves its loss small on the items there are. The checks ask whether these items are
those of one model's two variants, whole, and whether the rules cover what was scored. A check yields a
Doubt for each thing that it cannot vouch for; what the policy allows by name is told and lets pass, all
else is MISSING, or where data cannot mend it INCONCLUSIVE.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from qeval.base import numbers
from qeval.base.errors import did_you_mean
from qeval.base.next_steps import UNKNOWN, UNPROVED, names_model, not_yet
from qeval.base.places import tasks_dir
from qeval.base.records import ENOUGH_QUANTISED, Decision, Policy, Result, Samples
from qeval.base.rules import describe
from qeval.compare.conditions import of_variants
from qeval.compare.evidence import Evidence
from qeval.compare.pairs import known_of_one
from qeval.compare.rows import cell_of, same_model, weights_of
from qeval.judge import fidelity
from qeval.judge.doubt import Doubt
from qeval.judge.losing import something_can_be_lost
from qeval.judge.matching import concerns, is_named, matches_some, only_perplexities, unnamed

_NAMED = "if it is one, import again with the same model named for both (in a column model)"
_KNOWN = "if you know that it is one"


_SHOWN = 3
Check = Callable[[Evidence, Policy, Sequence[Decision]], Iterator[Doubt]]


def every_task_is_judged(
    evidence: Evidence, policy: Policy, decisions: Sequence[Decision]
) -> Iterator[Doubt]:
    """Each task of the suite, and each that was scored, is judged by a required rule for each variant.

    A group is judged by any of its rows; members of groups need no rule of their own.
    """
    judged = {(one.variant, one.task) for one in decisions if one.rule.tier == "required"}
    ids = [row.id for row in evidence.rows]
    for result in evidence.candidates:
        for row in (row for row in evidence.rows if row.headline):
            alike = [one.id for one in evidence.rows if one.level == "macro" and one.members == row.members]
            if any((result.variant.name, one) in judged for one in (row.id, *alike)):
                continue
            excepted = any(is_named(row.id, pattern, ids) for pattern in policy.ungated)
            text = f"{row.id} is judged by no required rule: add one, or exempt it with --ungated {row.id}."
            yield Doubt(result.variant.name, text, row.id, "--ungated" if excepted else "")


def every_rule_concerns_somebody(
    evidence: Evidence, policy: Policy, decisions: Sequence[Decision]
) -> Iterator[Doubt]:
    """Each required rule concerns a row of a candidate; where one does not, every candidate is in doubt."""
    del decisions
    names = [result.variant.name for result in evidence.candidates]
    ids = [row.id for row in evidence.rows]
    absent = []
    for number, rule in enumerate(policy.rules, 1):
        protocols = evidence.fidelity.protocols
        tasks = any(concerns(rule, row, ids) for row in evidence.rows)
        rows = tasks or bool(fidelity.named(rule, protocols))
        if only_perplexities(rule, policy, evidence.rows) or rule.tier != "required" or not rule.required:
            continue
        lacking = "" if tasks else fidelity.lacking(rule, evidence.fidelity)
        if rows and not lacking and matches_some(rule.variants, names):
            continue
        what, known = (rule.variants, names) if rows else (rule.tasks, [*ids, *protocols])
        if lacking:
            text = f"rule {number} ({describe(rule)}) is about fidelity, {lacking}"
            yield from (Doubt(name, text) for name in names)
            continue
        if not rows and _suite_of(policy):
            absent.append(what)
            continue
        lacking, meant = (
            (repr(what), did_you_mean(what, known)) if rows else unnamed(rule, evidence.rows, protocols)
        )
        text = f"rule {number} ({describe(rule)}) applies to nothing: this run has no {lacking}. "
        text += f"{meant} {_way_out(policy)}".strip()
        yield from (Doubt(name, text) for name in names)
    if absent:
        text = f"this run has no {', '.join(absent)}. That policy is for the suite {_suite_of(policy)}: "
        text += "judge this run with qeval gate --max-drop 1.0."
        yield from (Doubt(name, text) for name in names)


def _suite_of(policy: Policy) -> str:
    """The suite for which a policy comes with qeval; "" of another policy."""
    source = Path(policy.source)
    return source.stem if source.parent == tasks_dir() / "policies" else ""


def _way_out(policy: Policy) -> str:
    """What to do about a rule that nothing is under, by where the rules stand."""
    if policy.source.startswith("--"):
        return "Name something that the run has, or leave that limit out."
    return "Name something that the run has, or write required = false under the rule."


def one_model(evidence: Evidence, policy: Policy, decisions: Sequence[Decision]) -> Iterator[Doubt]:
    """Baseline and candidate are variants of one model, as far as is recorded."""
    del decisions
    base = evidence.baseline
    again = f"{_NAMED}, or pass" if names_model(evidence.run) else f"{_KNOWN}, pass"
    for result in evidence.candidates:
        if same_model(base, result):
            continue
        models = f"{weights_of(result, files=True)} and the baseline's {weights_of(base, files=True)}"
        if evidence.run.source == "qeval":
            option, lets = "--allow-different-models", policy.allow_different_models
            text, remedy = f"the models differ, {models}", "name runs of one model, or pass"
        elif result.variant.model or base.variant.model:
            option, lets = UNPROVED, policy.allow_unproved_model
            text, remedy = f"not proved to be one model, {models}", again
        else:
            option, lets = UNPROVED, policy.allow_unproved_model
            text, remedy = "not proved to be of the baseline's model, as neither names its model", again
        ending = "" if lets else f": {remedy} {option}"
        yield Doubt(result.variant.name, f"{text}{ending}.", allowed=option if lets else "")


def not_the_baseline_again(
    evidence: Evidence, policy: Policy, decisions: Sequence[Decision]
) -> Iterator[Doubt]:
    """In each task some number of the candidate differs from the baseline's by more than rounding: two
    schemes never give the same log-likelihoods for all items of a task, while equal answers are common."""
    del decisions
    allowed = "--allow-identical" if policy.allow_identical else ""
    for result in evidence.candidates:
        name = result.variant.name
        found = {
            task: (len(first), equal)
            for (variant, task), (first, second) in evidence.samples.items()
            if variant == name and (equal := _equal_numbers(first, second)) is not None
        }
        same = [task for task, (_, equal) in found.items() if equal]
        if same:
            n = numbers.count(sum(found[task][0] for task in same))
            where = f" of {_listed(same)}" if len(same) < len(found) else ""
            exact = all(_equal_numbers(*evidence.samples[name, task], 0.0) for task in same)
            alike = "the same numbers" if exact else "the same numbers, but for rounding,"
            text = f"{alike} as the baseline on all {n} items{where}: is this the same model?"
            yield Doubt(name, f"{text} If this is intended, pass --allow-identical.", allowed=allowed)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


_ROUNDING = 1e-4
"""Nats by which log-likelihoods of one model may differ that are fed in another order, in float32; those of
two schemes differ by hundreds of times as much in some item."""


def _equal_numbers(first: Samples, second: Samples, rounding: float = _ROUNDING) -> bool | None:
    """Whether all log-likelihoods of a task are equal; None where there are none to compare."""
    if any(map(len, first.scores)):
        if any(len(one) != len(two) for one, two in zip(first.scores, second.scores, strict=True)):
            return False
        one, two = (np.concatenate([np.asarray(row, float) for row in of.scores]) for of in (first, second))
        return bool(np.allclose(one, two, rtol=0, atol=rounding))
    if np.all(first.value <= 0) and np.any(first.value < 0):  # log-likelihoods of documents
        return bool(np.allclose(first.value, second.value, rtol=0, atol=rounding))
    return None


def every_variant_is_whole(
    evidence: Evidence, policy: Policy, decisions: Sequence[Decision]
) -> Iterator[Doubt]:
    """Each variant, the baseline too, was scored to its end, or is known to be missing something."""
    del policy
    bad = {
        one.variant for one in decisions if one.rule.tier == "required" and one.status in ("FAIL", "MISSING")
    }
    for result in evidence.candidates:
        broken = [one for one in (evidence.baseline, result) if one.status != "done"]
        if broken and result.variant.name not in bad:
            yield Doubt(result.variant.name, _why_not_whole(evidence, broken[0]))


def _why_not_whole(evidence: Evidence, result: Result) -> str:
    name = result.variant.name
    if result.status == "failed":
        return f"{name} failed: {result.error}" if result.error else f"{name} failed, so it has no result."
    stands = evidence.standing_of(name) if result.status == "partial" else UNKNOWN
    why = not_yet(name, "", stands) if stands.state else "run the same command again."
    return f"{name} was not fully scored: {why}"


def every_cell_is_proved(
    evidence: Evidence, policy: Policy, decisions: Sequence[Decision]
) -> Iterator[Doubt]:
    """Nothing is left unproved of a cell, the baseline's too, and what is known of one is known of both."""
    del decisions
    ids = [row.id for row in evidence.rows]
    base = evidence.baseline
    groups = {cell.task.name: cell.task.group or cell.task.name for cell in base.cells}
    for result in evidence.candidates:
        found = [
            (cell.task.group or cell.task.name, said.rstrip("."))
            for cell in (*base.cells, *result.cells)
            for said in cell.unproved
        ]
        for task, said in (*of_variants(base, result), *_cut_otherwise(base, result)):
            found.append((groups[task], said.rstrip(".")))
        for task, what in known_of_one(base, result):
            names = f"{base.variant.name} or {result.variant.name}"
            found.append((groups[task], f"{what} of {task} is recorded for {names} alone: it may differ"))
        for task, said in dict.fromkeys(found):
            excepted = any(is_named(task, pattern, ids) for pattern in policy.ungated)
            text = f"{said}. Settle it, or exempt the task with --ungated {task}."
            yield Doubt(result.variant.name, text, task, "--ungated" if excepted else "")


def _cut_otherwise(base: Result, result: Result) -> Iterator[tuple[str, str]]:
    """Tasks of which not as many contexts of the one as of the other were cut to fit, and what that means:
    hashes are of texts before they are cut, so they do not tell."""
    for cell in base.cells:
        other = cell_of(result, cell.task)
        if other is not None and cell.truncated != other.truncated:
            counts = [numbers.count(one.truncated) for one in (cell, other)]
            said = (
                f"contexts of {cell.task.name} were cut to fit {counts[0]} times for {base.variant.name} and"
            )
            said += f" {counts[1]} times for {result.variant.name}: they were not shown the same"
            yield cell.task.name, said


def weights_are_quantised(
    evidence: Evidence, policy: Policy, decisions: Sequence[Decision]
) -> Iterator[Doubt]:
    """Most weights of a candidate are held as its scheme says: a small loss proves nothing of a scheme that
    left them plain."""
    del decisions
    allowed = "--allow-unquantised" if policy.allow_unquantised else ""
    for result in evidence.candidates:
        made = result.provenance
        if made is not None and made.quantised_share is not None and made.mostly_plain:
            share = numbers.percent(made.quantised_share, 0, (ENOUGH_QUANTISED,))
            text = f"only {share} of the weights are quantised, not counting embeddings and head: what was"
            text += " measured is mostly the plain model. If you ship it like this, pass --allow-unquantised."
            yield Doubt(result.variant.name, text, allowed=allowed, status="INCONCLUSIVE")


CHECKS: tuple[Check, ...] = (
    every_variant_is_whole,
    every_cell_is_proved,
    every_task_is_judged,
    every_rule_concerns_somebody,
    one_model,
    not_the_baseline_again,
    something_can_be_lost,
    weights_are_quantised,
)


def doubts(evidence: Evidence, policy: Policy, decisions: Sequence[Decision]) -> tuple[Doubt, ...]:
    """What the checks found, in their order."""
    return tuple(doubt for check in CHECKS for doubt in check(evidence, policy, decisions))
