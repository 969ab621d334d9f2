"""A run as the files that lm-eval itself writes: aggregated results, and a line for each sample."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from qeval.base.names import scheme_text, slugged
from qeval.base.records import Cell, Result
from qeval.compare.rows import groups_of
from qeval.exchange.lm_eval.checking import as_lm_eval_says
from qeval.exchange.lm_eval.results import (
    JUDGED_BY,
    OURS,
    TaskResults,
    results_name,
    samples_name,
    stamp_of,
    task_tables,
)
from qeval.exchange.lm_eval.samples import Format, sample_lines, write_lines
from qeval.exchange.source import Source
from qeval.score.harness.rules import DEFAULT_AGGREGATIONS, PERPLEXITIES

if TYPE_CHECKING:
    from qeval.exchange.source import File


def to_lm_eval(source: Source) -> Iterator[File]:
    """For each variant `NAME/results_DATE.json`, with `samples_TASK_DATE.jsonl` beside it for its items."""
    stamp = stamp_of(source.run.created)
    for place, result in enumerate(source.run.results):
        folder = f"{place}-{slugged(result.variant.name)}"
        text = json.dumps(_results(source, result), indent=2, ensure_ascii=False)
        yield f"{folder}/{results_name(stamp)}", f"{text}\n"
        for cell in (cell for cell in result.cells if not cell.aggregate_only):
            lines = sample_lines(
                source.read(cell), source.read_items(cell), _format(source, cell), cell.task.filter
            )
            yield f"{folder}/{samples_name(cell.task.name, stamp)}", write_lines(lines)


def _results(source: Source, result: Result) -> dict[str, Any]:
    """The aggregated results, keyed as lm-eval keys them."""
    run, made = source.run, result.provenance
    names = [cell.task.name for cell in result.cells]
    groups = {name: [task.name for task in group.members] for name, group in groups_of(run).items()}
    return {
        **task_tables({cell.task.name: _task(source, cell) for cell in result.cells}),
        "groups": {},
        "group_subtasks": {name: groups.get(name, []) for name in (*groups, *names)},
        "config": {
            "model": OURS,
            "model_args": {
                "pretrained": result.variant.model,
                "scheme": scheme_text(result.variant.scheme),
            },
            "model_dtype": made.dtype if made else None,
            "model_sha": made.revision if made else None,
            "model_revision": result.variant.revision,
            "batch_size": made.batch_size if made else None,
            "device": made.device if made else None,
            "limit": run.settings.limit,
            "random_seed": run.settings.seed,
            "fewshot_seed": run.settings.seed,
        },
        "model_source": OURS,
        "model_name": result.variant.model,
        "date": run.created,
        "lm_eval_version": made.versions.get("lm_eval") if made else None,
        "chat_template": run.settings.chat_template or None,
        "total_evaluation_time_seconds": str(sum(cell.seconds for cell in result.cells)),
    }


def _task(source: Source, cell: Cell) -> TaskResults:
    task, how = cell.task, _format(source, cell)
    rises = task.kind != "perplexity"
    filters = [name for name in _filters(cell) if name != "none"]
    judge = {"metric": how.metric, "aggregation": how.aggregation, "higher_is_better": rises}
    return TaskResults(
        metrics=_metrics(cell, how),
        config={
            "task": task.name,
            "output_type": how.output_type,
            "target_delimiter": how.target_delimiter,
            "dataset_path": cell.dataset.partition(",")[0],
            "num_fewshot": task.num_fewshot,
            "metric_list": [judge],
            **({"filter_list": [{"name": name} for name in filters]} if filters else {}),
            "metadata": {"version": cell.task_version, JUDGED_BY: [how.metric, task.filter]},
        },
        version=cell.task_version,
        num_fewshot=task.num_fewshot,
        rises={how.metric: rises},
        count={"original": cell.n_available, "effective": cell.n},
    )


def _filters(cell: Cell) -> list[str]:
    """The filters of the answers, in the task's order."""
    return list(dict.fromkeys(name.partition(",")[2] for name in cell.metrics if "," in name))


def _metrics(cell: Cell, how: Format) -> dict[str, Any]:
    own = {how.metric: as_lm_eval_says(cell.score, how.aggregation)}
    known = {**own, **cell.metrics}
    named = {name if "," in name else f"{name},{cell.task.filter}": value for name, value in known.items()}
    return {"alias": cell.task.name, "sample_len": cell.n, **named}


def _format(source: Source, cell: Cell) -> Format:
    """How the cell's samples are written, as far as the stored items tell how they were asked."""
    metric = cell.task.metric.partition(",")[0] or "score"
    samples = None if cell.aggregate_only else source.read(cell)
    if cell.task.kind == "perplexity":
        usual = DEFAULT_AGGREGATIONS.get(metric, "")
        aggregation = usual if usual in PERPLEXITIES else "weighted_perplexity"
    else:
        aggregation = "mean" if samples is None or samples.weight.all() else "nanmean"
    return Format(metric, aggregation, _output_type(cell, samples), ours=True, judged=True)


def _output_type(cell: Cell, samples: Any) -> str:
    """What lm-eval calls the way of asking; of earlier versions' runs as their items tell it."""
    if cell.output_type:
        return cell.output_type
    most = 0 if samples is None else max((len(scores) for scores in samples.scores), default=0)
    if cell.task.kind == "perplexity" and not most:
        return "loglikelihood_rolling"
    if most == 1:
        return "loglikelihood"
    return "multiple_choice" if most or samples is None else "generate_until"
