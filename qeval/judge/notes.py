"""What is said beside a verdict, wherever it is printed: what was let pass, and what to be wary of."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from qeval.base import numbers
from qeval.base.invented import INVENTED
from qeval.base.records import Decision, Policy, Rule, Samples
from qeval.base.rules import allowed_words, describe
from qeval.compare import averaging, noise, stats, wording
from qeval.compare.evidence import Evidence
from qeval.compare.pairs import UNPAIRED
from qeval.compare.rows import summary_rows
from qeval.judge import fidelity, floor
from qeval.judge.doubt import Doubt
from qeval.judge.matching import concerns, is_named, matches_some, only_perplexities

_LEAST_CONFIDENCE, _MANY_FLIPS, _GREAT_RATIO = 0.8, 0.5, 2.0
_FEW_DOCUMENTS = 10
_FEWSHOT = "--num-fewshot"
_SURE = 1.645
"""Standard errors within which 95 % of scores of guessing lie, from above."""
NOTABLE = 0.01
"""The least gain that is worth a warning: a point, or a hundredth of a nat per word."""


def notes(
    evidence: Evidence, policy: Policy, decisions: Sequence[Decision], doubts: Sequence[Doubt]
) -> tuple[str, ...]:
    """The sentences, each once."""
    found = (
        *invented(evidence),
        *forgiven(policy, doubts),
        *evidence.unfinished,
        *averaging.sentences(evidence.run),
        *_idle(evidence, policy, decisions),
        *(
            f"--ungated {pattern} matches no task in this run."
            for pattern in policy.ungated
            if not matches_some(pattern, [row.id for row in evidence.rows])
        ),
        *_wary(decisions),
        *_toothless(decisions, evidence.titles),
        *_other_prompts(evidence),
        *_quantised_baseline(evidence),
        *_no_better_than_guessing(evidence, {one.task for one in decisions}),
        *_few_documents(decisions, evidence.titles),
        *_improbable(evidence),
        *_repeating(evidence),
        *_filtered(evidence, decisions),
        *_noise(evidence),
        *floor.of_gate(decisions, evidence),
        *(
            f"What was measured of fidelity is damaged and left out: {one}"
            for one in evidence.fidelity.damaged
        ),
        *_warnings(evidence),
    )
    return tuple(dict.fromkeys(found))


def of_baseline(evidence: Evidence) -> tuple[str, ...]:
    """What makes the baseline a poor one to be compared with: it is quantised, or guesses."""
    rows = {row.id for row in summary_rows(evidence.rows)}
    found = (*_quantised_baseline(evidence), *_no_better_than_guessing(evidence, rows))
    return tuple(dict.fromkeys(found))


def invented(evidence: Evidence) -> tuple[str, ...]:
    """The toy's own sentence, where any variant was answered by it: no verdict may be read without it."""
    made = [result.provenance for result in (evidence.baseline, *evidence.candidates)]
    return (INVENTED,) if any(one is not None and INVENTED in one.notes for one in made) else ()


def forgiven(policy: Policy, doubts: Sequence[Doubt]) -> tuple[str, ...]:
    """The sentences on what the policy lets pass, each once: those that no output may leave out."""
    found = [
        *(["Limited runs are allowed to pass (--allow-limited)."] if policy.allow_limited else []),
        *(
            ["Undecided rules are allowed to pass (--allow-inconclusive)."]
            if policy.allow_inconclusive
            else []
        ),
        *(f"Allowed by {one.allowed}: {one.variant}: {one.text}" for one in doubts if one.allowed),
    ]
    return tuple(dict.fromkeys(found))


def _idle(evidence: Evidence, policy: Policy, decisions: Sequence[Decision]) -> Iterator[str]:
    """Rules that judge nothing, or not every variant."""
    names = [result.variant.name for result in evidence.candidates]
    ids = [row.id for row in evidence.rows]
    for number, rule in enumerate(policy.rules, 1):
        judged = {one.variant for one in decisions if one.rule == rule}
        where = f"Rule {number} ({describe(rule)})"
        rows = any(concerns(rule, row, ids) for row in evidence.rows)
        rows = rows or bool(fidelity.named(rule, evidence.fidelity.protocols))
        if only_perplexities(rule, policy, evidence.rows):
            yield f"{where} has nothing to judge: all tasks in this run are perplexities."
        elif not rows and fidelity.is_about(rule):
            if not (rule.required and rule.tier == "required"):
                yield f"{where} is about fidelity, {fidelity.lacking(rule, evidence.fidelity)}"
        elif not (rows and matches_some(rule.variants, names)):
            general = rule.tasks == rule.variants == "*"  # such as those that --max-drop brings with it
            if not (rule.required and rule.tier == "required") and not general:
                yield f"{where} applies to nothing in this run: {rule.tasks!r}, {rule.variants!r}."
        elif not judged:
            yield f"{where} judges nothing: later or more specific rules apply to everything it names."
        elif others := [n for n in names if is_named(n, rule.variants, names) and n not in judged]:
            yield f"{where} does not judge {', '.join(others)}: other rules apply there."


