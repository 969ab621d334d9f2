"""The gate as one JSON document; docs/gate.md says what its keys mean."""

from __future__ import annotations

import json
from typing import Any

from qeval.base.plain import plain
from qeval.base.records import Comparison, Decision
from qeval.base.rules import describe, limit_of
from qeval.judge.formats import Format
from qeval.judge.gate import WORDS, Outcome

SCHEMA = "qeval.gate/1"


def document(outcome: Outcome) -> dict[str, Any]:
    """The outcome as JSON-able data; its fields are described in docs/gate.md. Scores, differences and
    limits are those of Comparison and Decision, neither rounded nor turned into points."""
    policy = outcome.policy
    return {
        "verdict": WORDS[int(outcome.exit)],
        "model": outcome.model,
        "headline": outcome.headline,
        "schema": SCHEMA,
        "run": outcome.run,
        "created": outcome.created,
        "suite": outcome.suite,
        "baseline": outcome.baseline,
        "policy": {
            "source": policy.source,
            "allow_limited": policy.allow_limited,
            "allow_inconclusive": policy.allow_inconclusive,
            "allow_different_models": policy.allow_different_models,
            "allow_unproved_model": policy.allow_unproved_model,
            "allow_identical": policy.allow_identical,
            "allow_unquantised": policy.allow_unquantised,
            "ungated": list(policy.ungated),
        },
        "exit_code": int(outcome.exit),
        "exceptions": list(outcome.exceptions),
        "verdicts": dict(outcome.verdicts),
        "findings": dict(outcome.findings),
        "decisions": [_decision(one) for one in outcome.decisions],
        "unjudged": list(outcome.unjudged),
        "notes": list(outcome.notes),
    }


def to_json(outcome: Outcome) -> str:
    """`document` as indented JSON text."""
    return json.dumps(document(outcome), indent=2, ensure_ascii=False, allow_nan=False)


def _decision(one: Decision) -> dict[str, Any]:
    limit, value = limit_of(one.rule) if describe(one.rule) else (None, None)
    return {
        "variant": one.variant,
        "task": one.task,
        "status": one.status,
        "tier": one.rule.tier,
        "reason": one.reason,
        "rule": {
            "limit": limit,
            "value": value,
            "tasks": one.rule.tasks,
            "variants": one.rule.variants,
            "confidence": one.rule.confidence,
        },
        "allowed": one.allowed,
        "items_needed_more": one.items_needed_more,
        "items_needed_total": one.items_needed_total,
        "culprit": one.culprit,
        "comparison": None if one.comparison is None else _comparison(one.comparison),
    }


def _comparison(one: Comparison) -> dict[str, Any]:
    values = ("baseline", "candidate", "delta", "low", "high", "confidence", "p")
    names = (
        "metric",
        "kind",
        "level",
        "method",
        "n",
        "n_available",
        "texts",
        "losses",
        "gains",
        "flips",
        "limited",
    )
    return {
        **{name: getattr(one, name) for name in names},
        **{name: plain(getattr(one, name)) for name in values},
        "notes": list(one.notes),
    }


FORMAT = Format("json", to_json)
