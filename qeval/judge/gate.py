"""Rules and rows -> decisions, verdicts and the exit code: a pure function of what was measured.

A row passes where the worst loss that the interval still holds possible is allowed, fails where the
mildest is not, and is undecided otherwise (non-inferiority: Schuirmann 1987). A rule of one-sided
confidence c looks at the two-sided interval of level 2c - 1. All required rules must pass, which needs
no correction for their number (intersection-union: Berger 1982); the naming of culprits is Holm's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from statistics import NormalDist

from qeval.base.errors import Exit, IncomparableError, UsageError, did_you_mean
from qeval.base.records import Comparison, Decision, Kind, Level, Policy, Read, Result, Rule, Run, Verdict
from qeval.base.rules import describe, limit_of
from qeval.compare import pairs as compare
from qeval.compare import stats
from qeval.compare.pairs import AVERAGE, MACRO, Pairs
from qeval.judge import reasons

POWER = 0.8
"""The probability with which the number of items named beside an undecided rule would decide it."""
NOT_JUDGED = "NOT JUDGED"
_RANK = ("FAIL", "MISSING", "INCONCLUSIVE", "PASS")
_EXITS = {
    "FAIL": Exit.FAILED,
    "MISSING": Exit.MISSING,
    "INCONCLUSIVE": Exit.INCONCLUSIVE,
    "PASS": Exit.PASS,
}
_MOST_ITEMS = 10_000_000


@dataclass(frozen=True)
class Row:
    """A row that a run should have, whether or not everything behind it is there."""

    task: str
    metric: str
    kind: Kind
    level: Level


@dataclass(frozen=True)
class Outcome:
    """What a gate found. `verdicts` gives every candidate FAIL, MISSING, INCONCLUSIVE, PASS or NOT JUDGED
    (no required rule concerns it); `unjudged` lists the tasks of the suite that no rule looked at;
    `notes` are sentences that must be printed wherever the verdict is."""

    run: str
    suite: str
    baseline: str
    policy: Policy
    decisions: tuple[Decision, ...]
    verdicts: dict[str, str]
    exit: Exit
    unjudged: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def judge(run: Run, read: Read, policy: Policy, *, baseline: str | None = None) -> tuple[Decision, ...]:
    """Every rule applied to every row it concerns, of every candidate; variants and rows in run order.

    Of several rules with the same limit and tier that match a row, the last holds.

    Raises:
        UsageError: a rule matches no row or no variant of the run, or its limit means nothing there.
        IncomparableError: the run has no candidate, or its variants were not asked the same.
        QevalError: a value is not a finite number.
    """
    base = compare.find_baseline(run, baseline)
    candidates = [result for result in run.results if result is not base]
    if not candidates:
        raise IncomparableError(
            f"The run {run.id} has only {base.variant.name}: there is nothing to compare it with.",
            "Score a second scheme, or name another run beside it.",
        )
    rows = expected_rows(run)
    check_rules(policy, rows, [result.variant.name for result in candidates])
    pairs = {(pair.variant, pair.task): pair for pair in compare.pair(run, read, baseline=baseline)}
    decisions: list[Decision] = []
    for result in candidates:
        found = [
            _stopped(rule, result, row)
            or _decide(rule, pairs.get((result.variant.name, row.task)), policy)
            or Decision(rule, result.variant.name, row.task, "MISSING", _why_missing(run, base, result, row))
            for row in rows
            for rule in rules_for(policy, row, result.variant.name)
        ]
        decisions.extend(_name_culprits(found, pairs))
    return tuple(decisions)


def conclude(run: Run, read: Read, policy: Policy, *, baseline: str | None = None) -> Outcome:
    """`judge`, with everything that a person or a machine is told about it. Raises what `judge` raises."""
    decisions = judge(run, read, policy, baseline=baseline)
    base = compare.find_baseline(run, baseline)
    names = [result.variant.name for result in run.results if result is not base]
    found = verdicts(decisions, policy)
    judged = {decision.task for decision in decisions}
    unjudged = tuple(row.task for row in expected_rows(run) if _headline(row) and row.task not in judged)
    return Outcome(
        run=run.id,
        suite=run.suite.name,
        baseline=base.variant.name,
        policy=policy,
        decisions=decisions,
        verdicts={name: found.get(name, NOT_JUDGED) for name in names},
        exit=exit_code(decisions, policy),
        unjudged=unjudged,
        notes=tuple(_notes(decisions, policy, names, unjudged)),
    )


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
    what is undecided, but not a limited run, which `allow_limited` alone can forgive."""
    required = [decision for decision in decisions if decision.rule.tier == "required"]
    if not required:
        return Exit.MISSING
    worst = min((_status_to_exit(decision, policy) for decision in required), key=_RANK.index)
    return _EXITS[worst]


