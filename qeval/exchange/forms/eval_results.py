"""A run as the `.eval_results` of the Hugging Face Hub: a file for each task of a variant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from qeval.base.errors import QevalError
from qeval.base.names import scheme_text, slugged
from qeval.base.records import Result
from qeval.compare.rows import Row, score_of
from qeval.exchange.hub import dataset_of, note_of, value_of, yaml_text
from qeval.exchange.source import Source

if TYPE_CHECKING:
    from qeval.exchange.source import File


def to_eval_results(source: Source) -> Iterator[File]:
    """`NAME/.eval_results/TASK.yaml` for each variant and each task whose items come from a Hub data set.

    Raises QevalError where there is no such task.
    """
    found = False
    for place, result in enumerate(source.run.results):
        for row in source.rows:
            dataset = dataset_of(result, row) if row.level != "average" else None
            if dataset and score_of(source.run, result, row):
                found = True
                folder = f"{place}-{slugged(result.variant.name)}/.eval_results"
                yield f"{folder}/{slugged(row.id)}.yaml", _entry(source, result, row, dataset)
    if not found:
        raise QevalError(
            "No task of the run has its items from a data set on the Hub, which .eval_results must name.",
            "Use --to model-card, which takes any task.",
        )


def _entry(source: Source, result: Result, row: Row, dataset: str) -> str:
    """A file with one entry; huggingface_hub got its record of it late, and that is no more than this."""
    entry = {
        "dataset": {"id": dataset, "task_id": row.id},
        "value": value_of(source, result, row),
        "date": source.run.created,
        "notes": f"{row.measure}; {scheme_text(result.variant.scheme)}{note_of(source, result, row)}",
    }
    return yaml_text([entry])
