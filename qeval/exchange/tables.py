"""A run as flat tables: scores, comparisons, items and their texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, fields
from typing import Any

from qeval.base.names import scheme_text
from qeval.base.records import Cell, Comparison, Result, Run
from qeval.compare.columns import statistics
from qeval.compare.rows import Row, score_of
from qeval.exchange.source import Source, perplexity


def _scores(source: Source) -> list[dict[str, Any]]:
    """A row for each variant and row of the summary."""
    run, rows = source.run, []
    for result in run.results:
        for row in source.rows:
            score = score_of(run, result, row)
            if score is not None:
                texts = source.evidence.texts(row)
                rows.append(_score_row(run, result, row, {**asdict(score), "texts": texts}))
    return rows


def _score_row(run: Run, result: Result, row: Row, score: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "run": run.id,
        "variant": result.variant.name,
        "scheme": scheme_text(result.variant.scheme),
        "baseline": result.variant.name == run.baseline,
        "task": row.id,
        "level": row.level,
        "kind": row.kind,
        "measure": row.measure,
        **score,
        "perplexity": perplexity(score["score"]) if row.kind == "perplexity" else None,
    }


def _comparisons(source: Source) -> list[dict[str, Any]]:
    names = [field.name for field in fields(Comparison) if field.name != "notes"]
    return [
        {
            "run": source.run.id,
            **{name: getattr(comparison, name) for name in names},
            **statistics(comparison),
            "notes": "; ".join(comparison.notes),
        }
        for comparison in source.evidence.comparisons
    ]


def _stored(run: Run) -> Iterator[tuple[Result, Cell]]:
    """Every cell that has items."""
    return ((result, cell) for result in run.results for cell in result.cells if not cell.aggregate_only)


def _items(source: Source) -> Iterator[dict[str, Any]]:
    """A row for each item of each variant; what only lm-eval's files need is left to them."""
    for result, cell in _stored(source.run):
        samples = source.read(cell)
        names = [field.name for field in fields(samples) if field.name != "logged"]
        columns = {name: getattr(samples, name).tolist() for name in names}
        for values in zip(*columns.values(), strict=True):
            row = dict(zip(columns, values, strict=True))
            yield {
                "variant": result.variant.name,
                "task": cell.task.name,
                **row,
                "scores": list(row["scores"]),
                "written": list(row["written"]),
            }


def _texts(source: Source) -> Iterator[dict[str, Any]]:
    """A row for each item, once, with the whole prompt."""
    seen: set[str] = set()
    for _, cell in _stored(source.run):
        if cell.task.name not in seen:
            seen.add(cell.task.name)
            for item in source.read_items(cell).values():
                row = {name: value for name, value in asdict(item).items() if name != "arguments"}
                yield {"task": cell.task.name, **row, "choices": list(item.choices)}


_TABLES: Mapping[str, Callable[[Source], Iterable[dict[str, Any]]]] = {
    "scores": _scores,
    "comparisons": _comparisons,
    "items": _items,
    "texts": _texts,
}


def tables_of(source: Source) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Each table that has rows, under its name."""
    for name, rows in _TABLES.items():
        made = list(rows(source))
        if made:
            yield name, made