def _wary(decisions: Sequence[Decision]) -> Iterator[str]:
    comparisons = [one.comparison for one in decisions if one.comparison is not None]
    if any(one.limited for one in comparisons):
        yield "Limited run: not all items of every task were scored."
    if any(UNPAIRED in one.notes for one in comparisons):
        yield "Some scores were published without items: they are compared unpaired, with wider intervals."


def _toothless(decisions: Sequence[Decision], titles: Mapping[str, str]) -> Iterator[str]:
    """Limits that let a score of guessing through, and confidences that let nearly everything."""
    for one in decisions:
        comparison, allowed = one.comparison, one.allowed
        if comparison is None or allowed is None or fidelity.is_about(one.rule):
            continue
        name = titles.get(one.task, one.task)
        if one.rule.confidence < _LEAST_CONFIDENCE:
            sure = one.rule.confidence
            rest = numbers.percent(1 - sure, 0)
            decided = f"{name} is decided at a confidence of {numbers.percent(sure, 0)}"
            yield f"{decided}: what is too bad may pass {rest} of the time."
        floor = comparison.chance or 0.0
        if one.rule.max_flips is not None and allowed >= _MANY_FLIPS:
            share = numbers.percent(allowed, 0)
            yield f"The limit of {share} flips on {name} lets half of the answers change."
        elif comparison.kind == "perplexity" and allowed >= math.log(_GREAT_RATIO):
            yield f"The limit of {allowed_words(one.rule)} on {name} lets the perplexity double."
        elif comparison.kind != "perplexity" and comparison.baseline - allowed <= floor:
            who = f"only guesses ({numbers.points(floor)})" if floor else "scores 0"
            yield f"With the limit of {_limit(one.rule)} on {name}, a model that {who} would pass."


def _limit(rule: Rule) -> str:
    return describe(rule) if rule.max_drop is None else f"{allowed_words(rule)} points"


def _improbable(evidence: Evidence) -> Iterator[str]:
    """Candidates better than their baseline by more than noise, which quantisation hardly explains."""
    rows = {row.id for row in evidence.rows if row.headline}
    found = [one for one in evidence.comparisons if one.task in rows and one.p is not None]
    adjusted = stats.holm([one.p for one in found if one.p is not None]) if found else ()
    for one, p in zip(found, adjusted, strict=True):
        if one.delta >= NOTABLE and one.low > 0 and p <= 1 - one.confidence:
            name, gain = evidence.titles.get(one.task, one.task), wording.named(one)
            better = f"{one.variant} is better than its baseline on {name} ({gain})"
            yield f"{better}: are the prompts, versions and weights what you think they are?"


def _other_prompts(evidence: Evidence) -> Iterator[str]:
    """Suites that were asked with another number of examples than they say."""
    for run in evidence.joined or (evidence.run,):
        words = (word.partition("=")[0] for word in run.command)
        shots = {task.num_fewshot for task in run.suite.tasks}
        if _FEWSHOT in words and len(shots) == 1:
            yield (
                f"{run.suite.name} was asked with {shots.pop()} examples in each prompt ({_FEWSHOT}), not its"
                " own."
            )


_NOT_QUANTISED = frozenset({"fp32", "bf16", "fp16", "imported", "published"})
"""The kinds of schemes that quantise nothing, or of which nobody knows whether they do."""


def _quantised_baseline(evidence: Evidence) -> Iterator[str]:
    """A baseline that is itself quantised, as where schemes were typed in another order than meant."""
    made, name = evidence.baseline.provenance, evidence.baseline.variant.name
    known = made is not None and bool(made.linears or made.modules or made.quantization)
    plain = made is not None and made.quantization.get("scheme") in _NOT_QUANTISED  # as the toy tells it
    found = made is not None and bool(
        made.modules or made.quantised_share or (made.quantization and not plain)
    )
    if found or not (known or evidence.baseline.variant.scheme.kind in _NOT_QUANTISED):
        yield f"The baseline, {name}, is itself quantised: what it lost is seen in no variant."