def _status_to_exit(decision: Decision, policy: Policy) -> str:
    comparison = decision.comparison
    limited = comparison is not None and comparison.limited and not policy.allow_limited
    forgiven = decision.status == "INCONCLUSIVE" and policy.allow_inconclusive and not limited
    return "PASS" if forgiven else decision.status


# --- which rule concerns which row --------------------------------------------------------------


def expected_rows(run: Run) -> tuple[Row, ...]:
    """Every row that the run's suite promises, in its order, and the members that any variant has."""
    rows: dict[str, Row] = {}
    for task in run.suite.tasks:
        members = _members(run, task.name)
        level: Level = "pooled" if members else "task"
        rows[task.name] = Row(task.name, task.metric, task.kind, level)
        if members:
            rows[task.name + MACRO] = Row(task.name + MACRO, task.metric, task.kind, "macro")
            rows.update(members)
    for result in run.results:
        for cell in result.cells:
            one = cell.task
            rows.setdefault(one.name, Row(one.name, one.metric, one.kind, "task"))
    for name in run.suite.average:
        rows.setdefault(name, Row(name, "", "score", "macro" if name.endswith(MACRO) else "task"))
    if run.suite.average:
        kinds = {rows[name].kind for name in run.suite.average}
        rows[AVERAGE] = Row(AVERAGE, "mean", "accuracy" if kinds == {"accuracy"} else "score", "average")
    return tuple(rows.values())


def _members(run: Run, group: str) -> dict[str, Row]:
    return {
        cell.task.name: Row(cell.task.name, cell.task.metric, cell.task.kind, "subtask")
        for result in run.results
        for cell in result.cells
        if cell.task.group == group
    }


def rules_for(policy: Policy, row: Row, variant: str) -> tuple[Rule, ...]:
    """The rules that hold for a row of a variant: for each limit and tier the last that matches."""
    last: dict[tuple[str, str], Rule] = {}
    for rule in policy.rules:
        if fnmatchcase(variant, rule.variants) and _names(rule, row) and _means_something(rule, row):
            last[limit_of(rule)[0], rule.tier] = rule
    return tuple(last.values())


def _names(rule: Rule, row: Row) -> bool:
    """Whether the rule's pattern and metric match. "*" means the tasks of the suite, groups pooled; any
    other pattern is matched against all rows."""
    if rule.metric is not None and row.metric.partition(",")[0] != rule.metric.partition(",")[0]:
        return False
    return _headline(row) if rule.tasks == "*" else fnmatchcase(row.task, rule.tasks)


def _headline(row: Row) -> bool:
    return row.level in ("task", "pooled")


def _means_something(rule: Rule, row: Row) -> bool:
    limit, _ = limit_of(rule)
    if limit == "max_ppl_ratio":
        return row.kind == "perplexity"
    return row.kind == "accuracy" if limit == "max_flips" else row.kind != "perplexity"


def check_rules(policy: Policy, rows: Sequence[Row], variants: Sequence[str]) -> None:
    """Raise UsageError for a rule that can concern nothing in the run; such a rule is a slip of the pen,
    and a gate that skipped it would let through what it was written to stop."""
    for number, rule in enumerate(policy.rules, 1):
        where = f"Rule {number} ({describe(rule)})"
        named = [row for row in rows if _names(rule, row)]
        if not named:
            metric = f" with the metric {rule.metric}" if rule.metric else ""
            raise UsageError(
                f"{where} names no task of this run: {rule.tasks!r}{metric}.",
                did_you_mean(rule.tasks, [row.task for row in rows]),
            )
        if not any(_means_something(rule, row) for row in named):
            raise UsageError(f"{where} means nothing for {named[0].task}.", _better_limit(rule, named[0]))
        if not _matches_some(rule.variants, variants) and not _is_pattern(rule.variants):
            raise UsageError(
                f"{where} names no candidate of this run: {rule.variants!r}.",
                did_you_mean(rule.variants, variants),
            )


