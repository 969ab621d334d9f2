"""The run as one versioned JSON document, as `--json` prints it; docs/json.md says what each key means."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from qeval.base import numbers
from qeval.base.plain import plain
from qeval.base.records import Cell, Comparison, Decision, Result
from qeval.compare.columns import statistics
from qeval.compare.evidence import Evidence
from qeval.compare.margin import Finding, Margin
from qeval.compare.rows import score_of, summary_rows
from qeval.report import fidelity, ranking
from qeval.report.cautions import cautions
from qeval.report.context import Context
from qeval.report.costs import comparable
from qeval.report.formats import Format, Options
from qeval.report.noise import as_data
from qeval.report.verdicts import verdict_of

SCHEMA = 1


def document(
    evidence: Evidence, decisions: Sequence[Decision] = (), forgiven: Sequence[str] = ()
) -> dict[str, Any]:
    """The document: JSON-able, without NaN or infinity (null stands for them). `forgiven` are a gate's
    sentences on what it let pass.

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
        "margin": _margin(evidence.margin),
        "verdicts": [_verdict(evidence, result, decisions) for result in evidence.candidates],
        "decision_table": ranking.as_data(evidence, decisions),
        "cautions": list(cautions(evidence).every),
        "comparisons": [
            {**_comparison(one), "finding": _finding(evidence.findings.get((one.variant, one.task)))}
            for one in evidence.comparisons
        ],
        "decisions": [_decision(decision) for decision in decisions],
        "forgiven": list(forgiven),
        "noise": as_data(evidence),
        "fidelity": fidelity.as_data(evidence.fidelity),
        "fidelity_damaged": list(evidence.fidelity.damaged),
    }
    cleaned: dict[str, Any] = plain(made)
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
            "texts": evidence.texts(row),
            "score": score.score,
            "perplexity": numbers.exp(-score.score) if row.kind == "perplexity" else None,
        }
        for row, score in pairs
        if score is not None
    ]


def _cell(cell: Cell) -> dict[str, Any]:
    made = dataclasses.asdict(cell)
    scored = made["scored"] if cell.scored and cell.scored.qeval else None  # null: nobody knows
    return {**made, "scored": scored, "limited": cell.limited, "aggregate_only": cell.aggregate_only}


def _margin(margin: Margin) -> dict[str, Any]:
    """What difference matters: in percentage points, and as ratios of perplexities."""
    return {"points": margin.points, "word_perplexity": margin.ratio, "byte_perplexity": margin.per_byte()}


def _verdict(evidence: Evidence, result: Result, decisions: Sequence[Decision]) -> dict[str, Any]:
    """What a report says on top of a variant, and what was found of it without a rule."""
    name = result.variant.name
    made, found = verdict_of(result, evidence, decisions), evidence.finding(name)
    return {
        "variant": name,
        "status": made.status,
        "words": made.word,
        "sentence": made.sentence,
        "task": found.comparison.task if found else None,
        "finding": _finding(found),
    }


def _finding(found: Finding | None) -> dict[str, Any] | None:
    """The word for a difference, the margin that it was held against, and what may be claimed."""
    if found is None:
        return None
    return {
        "status": found.status,
        "words": found.said,
        "margin": found.limit,
        "claim": found.claim,
    }


def _comparison(comparison: Comparison) -> dict[str, Any]:
    """The comparison, for perplexities with their ratio and its interval."""
    made = dataclasses.asdict(comparison)
    ratio = None
    if comparison.kind == "perplexity":
        bounds = (comparison.delta, comparison.high, comparison.low)
        ratio = dict(zip(("value", "low", "high"), (numbers.exp(-value) for value in bounds), strict=True))
    return {
        **made,
        "limited": comparison.limited,
        "perplexity_ratio": ratio,
        "statistics": statistics(comparison),
    }


def _decision(decision: Decision) -> dict[str, Any]:
    made = dataclasses.asdict(decision)
    return {**made, "comparison": _comparison(decision.comparison) if decision.comparison else None}


def _render(context: Context, _: Options) -> str:
    made = document(context.evidence, context.decisions, context.forgiven)
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"


FORMAT = Format("json", (".json",), _render)
