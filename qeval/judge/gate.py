"""Rules and rows -> decisions, verdicts and the exit code: a pure function of what was measured.

A row passes where the worst loss that the interval still holds possible is allowed, fails where the
mildest is not, and is undecided otherwise (non-inferiority: Schuirmann 1987). A rule of one-sided
confidence c looks at the two-sided interval of level 2c - 1. All required rules must pass, which needs
no correction for their number (intersection-union: Berger 1982); the naming of culprits is Holm's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from qeval.base import next_steps
from qeval.base.errors import Exit, IncomparableError
from qeval.base.records import Decision, Policy, Result, Rule
from qeval.base.rules import describe
from qeval.base.text import one_line
from qeval.compare.averaging import why_not
from qeval.compare.evidence import Evidence
from qeval.compare.rows import Row, weights_of
from qeval.judge import fidelity
from qeval.judge.checks import doubts
from qeval.judge.deciding import decide, name_culprits
from qeval.judge.doubt import Doubt
from qeval.judge.excepted import exceptions_of, in_words
from qeval.judge.matching import check_limits, rules_for
from qeval.judge.notes import forgiven, invented, notes

NOT_JUDGED = "NOT JUDGED"
WORDS = {0: "PASS", 3: "FAIL", 4: "INCONCLUSIVE", 5: "MISSING"}
"""The verdict of all variants together, by exit code."""
_RANK = ("FAIL", "MISSING", "INCONCLUSIVE", "PASS")
_EXITS = {
    "FAIL": Exit.FAILED,
    "MISSING": Exit.MISSING,
    "INCONCLUSIVE": Exit.INCONCLUSIVE,
    "PASS": Exit.PASS,
}


@dataclass(frozen=True)
class Outcome:
    """What a gate found. `verdicts` gives every candidate FAIL, MISSING, INCONCLUSIVE, PASS or NOT JUDGED
    (no required rule concerns it); `unjudged` lists the tasks that some variant's rules do not cover; `notes`
    are sentences that must be printed wherever the verdict is; `forgiven` are those that the shortest output
    tells too: on what the policy let pass, and on invented numbers; `findings` says in a sentence what was
    found of each candidate without any rule. `model` (with its revision), `run` and `created` say what was
    judged; `titles` are the names of rows as people read them, by the ids that policies know. `invented` is
    whether the toy model answered; `exceptions` are what a PASS rests on beside the rules ("2 undecided"),
    and `excepted` the same of each variant that passes or is let pass, in words."""

    run: str
    created: str
    model: str
    suite: str
    baseline: str
    policy: Policy
    decisions: tuple[Decision, ...]
    verdicts: dict[str, str]
    exit: Exit
    unjudged: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    findings: Mapping[str, str] = field(default_factory=dict)
    forgiven: tuple[str, ...] = ()
    titles: Mapping[str, str] = field(default_factory=dict)
    invented: bool = False
    exceptions: tuple[str, ...] = ()
    excepted: Mapping[str, str] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """The verdict of all variants together in a word, with what a PASS owes to exceptions, and whether it
        is of invented numbers."""
        marks = (in_words(self.exceptions), "every number is invented" if self.invented else "")
        said = "; ".join(filter(None, marks))
        return WORDS[int(self.exit)] + (f" ({said})" if said else "")

    @property
    def headline(self) -> str:
        """The verdict, and what it is about: the first line of every output, whatever a name holds."""
        return one_line(f"{self.verdict}: {self.model}, {self.about}")

    @property
    def about(self) -> str:
        """What was judged: the run, its variants and the policy."""
        by = self.policy.source or "a policy"
        run = f"run {self.run} of {self.created or 'no known date'}"
        return f"{run}: {', '.join(self.verdicts)} against {self.baseline}, by {by}"


def judge(evidence: Evidence, policy: Policy) -> tuple[Decision, ...]:
    """Every rule applied to every row it concerns, of every candidate; variants and rows in their order.

    Of several rules with the same limit and tier that match a row, the one with the most literal names holds,
    and of those the last. A variant whose scoring was stopped for breaking a rule is never let through by
    rules that do not know of it.

    Raises:
        UsageError: a rule's limit means nothing for the rows that it names.
        IncomparableError: the run has no candidate.
    """
    run, names = evidence.run, [result.variant.name for result in evidence.candidates]
    if not names:
        raise IncomparableError(
            f"The run {run.id} has only {run.baseline}: there is nothing to compare it with.",
            "Score a second scheme, or name another run beside it: " + next_steps.gate_of_two(run.id, run),
        )
    check_limits(policy, evidence.rows)
    ids = [row.id for row in evidence.rows]
    decisions: list[Decision] = []
    for result in evidence.candidates:
        found = [
            _stopped(rule, result, row)
            or decide(
                rule,
                evidence.pairs.get((result.variant.name, row.id)),
                policy,
                title=row.title,
                margin=evidence.margin,
            )
            or Decision(rule, result.variant.name, row.id, "MISSING", _why_missing(evidence, result, row))
            for row in evidence.rows
            for rule in rules_for(policy, row, result.variant.name, ids, names)
        ]
        moved = fidelity.decisions(evidence.fidelity, policy, result.variant.name, names)
        decisions.extend(
            name_culprits([*found, *moved, *_stopped_by_others(evidence, result, found)], evidence.pairs)
        )
    return tuple(decisions)


def conclude(evidence: Evidence, policy: Policy) -> Outcome:
    """`judge`, the checks beside it, and everything that a person or a machine is told of both.

    Exit code 0 implies that each required rule passed for each variant, on whole and unlimited data of one
    model, or that each departure was allowed by name and is among the notes. Raises what `judge` raises.
    """
    judged = judge(evidence, policy)
    found = doubts(evidence, policy, judged)
    names = [result.variant.name for result in evidence.candidates]
    every = (*judged, *(_doubted(doubt) for doubt in found if not doubt.allowed))
    decisions = tuple(sorted(every, key=lambda one: names.index(one.variant)))
    nobody = {(one.variant, one.task) for one in found if one.task} - {(d.variant, d.task) for d in judged}
    status, code = verdicts(decisions, policy), exit_code(decisions, policy)
    return Outcome(
        run=evidence.run.id,
        created=evidence.run.created,
        model=_model_of(evidence),
        suite=evidence.run.suite.name,
        baseline=evidence.run.baseline,
        policy=policy,
        decisions=decisions,
        verdicts={name: status.get(name, NOT_JUDGED) for name in names},
        exit=code,
        unjudged=tuple(dict.fromkeys(doubt.task for doubt in found if (doubt.variant, doubt.task) in nobody)),
        notes=notes(evidence, policy, decisions, found),
        findings={
            name: f"{told.said}. {told.sentence}" for name in names if (told := evidence.finding(name))
        },
        forgiven=(*invented(evidence), *forgiven(policy, found)),
        titles=evidence.titles,
        invented=bool(invented(evidence)),
        exceptions=exceptions_of(decisions, found) if code == Exit.PASS else (),
        excepted={
            name: _excepted(name, decisions, found)
            for name in names
            if code == Exit.PASS or status.get(name) == "PASS"
        },
    )


def _excepted(name: str, decisions: Sequence[Decision], found: Sequence[Doubt]) -> str:
    """What a variant owes to exceptions, beside being let pass undecided; "" where it owes nothing to any."""
    mine = [one for one in decisions if one.variant == name]
    known = [one for one in mine if one.status != "INCONCLUSIVE"]
    others = exceptions_of(known, [one for one in found if one.variant == name])
    return in_words(others) or ("allowed" if len(known) < len(mine) else "")


def _doubted(doubt: Doubt) -> Decision:
    """A doubt as the decision that keeps its variant from passing."""
    return Decision(
        Rule(), doubt.variant, doubt.task or "(variant)", doubt.status, f"{doubt.variant}: {doubt.text}"
    )


def _model_of(evidence: Evidence) -> str:
    """The baseline's model with the revision that was loaded, and whether the others are proved to be it."""
    name = weights_of(evidence.baseline)
    return name if evidence.one_model else f"{name} (not proved to be one model)"


