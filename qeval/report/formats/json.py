"""The run as one versioned JSON document, as `--json` prints it; docs/json.md says what each key means."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from qeval.base.records import Cell, Comparison, Decision, Result
from qeval.compare.evidence import Evidence
from qeval.compare.rows import score_of, summary_rows
from qeval.report.costs import comparable

SCHEMA = 1


def document(evidence: Evidence, decisions: Sequence[Decision] = ()) -> dict[str, Any]:
    """The document: JSON-able, without NaN or infinity (null stands for them).

    Keys may be added under the same `schema`; when one changes its meaning or goes, `schema` grows.
    """
    run = evidence.run
    made = {
        "schema": SCHEMA,
        "qeval": run.qeval_version,
        "run": {
            "id": run.id,
            "created": run.created,
            "model": run.model,
            "source": run.source,
            "command": list(run.command),
            "settings": dataclasses.asdict(run.settings),
        },
        "suite": {
            "name": run.suite.name,
            "description": run.suite.description,
            "average": list(run.suite.average),
        },
        "baseline": run.baseline,
        "costs_comparable": comparable(run),
        "variants": [_variant(evidence, result) for result in run.results],
        "comparisons": [_comparison(comparison) for comparison in evidence.comparisons],
        "decisions": [_decision(decision) for decision in decisions],
    }
    cleaned: dict[str, Any] = _plain(made)
    return cleaned


def _variant(evidence: Evidence, result: Result) -> dict[str, Any]:
    """What was asked for, what was loaded, what it scored and what it cost."""
    return {
        "name": result.variant.name,
        "is_baseline": result.variant.name == evidence.run.baseline,
        "status": result.status,
        "error": result.error,
        "stop": dataclasses.asdict(result.stop) if result.stop else None,
        "model": result.variant.model,
        "revision": result.variant.revision,
        "adapter": result.variant.adapter,
        "scheme": dataclasses.asdict(result.variant.scheme),
        "scores": _scores(evidence, result),
        "cells": [_cell(cell) for cell in result.cells],
        "provenance": dataclasses.asdict(result.provenance) if result.provenance else None,
        "cost": dataclasses.asdict(result.cost) if result.cost else None,
    }


def _scores(evidence: Evidence, result: Result) -> list[dict[str, Any]]:
    """The rows of the summary table."""
    rows = summary_rows(evidence.rows)
    pairs = [(row, score_of(evidence.run, result, row)) for row in rows]
    return [
        {
            "task": row.id,
            "level": row.level,
            "kind": row.kind,
            "n": score.n,
            "n_available": score.n_available,
            "score": score.score,
            "perplexity": _perplexity(score.score) if row.kind == "perplexity" else None,
        }
        for row, score in pairs
        if score is not None
    ]


def _cell(cell: Cell) -> dict[str, Any]:
    made = dataclasses.asdict(cell)
    return {**made, "limited": cell.limited, "aggregate_only": cell.aggregate_only}


def _comparison(comparison: Comparison) -> dict[str, Any]:
    """The comparison, for perplexities with their ratio and its interval."""
    made = dataclasses.asdict(comparison)
    ratio = None
    if comparison.kind == "perplexity":
        bounds = (comparison.delta, comparison.high, comparison.low)
        ratio = dict(zip(("value", "low", "high"), (_perplexity(value) for value in bounds), strict=True))
    return {**made, "limited": comparison.limited, "perplexity_ratio": ratio}


def _decision(decision: Decision) -> dict[str, Any]:
    made = dataclasses.asdict(decision)
    return {**made, "comparison": _comparison(decision.comparison) if decision.comparison else None}


def _perplexity(score: float) -> float | None:
    """exp(-score), None where it is no number."""
    try:
        return math.exp(-score)
    except OverflowError:
        return None


def _plain(value: Any) -> Any:
    """The value in JSON's own types."""
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
