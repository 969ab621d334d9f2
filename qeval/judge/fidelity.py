"""Rules on fidelity: how far a variant's distribution may move from the baseline's, by a protocol.

`max_kl` (nats) and `min_top1_agreement` (a share of positions) mean nothing else than that, so a rule of
either for "*" is for every protocol that was measured; `max_ppl_ratio` is for a protocol only where `tasks`
is its name. No other rule looks at fidelity: unless one names it, it is there to be read.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from qeval.base.protocols import names_protocol
from qeval.base.records import Comparison, Decision, Kind, Policy, Rule
from qeval.base.rules import FIDELITY_LIMITS, limit_of
from qeval.compare.fidelity import Estimate, FidelityRows, Row, agreement, divergence, perplexity
from qeval.compare.stats import FEWEST_CLUSTERS
from qeval.judge import reasons
from qeval.judge.matching import is_named

_NONE = "none: too few documents"


def named(rule: Rule, protocols: Collection[str]) -> tuple[str, ...]:
    """The protocols, of those that were measured, that a rule is about."""
    limit, _ = limit_of(rule)
    if limit in FIDELITY_LIMITS:
        every = rule.tasks == "*"
        return tuple(one for one in protocols if every or is_named(one, rule.tasks, protocols))
    return (rule.tasks,) if limit == "max_ppl_ratio" and rule.tasks in protocols else ()


def is_about(rule: Rule) -> bool:
    """Whether a rule is about fidelity alone, be it measured or not."""
    limit, _ = limit_of(rule)
    return limit in FIDELITY_LIMITS or (limit == "max_ppl_ratio" and names_protocol(rule.tasks))


def lacking(rule: Rule, found: FidelityRows) -> str:
    """Why a rule about fidelity cannot be judged, for all variants alike: nothing that it names was measured,
    or what it names by a pattern may be among what is damaged. Empty where it can."""
    if not is_about(rule) or rule.tasks in found.protocols:
        return ""
    if found.damaged:
        return f"and what was measured is damaged: {' '.join(found.damaged)}"
    if named(rule, found.protocols):
        return ""
    by = "" if rule.tasks == "*" else f" by {rule.tasks!r}"
    return f"which was not measured{by}{_only_by(found.rows)}: qeval fidelity can measure it now."


def _only_by(rows: Sequence[Row]) -> str:
    """By which protocols there are rows of candidates, and which of those in part; empty where there are
    none."""
    measured = {row.protocol.name: row.measured for row in rows if row.role == "candidate"}
    names = [f"{name} (in part)" if one.limited else name for name, one in measured.items()]
    return f", only by {' and '.join(names)}" if names else ""


def decisions(
    found: FidelityRows, policy: Policy, variant: str, variants: Sequence[str]
) -> Iterator[Decision]:
    """Every rule on fidelity applied to a variant; of several with one limit and tier the most literal holds,
    and of those the last."""
    best: dict[tuple[str, str, str], tuple[int, Rule]] = {}
    for rule in policy.rules:
        if is_named(variant, rule.variants, variants):
            for name in named(rule, found.protocols):
                place = (name, limit_of(rule)[0], rule.tier)
                literal = (rule.tasks == name) + (rule.variants == variant)
                if place not in best or literal >= best[place][0]:
                    best[place] = (literal, rule)
    for (name, _, _), (_, rule) in best.items():
        yield _decided(found, rule, variant, name, policy)


def _decided(found: FidelityRows, rule: Rule, variant: str, name: str, policy: Policy) -> Decision:
    row = found.row(variant, name)
    if row is None or found.read is None:
        others = _only_by([one for one in found.rows if one.variant == variant])
        why = f"{name}: {variant} was not measured by it{others}, so nothing is judged."
        if found.damaged:
            why = f"{name}: what was measured is damaged, so nothing is judged: {' '.join(found.damaged)}"
        return Decision(rule, variant, name, "MISSING", why)
    comparison, allowed = _measured(found, rule, row)
    status = "PASS" if comparison.low > -allowed else "FAIL" if comparison.high < -allowed else "INCONCLUSIVE"
    ending = ""
    if status == "INCONCLUSIVE":
        ending = _few(row) or "; a longer text would tell more"
    elif status == "PASS" and comparison.limited:
        if policy.allow_limited:
            ending = " on a part of its positions, as --allow-limited permits"
        else:
            status, ending = (
                "INCONCLUSIVE",
                ": good on a part of its positions, but a limited run never passes",
            )
    reason = reasons.sentence(rule, comparison, allowed, status, ending)
    return Decision(rule, variant, name, status, reason, comparison, allowed)  # type: ignore[arg-type]


def _few(row: Row) -> str:
    """That a protocol has too few documents for any verdict; empty where it has enough."""
    if row.units >= FEWEST_CLUSTERS:
        return ""
    units = "documents" if row.by_document else "windows"
    return f", as intervals are by {units}: there are {row.units}, and {FEWEST_CLUSTERS} are needed"


def _measured(found: FidelityRows, rule: Rule, row: Row) -> tuple[Comparison, float]:
    """The comparison whose interval decides a rule, higher being better as everywhere, and the loss
    allowed."""
    assert found.read is not None  # noqa: S101 - the caller looked
    positions, stream = found.read(row.measured)
    document = stream.document[stream.scored()]
    level = 2 * rule.confidence - 1
    limit, value = limit_of(rule)
    if limit == "max_kl":
        kl, method = divergence(positions, document, level), "jackknife t of documents, log"
        if _few(row):  # nothing is known of the spread, as of top-1
            kl, method = Estimate(kl.value, 0.0, math.inf), _NONE
        moved = Estimate(-kl.value, -kl.high, -kl.low)
        return _comparison(row, rule, "kl", "score", 0.0, moved, method), value
    if limit == "min_top1_agreement":
        same = agreement(positions, document, level)
        change = Estimate(same.value - 1, same.low - 1, same.high - 1)
        return _comparison(
            row, rule, "top1_agreement", "score", 1.0, change, "bounded mean of documents"
        ), 1 - value
    change, method = perplexity(positions, document, level), "padded t of documents"
    if _few(row):
        change, method = Estimate(change.value, -math.inf, math.inf), _NONE
    base = float(np.mean(positions.log_p, dtype=np.float64))
    return _comparison(row, rule, "perplexity", "perplexity", base, change, method), math.log(value)


def _comparison(
    row: Row, rule: Rule, metric: str, kind: Kind, baseline: float, change: Estimate, method: str
) -> Comparison:
    return Comparison(
        variant=row.variant,
        task=row.protocol.name,
        metric=metric,
        kind=kind,
        level="task",
        n=row.measured.n,
        n_available=row.measured.n_available,
        baseline=baseline,
        candidate=baseline + change.value,
        delta=change.value,
        low=change.low,
        high=change.high,
        confidence=2 * rule.confidence - 1,
        method=method,
        texts=row.units,
    )