def verdicts(decisions: Sequence[Decision], policy: Policy) -> dict[str, str]:
    """For each variant with a required rule: FAIL if one failed, else MISSING if one could not be judged,
    else INCONCLUSIVE, else PASS."""
    del policy  # what it forgives changes the exit code, never a verdict
    found: dict[str, str] = {}
    for decision in decisions:
        if decision.rule.tier == "required":
            worst = (found.get(decision.variant, "PASS"), decision.status)
            found[decision.variant] = min(worst, key=_RANK.index)
    return found


def exit_code(decisions: Sequence[Decision], policy: Policy) -> Exit:
    """The exit code of all variants together: a certain FAIL first (no missing data could mend it), then
    missing data, then what is undecided. Nothing judged is missing data. `allow_inconclusive` forgives
    what is undecided, but not a limited run, which `allow_limited` alone can forgive, nor what a check found,
    which has its own option."""
    required = [decision for decision in decisions if decision.rule.tier == "required"]
    if not required:
        return Exit.MISSING
    worst = min((counts_as(decision, policy) for decision in required), key=_RANK.index)
    return _EXITS[worst]


def counts_as(decision: Decision, policy: Policy) -> str:
    """What a required decision counts as in the exit code: its status, PASS where the policy forgives it."""
    comparison = decision.comparison
    limited = comparison is not None and comparison.limited and not policy.allow_limited
    undecided = decision.status == "INCONCLUSIVE" and comparison is not None
    forgiven = undecided and policy.allow_inconclusive and not limited
    return "PASS" if forgiven else decision.status