def _better_limit(rule: Rule, row: Row) -> str:
    if row.kind == "perplexity":
        return "It is a perplexity: use max_ppl_ratio."
    if limit_of(rule)[0] == "max_flips":
        return "Its items are not right or wrong: use max_drop."
    return "It is not a perplexity: use max_drop."


def _matches_some(pattern: str, names: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for name in names)


def _is_pattern(text: str) -> bool:
    return any(sign in text for sign in "*?[")


# --- one rule on one row ------------------------------------------------------------------------


def _stopped(rule: Rule, result: Result, row: Row) -> Decision | None:
    """The FAIL of a variant whose scoring ended early because of this very rule (see qeval.judge.early)."""
    stop = result.stop
    if stop is None or stop.task != row.task or stop.rule != rule:
        return None
    after = f"after {stop.items} of {stop.of} items; scoring stopped there"
    reason = f"{row.task}: certainly more lost than allowed ({describe(rule)}) {after}."
    return Decision(rule, result.variant.name, row.task, "FAIL", reason, culprit=True)


def _decide(rule: Rule, pairs: Pairs | None, policy: Policy) -> Decision | None:
    """The decision, or None where there is nothing to decide on."""
    if pairs is None or (rule.max_flips is not None and pairs.flips is None):
        return None
    comparison, allowed = evidence(rule, pairs, 2 * rule.confidence - 1)
    status = verdict(comparison, allowed)
    needed, ending = None, ""
    if status == "INCONCLUSIVE":
        needed = more_items(rule, comparison, allowed)
        ending = _what_would_decide(comparison, needed)
    elif status == "PASS" and comparison.limited:
        of = f"{reasons.count(comparison.n)} of {reasons.count(comparison.n_available)} items"
        if policy.allow_limited:
            ending = f" on {of}, as --allow-limited permits"
        else:
            status = "INCONCLUSIVE"
            ending = f": good on {of}, but a limited run never passes; score all items"
    reason = reasons.sentence(rule, comparison, allowed, status, ending)
    return Decision(rule, pairs.variant, pairs.task, status, reason, comparison, allowed, needed)


def verdict(comparison: Comparison, allowed: float) -> Verdict:
    """PASS if every loss in the interval is allowed, FAIL if none is, else INCONCLUSIVE; a bound that
    touches the limit decides nothing."""
    if comparison.low > -allowed:
        return "PASS"
    return "FAIL" if comparison.high < -allowed else "INCONCLUSIVE"


def evidence(rule: Rule, pairs: Pairs, level: float) -> tuple[Comparison, float]:
    """The comparison whose interval, of the two-sided `level`, decides the rule, and the loss allowed.

    The row passes where low > -allowed and fails where high < -allowed. Points and perplexities: the
    row's own interval. Flips: the share of answers that stayed the same against all of them (the exact
    interval). Recovery r: the interval of candidate - r * baseline, moved by (1 - r) * baseline so that it
    lies about the difference, as does the loss allowed.
    """
    limit, value = limit_of(rule)
    if limit == "max_flips":
        return _agreement(pairs, level), value
    if limit == "min_recovery":
        return compare.compare_recovery(pairs, value, level), (1 - value) * pairs.baseline
    comparison = compare.compare(pairs, level)
    return comparison, math.log(value) if limit == "max_ppl_ratio" else value / 100


def _agreement(pairs: Pairs, level: float) -> Comparison:
    flips = pairs.flips or 0
    low, high = stats.proportion_interval(flips, pairs.n, level)
    share = flips / pairs.n
    return replace(
        compare.compare(pairs, level),
        metric="agreement",
        baseline=1.0,
        candidate=1.0 - share,
        delta=-share,
        low=-high,
        high=-low,
        method="Clopper-Pearson",
        p=None,
    )


def more_items(rule: Rule, comparison: Comparison, allowed: float) -> int | None:
    """How many more items would decide with probability POWER, were the loss and the churn what they seem;
    None where no practicable number would, or where the churn is not known."""
    distance = abs(comparison.delta + allowed)
    unknown = compare.UNPAIRED in comparison.notes or not math.isfinite(comparison.high - comparison.low)
    if unknown or not distance:
        return None
    mean = comparison.level in ("macro", "average")
    if rule.max_drop is not None and not mean and comparison.losses is not None:
        changed = comparison.losses + (comparison.gains or 0)
        total = stats.required_n(changed / comparison.n, min(distance, 0.99), rule.confidence, POWER)
    else:
        normal = NormalDist()
        reach = 1 + normal.inv_cdf(POWER) / normal.inv_cdf(rule.confidence)
        half = (comparison.high - comparison.low) / 2
        total = math.ceil(comparison.n * (reach * half / distance) ** 2)
    return None if total > _MOST_ITEMS else max(total - comparison.n, 1)