def _no_better_than_guessing(evidence: Evidence, judged: Collection[str]) -> Iterator[str]:
    """Rows on which the baseline's score may be that of guessing: little can be lost there."""
    for one in evidence.comparisons:
        chance, name = one.chance, evidence.titles.get(one.task, one.task)
        if one.task not in judged or one.kind != "accuracy" or not chance or one.level == "subtask":
            continue
        above, apart = one.baseline - chance, _SURE * math.sqrt(chance * (1 - chance))
        score, guessing = numbers.points(one.baseline), numbers.points(chance)
        told = (
            f"{evidence.baseline.variant.name}, the baseline, scores {score} on {name}, where guessing scores"
        )
        if above <= apart / math.sqrt(max(1, one.n)):
            yield f"{told} {guessing}: little can be lost there, whatever a scheme does."
        elif above <= apart / math.sqrt(max(1, one.texts or one.n)):
            texts = "one text stands" if one.texts == 1 else f"{numbers.count(one.texts)} texts stand"
            yield f"{told} {guessing}; {texts} behind all items: too little to tell the two apart."


def _few_documents(decisions: Sequence[Decision], titles: Mapping[str, str]) -> Iterator[str]:
    """Perplexities that so few documents decided that one odd document more could decide otherwise."""
    for one in decisions:
        found = one.comparison
        if found is not None and found.kind == "perplexity" and found.n < _FEW_DOCUMENTS:
            documents = f"{found.n} document{'' if found.n == 1 else 's'}"
            name = titles.get(one.task, one.task)
            yield f"{name} is decided by {documents}: how others differ is not seen."


def _repeating(evidence: Evidence) -> Iterator[str]:
    """Candidates that say in everything what the baseline says, where no log-likelihoods could tell them
    apart. That alone proves nothing: 8 bits often change no answer of a small task."""
    for result in evidence.candidates:
        name = result.variant.name
        answers = [pair for (variant, _), pair in evidence.samples.items() if variant == name]
        texts = [
            pair for pair in answers if not any(map(len, pair[0].scores)) and np.any(pair[0].answer != "")
        ]
        if texts and len(texts) == len(answers) and all(_same_answers(*pair) for pair in texts):
            n = numbers.count(sum(len(first) for first, _ in texts))
            yield f"{name} gives exactly the baseline's answers to all {n} items: is this the same model?"
        cells = {cell.task.name: cell.score for cell in evidence.baseline.cells if cell.aggregate_only}
        scores = {cell.task.name: cell.score for cell in result.cells if cell.aggregate_only}
        if scores and scores == cells:
            tasks = "the one task" if len(scores) == 1 else f"all {len(scores)} tasks"
            yield f"{name} has exactly the baseline's scores on {tasks}: is this the same model?"


def _same_answers(first: Samples, second: Samples) -> bool:
    return bool(np.array_equal(first.answer, second.answer) and np.array_equal(first.value, second.value))


def _filtered(evidence: Evidence, decisions: Sequence[Decision]) -> Iterator[str]:
    """By which metric and filter the tasks are judged whose answers go through one."""
    judged = {one.task for one in decisions}
    rows = [row for row in evidence.rows if row.id in judged and row.level in ("task", "pooled", "subtask")]
    named = [f"{row.title} ({row.judged_by})" for row in rows if any(task.filtered for task in row.members)]
    if named:
        yield f"Judged by the answers that a filter extracts: {', '.join(named)}."


def _noise(evidence: Evidence) -> Iterator[str]:
    """The noise floor, and who is no further from the baseline than twice that. It decides nothing."""
    yield noise.sentence(evidence)
    for result in evidence.candidates:
        if near := noise.near(evidence, result.variant.name):
            yield f"{result.variant.name} is {near.where[0].lower()}{near.where[1:]} {near.caveat}"


def _warnings(evidence: Evidence) -> Iterator[str]:
    """What is to be known of each variant. Of an import all that it said: what was left out, and why."""
    for result in (evidence.baseline, *evidence.candidates):
        made = result.provenance
        if made is not None:
            for note in (*made.warnings, *(made.notes if evidence.run.source != "qeval" else ())):
                yield f"{result.variant.name}: {note}"