# --- one rule on one row ------------------------------------------------------------------------


def _stopped(rule: Rule, result: Result, row: Row) -> Decision | None:
    """The FAIL of a variant whose scoring ended early because of this very rule (see qeval.judge.early)."""
    stop = result.stop
    if stop is None or stop.task != row.id or stop.rule != rule:
        return None
    after = f"after {stop.items} of {stop.of} items"
    reason = f"{row.title}: certain to break the rule ({describe(rule)}) {after}; scoring stopped there."
    return Decision(rule, result.variant.name, row.id, "FAIL", reason, culprit=True)


def _stopped_by_others(evidence: Evidence, result: Result, found: Sequence[Decision]) -> Iterator[Decision]:
    """What is missing of a variant that stopped for a rule which is none of those that judge it now."""
    stop = result.stop
    if stop is not None and not any(one.rule == stop.rule and one.task == stop.task for one in found):
        after = f"after {stop.items} of {stop.of} items"
        name = evidence.titles.get(stop.task, stop.task)
        reason = f"{name}: scoring stopped early {after}, as another rule ({describe(stop.rule)}) was broken."
        yield Decision(stop.rule, result.variant.name, stop.task, "MISSING", reason)


# --- what is said beside the verdict ------------------------------------------------------------


def _why_missing(evidence: Evidence, result: Result, row: Row) -> str:
    if result.stop is not None:
        name = evidence.titles.get(result.stop.task, result.stop.task)
        return f"{row.title}: not scored, as the variant was stopped early for {name}."
    for one in (evidence.baseline, result):
        if one.status == "failed":
            why = f" ({one.error})" if one.error else ""
            return f"{row.title}: {one.variant.name} failed{why}, so there is no result."
    waiting = ""
    for one in (evidence.baseline, result):
        name, open_ = one.variant.name, one.status == "partial" and evidence.run.source == "qeval"
        stands = evidence.standing_of(name) if open_ else next_steps.UNKNOWN
        scored = {cell.task.name for cell in one.cells if cell.n}
        kept = {task.name for task in stands.kept.get(name, ())}
        lacking = [task.name for task in row.members if task.name not in scored | kept]
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        if lacking and open_:
            return f"{row.title}: {next_steps.not_yet(name, f' on {lacking[0]}{more}', stands)}"
        if lacking:
            return f"{row.title}: {name} has no scored items of {lacking[0]}{more}."
        if kept and not waiting:
            waiting = "the run" if stands.state == "scored" else name
    if waiting:
        return f"{row.title}: scored, and judged once {waiting} is finished."
    why = why_not(row, evidence.rows) or "not all of its parts were scored"
    return f"{row.title}: {why}, so it is not judged."