def _what_would_decide(comparison: Comparison, needed: int | None) -> str:
    if compare.UNPAIRED in comparison.notes:
        return "; compared item by item it would say more"
    if needed is None:
        return "; no practicable number of items would decide it"
    more = "" if comparison.n + needed <= comparison.n_available else ", and the task has not so many"
    return f"; about {reasons.about(needed)} more items would decide it at this churn{more}"


def _name_culprits(decisions: list[Decision], pairs: Mapping[tuple[str, str], Pairs]) -> list[Decision]:
    """Mark the failures of one variant that stand after Holm's correction for the number of its rules."""
    p_values = [_p_of_failure(one, pairs) if one.status == "FAIL" else 1.0 for one in decisions]
    adjusted = stats.holm(p_values) if decisions else ()
    return [
        replace(one, culprit=one.status == "FAIL" and bool(p <= 1 - one.rule.confidence))
        for one, p in zip(decisions, adjusted, strict=True)
    ]


def _p_of_failure(decision: Decision, pairs: Mapping[tuple[str, str], Pairs]) -> float:
    """The one-sided p-value of "the loss is no greater than allowed": 1 - c for the greatest confidence c
    at which the row still fails, found by halving an interval of log(1 - c)."""
    row = pairs.get((decision.variant, decision.task))
    if row is None:  # stopped early: Ville's inequality promises this much
        return 1 - decision.rule.confidence
    low, high = math.log(1e-15), math.log(1 - decision.rule.confidence)
    for _ in range(24):
        middle = (low + high) / 2
        comparison, allowed = evidence(decision.rule, row, 1 - 2 * math.exp(middle))
        low, high = (low, middle) if comparison.high < -allowed else (middle, high)
    return math.exp(high)


# --- what is said beside the verdict ------------------------------------------------------------


def _why_missing(run: Run, base: Result, result: Result, row: Row) -> str:
    if result.stop is not None:
        return f"{row.task}: scoring stopped early, on {result.stop.task}, so nothing is known."
    for one in (base, result):
        if one.status == "failed":
            why = f" ({one.error})" if one.error else ""
            return f"{row.task}: {one.variant.name} failed{why}, so nothing is known."
    for one in (base, result):
        lacking = [name for name in _leaves_of(run, row) if not _has_items(one, name)]
        if lacking:
            more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
            return f"{row.task}: {one.variant.name} has no scored items of {lacking[0]}{more}."
    return f"{row.task}: what is there of it does not make this row whole, so nothing is judged."


def _leaves_of(run: Run, row: Row) -> list[str]:
    if row.task == AVERAGE:
        return list(run.suite.average)
    group = row.task.removesuffix(MACRO) if row.level == "macro" else row.task
    return list(_members(run, group)) or [row.task]


def _has_items(result: Result, task: str) -> bool:
    group = task.removesuffix(MACRO)
    return any(cell.n > 0 and (cell.task.name == task or cell.task.group == group) for cell in result.cells)


def _notes(
    decisions: Sequence[Decision], policy: Policy, variants: Sequence[str], unjudged: Sequence[str]
) -> Iterator[str]:
    if unjudged:
        yield f"Not judged, as no rule concerns them: {', '.join(unjudged)}."
    if policy.allow_limited:
        yield "Limited runs are allowed to pass (--allow-limited)."
    if policy.allow_inconclusive:
        yield "Undecided rules are let through (--allow-inconclusive)."
    for number, rule in enumerate(policy.rules, 1):
        if not _matches_some(rule.variants, variants):
            yield f"Rule {number} ({describe(rule)}) concerns no variant of this run: {rule.variants!r}."
    comparisons = [one.comparison for one in decisions if one.comparison is not None]
    if any(one.limited for one in comparisons):
        yield "Limited run: not all items of every task were scored."
    if any(compare.UNPAIRED in one.notes for one in comparisons):
        yield "Some scores were published without items: they are compared unpaired, with wider intervals."
