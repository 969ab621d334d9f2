"""A run as the `.eval_results` of the Hugging Face Hub: a file for each benchmark that a variant answered.

The Hub's format: https://huggingface.co/docs/hub/eval-results. A result must be of a benchmark and name its
task as the benchmark does, so tasks whose ids nobody published are left out (`benchmarks.BENCHMARKS`), and so
is what was scored on a part of the items.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from qeval.base.errors import QevalError
from qeval.base.names import scheme_text, slugged
from qeval.base.records import Result
from qeval.compare.rows import Row, cell_of, score_of
from qeval.exchange.benchmarks import BENCHMARKS, Benchmark, benchmark_of
from qeval.exchange.hub import dataset_of, note_of, revision_of, value_of, yaml_text
from qeval.exchange.source import Source

if TYPE_CHECKING:
    from qeval.exchange.source import File


def to_eval_results(source: Source) -> Iterator[File]:
    """`NAME/.eval_results/TASK.yaml` for each variant and each row that is a benchmark with a known id and
    was scored whole. Tells which rows are left out.

    Raises QevalError where there is no such row.
    """
    files = [
        (f"{place}-{slugged(result.variant.name)}/.eval_results/{slugged(row.id)}.yaml", entry)
        for place, result in enumerate(source.run.results)
        for row, benchmark in _benchmarks(source, result)
        for entry in [_entry(source, result, row, benchmark)]
    ]
    if not files:
        known = ", ".join(sorted({one.dataset for one in BENCHMARKS}))
        raise QevalError(
            "No task of the run is a benchmark of the Hub whose id is known, scored on all of its items.",
            f"Use --to model-card, which takes any task. Known are tasks of {known}.",
        )
    _tell(source)
    yield from files


def _benchmarks(source: Source, result: Result) -> Iterator[tuple[Row, Benchmark]]:
    for row in source.rows:
        benchmark = benchmark_of(row, dataset_of(result, row))
        if benchmark is not None and score_of(source.run, result, row) and not _limited(result, row):
            yield row, benchmark


def _limited(result: Result, row: Row) -> bool:
    cells = [cell_of(result, task) for task in row.members]
    return any(cell is None or cell.limited for cell in cells)


def _tell(source: Source) -> None:
    """Say which rows are left out, and why."""
    rows = [row for row in source.rows if row.headline]
    results = source.run.results
    unknown = [
        row.id for row in rows if not any(benchmark_of(row, dataset_of(result, row)) for result in results)
    ]
    partial = [
        row.id
        for row in rows
        if row.id not in unknown and any(_limited(result, row) for result in results if result.cells)
    ]
    if unknown:
        source.tell(
            f"Left out, for no benchmark of the Hub is known to be theirs: {', '.join(unknown)}."
            " (--to model-card takes any task.)"
        )
    if partial:
        source.tell(f"Left out where only a part of the items was scored: {', '.join(partial)}.")
    if not source.url:
        source.tell("No source is named; --source-url says where the run can be seen.")


def _entry(source: Source, result: Result, row: Row, benchmark: Benchmark) -> str:
    """A file with one entry, as huggingface_hub's `EvalResultEntry` holds it."""
    dataset: dict[str, Any] = {"id": benchmark.dataset, "task_id": benchmark.task_id}
    revision = revision_of(result, row)
    if revision is not None:
        dataset["revision"] = revision
    entry: dict[str, Any] = {
        "dataset": dataset,
        "value": value_of(source, result, row),
        "date": source.run.created,
    }
    if source.url:
        entry["source"] = {"url": source.url, "name": f"qeval {source.run.qeval_version}".strip()}
    entry["notes"] = f"{row.measure}; {scheme_text(result.variant.scheme)}{note_of(source, result, row)}"
    return yaml_text([entry])
