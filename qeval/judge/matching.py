"""Which rule of a policy concerns which row of which variant; rules that concern nothing are refused."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from qeval.base.errors import UsageError, did_you_mean
from qeval.base.records import Policy, Rule
from qeval.base.rules import describe, limit_of
from qeval.compare.rows import Row


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
    return row.headline if rule.tasks == "*" else fnmatchcase(row.id, rule.tasks)


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
                did_you_mean(rule.tasks, [row.id for row in rows]),
            )
        if not any(_means_something(rule, row) for row in named):
            raise UsageError(f"{where} means nothing for {named[0].id}.", _better_limit(rule, named[0]))
        if not matches_some(rule.variants, variants) and not _is_pattern(rule.variants):
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


def matches_some(pattern: str, names: Sequence[str]) -> bool:
    """Whether the pattern of a rule matches any of these variants."""
    return any(fnmatchcase(name, pattern) for name in names)


def _is_pattern(text: str) -> bool:
    return any(sign in text for sign in "*?[")
