"""Which rule of a policy concerns which row of which variant; rules that mean nothing are refused."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from qeval.base.errors import UsageError, did_you_mean
from qeval.base.protocols import names_protocol
from qeval.base.records import Policy, Rule
from qeval.base.rules import FIDELITY_LIMITS, describe, limit_of
from qeval.compare.rows import Row

_USUAL_PERPLEXITY = "word_perplexity"  # what a perplexity is, where nobody named its metric


def is_named(name: str, pattern: str, known: Collection[str]) -> bool:
    """Whether a pattern means `name`. A pattern that is itself one of the `known` names means that one alone:
    gptq[bits=3] is a variant's name before it is a set of letters."""
    return name == pattern if pattern in known or name == pattern else fnmatchcase(name, pattern)


def rules_for(
    policy: Policy, row: Row, variant: str, rows: Collection[str] = (), variants: Collection[str] = ()
) -> tuple[Rule, ...]:
    """The rules that hold for a row of a variant: for each limit and tier the one whose names are the most
    literal, and of those the last. `rows` and `variants` are all ids and names there are."""
    best: dict[tuple[str, str], tuple[int, Rule]] = {}
    for rule in policy.rules:
        if not (is_named(variant, rule.variants, variants) and concerns(rule, row, rows)):
            continue
        place = (limit_of(rule)[0], rule.tier)
        literal = (rule.tasks == row.id) + (rule.variants == variant)
        if place not in best or literal >= best[place][0]:
            best[place] = (literal, rule)
    return tuple(rule for _, rule in best.values())


def concerns(rule: Rule, row: Row, rows: Collection[str] = ()) -> bool:
    """Whether a rule is about a row, and its limit means something there."""
    return _names(rule, row, rows) and _means_something(rule, row)


def _names(rule: Rule, row: Row, rows: Collection[str]) -> bool:
    """Whether the rule's pattern and metric match. "*" means the tasks of the suite, groups pooled; any
    other pattern is matched against all rows."""
    metric = row.metric or (_USUAL_PERPLEXITY if row.kind == "perplexity" else "")
    if rule.metric is not None and metric.partition(",")[0] != rule.metric.partition(",")[0]:
        return False
    return row.headline if rule.tasks == "*" else is_named(row.id, rule.tasks, rows)


def _means_something(rule: Rule, row: Row) -> bool:
    limit, _ = limit_of(rule)
    if limit in FIDELITY_LIMITS:
        return False  # see judge.fidelity
    if limit == "max_ppl_ratio":
        return row.kind == "perplexity"
    if limit == "max_flips":
        return row.kind == "accuracy" and row.level not in ("macro", "average")
    return row.kind != "perplexity"


def check_limits(policy: Policy, rows: Sequence[Row]) -> None:
    """Raise UsageError for a rule whose limit means nothing for any of the rows that it names."""
    ids = [row.id for row in rows]
    for number, rule in enumerate(policy.rules, 1):
        named = [row for row in rows if _names(rule, row, ids)]
        fine = limit_of(rule)[0] in FIDELITY_LIMITS and rule.tasks == "*"
        if fine or not named or not rule.required or only_perplexities(rule, policy, rows):
            continue
        if not any(_means_something(rule, row) for row in named):
            where = f"Rule {number} ({describe(rule)})"
            raise UsageError(f"{where} means nothing for {named[0].id}.", _better_limit(rule, named[0]))


def only_perplexities(rule: Rule, policy: Policy, rows: Sequence[Row]) -> bool:
    """Whether a limit of points for all tasks meets perplexities alone, and all of them have a rule: it is no
    slip of the pen then, and has nothing to judge."""
    tasks, ids = [row for row in rows if row.headline], [row.id for row in rows]
    judged = all(any(concerns(other, row, ids) for other in policy.rules) for row in tasks)
    points = rule.tasks == "*" and rule.max_drop is not None
    return bool(tasks) and points and judged and all(row.kind == "perplexity" for row in tasks)


def check_rules(policy: Policy, rows: Sequence[Row]) -> None:
    """Raise UsageError for a rule that is required to concern a row and names none, and what `check_limits`
    raises."""
    for number, rule in enumerate(policy.rules, 1):
        of_fidelity = limit_of(rule)[0] in FIDELITY_LIMITS or names_protocol(rule.tasks)
        if rule.required and not of_fidelity and not names_a_row(rule, rows):
            what, meant = unnamed(rule, rows)
            raise UsageError(
                f"Rule {number} ({describe(rule)}) names no task of this run: it has no {what}.",
                meant or "Name a task that the run has, or leave that limit out.",
            )
    check_limits(policy, rows)


def unnamed(rule: Rule, rows: Sequence[Row], more: Sequence[str] = ()) -> tuple[str, str]:
    """What a rule names that is not among these rows (nor among `more` ids), and what may be meant instead:
    the metric is to blame where the tasks alone would match."""
    ids = [row.id for row in rows]
    what = "task that it is for" if rule.tasks == "*" else repr(rule.tasks)
    if rule.metric is None:
        return what, "" if rule.tasks == "*" else did_you_mean(rule.tasks, [*ids, *more])
    what = f"{'task' if rule.tasks == '*' else what} with the metric {rule.metric}"
    named = [row.metric for row in rows if concerns(replace(rule, metric=None), row, ids) and row.metric]
    if named:
        return what, did_you_mean(rule.metric, sorted(set(named)))
    return what, did_you_mean(rule.tasks, [*ids, *more])


def names_a_row(rule: Rule, rows: Sequence[Row]) -> bool:
    """Whether the rule's pattern and metric match any row."""
    ids = [row.id for row in rows]
    return any(_names(rule, row, ids) for row in rows)


def _better_limit(rule: Rule, row: Row) -> str:
    if limit_of(rule)[0] in FIDELITY_LIMITS:
        return "It is a limit of fidelity: name a protocol, such as wikitext-2048."
    if row.kind == "perplexity":
        return "It is a perplexity: use max_ppl_ratio."
    if limit_of(rule)[0] == "max_flips" and row.level in ("macro", "average"):
        return "Flips are counted on items: name tasks, or a group with all its items together."
    if limit_of(rule)[0] == "max_flips":
        return "Its items are not right or wrong: use max_drop."
    return "It is not a perplexity: use max_drop."


def matches_some(pattern: str, names: Collection[str]) -> bool:
    """Whether the pattern of a rule matches any of these names."""
    return any(is_named(name, pattern, names) for name in names)
