"""A run as the metadata that the Hugging Face Hub reads: model cards and `.eval_results`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from qeval.base import numbers
from qeval.base.errors import QevalError
from qeval.base.names import scheme_text, slugged
from qeval.base.records import Result
from qeval.compare.rows import Row, cell_of, rows_of, score_of, summary_rows
from qeval.exchange.source import Source, perplexity

if TYPE_CHECKING:
    from qeval.exchange.source import File

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_LEVELS = {"macro": " (unweighted mean of subjects)", "pooled": " (all items)"}


def to_model_card(source: Source) -> Iterator[File]:
    """For each candidate `NAME/README.md`: a model card whose metadata hold the scores (`model-index`)."""
    for place, result in enumerate(source.run.results):
        if result.cells:
            yield f"{place}-{slugged(result.variant.name)}/README.md", _card(source, result)


def _card(source: Source, result: Result) -> str:
    run, name = source.run, result.variant.name
    rows = [
        row for row in summary_rows(rows_of(run)) if row.level != "average" and score_of(run, result, row)
    ]
    meta = {
        "base_model": result.variant.model,
        "tags": ["quantized", result.variant.scheme.kind],
        "model-index": [{"name": name, "results": [_card_result(source, result, row) for row in rows]}],
    }
    lines = [
        f"- {row.title} ({row.measure}): {_value(source, result, row)}{_note(source, result, row)}"
        for row in rows
    ]
    body = "\n".join(lines)
    intro = f"Scores of {scheme_text(result.variant.scheme)} of {result.variant.model}, measured by qeval."
    return f"---\n{_yaml(meta)}---\n\n# {name}\n\n{intro}\n\n{body}\n"


def _card_result(source: Source, result: Result, row: Row) -> dict[str, Any]:
    """One entry of model-index; the difference from the baseline stands in the metric's name."""
    first = row.members[0]
    return {
        "task": {"type": "text-generation", "name": "Text generation"},
        "dataset": {
            "name": row.id + _LEVELS.get(row.level, ""),
            "type": _dataset(result, row) or row.id,
            "args": {"num_few_shot": first.num_fewshot},
        },
        "metrics": [
            {
                "type": first.metric.partition(",")[0] or "score",
                "value": _value(source, result, row),
                "name": f"{row.measure}{_note(source, result, row)}",
            }
        ],
    }


def _dataset(result: Result, row: Row) -> str | None:
    """The Hub's name of the data set behind a row, where all its members have the same."""
    cells = [cell for task in row.members if (cell := cell_of(result, task))]
    names = {cell.dataset.partition(",")[0].strip() for cell in cells}
    name = names.pop() if len(names) == 1 else ""
    return name if _HUB_ID.fullmatch(name) else None


def _value(source: Source, result: Result, row: Row) -> float:
    """Points of 100, or the perplexity; to four decimals."""
    score = score_of(source.run, result, row)
    value = score.score if score else math.nan
    return round(perplexity(value) if row.kind == "perplexity" else 100 * value, 4)


def _note(source: Source, result: Result, row: Row) -> str:
    """The difference from the baseline with its interval, "" where there is none."""
    one = source.by_row.get((result.variant.name, row.id))
    if one is None:
        return ""
    level = numbers.percent(one.confidence, 0)
    if one.kind == "perplexity":
        change = f"perplexity {numbers.ratio(one.delta)}"
        around = numbers.interval_ratio(one.low, one.high)
    else:
        change = f"{numbers.signed_points(one.delta)} points"
        around = numbers.interval_points(one.low, one.high)
    limited = f", {one.n} of {one.n_available} items" if one.limited else ""
    return f"; {change} against {source.run.baseline} ({level} interval {around}{limited})"


def to_eval_results(source: Source) -> Iterator[File]:
    """For each variant `NAME/.eval_results/TASK.yaml`, of the tasks whose items come from a Hub data set."""
    found = False
    for place, result in enumerate(source.run.results):
        for row in summary_rows(rows_of(source.run)):
            dataset = _dataset(result, row) if row.level != "average" else None
            if dataset and score_of(source.run, result, row):
                found = True
                folder = f"{place}-{slugged(result.variant.name)}/.eval_results"
                yield f"{folder}/{slugged(row.id)}.yaml", _yaml([_entry(source, result, row, dataset)])
    if not found:
        raise QevalError(
            "No task of the run has its items from a data set on the Hub, which .eval_results must name.",
            "Use --to model-card, which takes any task.",
        )


def _entry(source: Source, result: Result, row: Row, dataset: str) -> dict[str, Any]:
    note = f"{row.measure}; {scheme_text(result.variant.scheme)}{_note(source, result, row)}"
    return {
        "dataset": {"id": dataset, "task_id": row.id},
        "value": _value(source, result, row),
        "date": source.run.created,
        "notes": note,
    }


def _yaml(value: Any) -> str:
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=1000))
