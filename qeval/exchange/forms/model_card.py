"""A run as model cards for the Hugging Face Hub: their metadata hold the scores (`model-index`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from qeval.base.markdown import escape
from qeval.base.names import scheme_text, slugged
from qeval.base.records import Result
from qeval.compare.rows import Row, score_of
from qeval.exchange.hub import dataset_of, note_of, value_of, yaml_text
from qeval.exchange.source import Source

if TYPE_CHECKING:
    from qeval.exchange.source import File

_LEVELS = {"macro": " (unweighted mean of subjects)", "pooled": " (all items)"}


def to_model_card(source: Source) -> Iterator[File]:
    """`NAME/README.md` for each variant that has scores."""
    for place, result in enumerate(source.run.results):
        if result.cells:
            yield f"{place}-{slugged(result.variant.name)}/README.md", _card(source, result)


def _card(source: Source, result: Result) -> str:
    run, variant = source.run, result.variant
    rows = [row for row in source.rows if row.level != "average" and score_of(run, result, row)]
    lines = [
        "- "
        + escape(
            f"{row.title} ({row.measure}): {value_of(source, result, row)}{note_of(source, result, row)}"
        )
        for row in rows
    ]
    body = "\n".join(lines)
    intro = f"Scores of {scheme_text(variant.scheme)} of {variant.model}, measured by qeval."
    head = f"# {escape(variant.name)}\n\n{escape(intro)}"
    return f"---\n{_metadata(source, result, rows)}---\n\n{head}\n\n{body}\n"


def _metadata(source: Source, result: Result, rows: list[Row]) -> str:
    """The card's YAML. Each row is made into the index by itself: put together, rows of one data set (a group
    and its mean) would become one entry under the name of the first."""
    from huggingface_hub.repocard_data import eval_results_to_model_index

    name = result.variant.name
    parts = [eval_results_to_model_index(name, [_eval_result(source, result, row)])[0] for row in rows]
    index = {"name": name, "results": [entry for part in parts for entry in part["results"]]}
    tags = ["quantized", result.variant.scheme.kind]
    return yaml_text({"base_model": result.variant.model, "tags": tags, "model-index": [index]})


def _eval_result(source: Source, result: Result, row: Row) -> Any:
    """A row as the Hub's record; the difference from the baseline stands in the metric's name."""
    from huggingface_hub import EvalResult

    first = row.members[0]
    return EvalResult(
        task_type="text-generation",
        task_name="Text generation",
        dataset_name=row.id + _LEVELS.get(row.level, ""),
        dataset_type=dataset_of(result, row) or row.id,
        dataset_args={"num_few_shot": first.num_fewshot},
        metric_type=first.metric.partition(",")[0] or "score",
        metric_value=value_of(source, result, row),
        metric_name=f"{row.measure}{note_of(source, result, row)}",
    )
