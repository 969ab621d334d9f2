"""A run as the files that lm-eval itself writes: aggregated results, and a line for each sample."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from qeval.base.names import scheme_text, slugged
from qeval.base.records import Cell, Result
from qeval.compare.rows import groups_of
from qeval.exchange.source import Source, perplexity

if TYPE_CHECKING:
    from qeval.exchange.source import File


def to_lm_eval(source: Source) -> Iterator[File]:
    """For each variant `NAME/results_DATE.json`, and `NAME/samples_TASK_DATE.jsonl` where items are stored.

    What lm-eval logs and a run does not keep is left out: whether a choice was the greedy one, and the
    document's own fields; `doc` holds the question and the choices.
    """
    date = _stamp(source.run.created)
    for place, result in enumerate(source.run.results):
        folder = f"{place}-{slugged(result.variant.name)}"
        yield f"{folder}/results_{date}.json", _json(_lm_eval_results(source, result))
        for cell in (cell for cell in result.cells if not cell.aggregate_only):
            task = re.sub(r"\W", "_", cell.task.name)
            yield f"{folder}/samples_{task}_{date}.jsonl", _lm_eval_samples(source, cell)


def _stamp(created: str) -> str:
    """The time in lm-eval's file names: 2026-01-02T03-04-05.000000."""
    try:
        moment = datetime.fromisoformat(created)
    except ValueError:
        moment = datetime.fromtimestamp(0, UTC)
    return f"{moment:%Y-%m-%dT%H-%M-%S.%f}"


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n"


def _lm_eval_results(source: Source, result: Result) -> dict[str, Any]:
    """The aggregated results, keyed as lm-eval keys them."""
    run = source.run
    cells = {cell.task.name: cell for cell in result.cells}
    groups = {name: [task.name for task in group.members] for name, group in groups_of(run).items()}
    made = result.provenance
    return {
        "results": {name: _lm_eval_metrics(cell) for name, cell in cells.items()},
        "groups": {},
        "group_subtasks": {name: groups.get(name, []) for name in (*groups, *cells)},
        "configs": {name: _lm_eval_config(source, cell) for name, cell in cells.items()},
        "versions": {name: cell.task_version for name, cell in cells.items()},
        "n-shot": {name: cell.task.num_fewshot for name, cell in cells.items()},
        "higher_is_better": {name: {_metric(cell): _rises(cell)} for name, cell in cells.items()},
        "n-samples": {
            name: {"original": cell.n_available, "effective": cell.n} for name, cell in cells.items()
        },
        "config": {
            "model": "qeval",
            "model_args": f"pretrained={result.variant.model},scheme={scheme_text(result.variant.scheme)}",
            "model_dtype": made.dtype if made else None,
            "model_sha": made.revision if made else None,
            "model_revision": result.variant.revision,
            "batch_size": made.batch_size if made else None,
            "device": made.device if made else None,
            "limit": run.settings.limit,
            "random_seed": run.settings.seed,
            "fewshot_seed": run.settings.seed,
        },
        "model_source": "qeval",
        "model_name": result.variant.model,
        "date": run.created,
        "lm_eval_version": made.versions.get("lm_eval") if made else None,
        "chat_template": None,
        "total_evaluation_time_seconds": str(sum(cell.seconds for cell in result.cells)),
    }


def _metric(cell: Cell) -> str:
    """The bare name of the metric that judges the cell."""
    return cell.task.metric.partition(",")[0] or "score"


def _rises(cell: Cell) -> bool:
    return cell.task.kind != "perplexity"


def _lm_eval_metrics(cell: Cell) -> dict[str, Any]:
    own = perplexity(cell.score) if cell.task.kind == "perplexity" else cell.score
    known = {f"{_metric(cell)}": own, **cell.metrics}
    named = {name if "," in name else f"{name},{cell.task.filter}": value for name, value in known.items()}
    return {"alias": cell.task.name, "sample_len": cell.n, **named}


def _lm_eval_config(source: Source, cell: Cell) -> dict[str, Any]:
    task = cell.task
    return {
        "task": task.name,
        "output_type": _output_type(source, cell),
        "target_delimiter": " ",
        "dataset_path": cell.dataset.partition(",")[0],
        "num_fewshot": task.num_fewshot,
        "metric_list": [{"metric": _metric(cell), "higher_is_better": _rises(cell)}],
        "metadata": {"version": cell.task_version},
    }


def _output_type(source: Source, cell: Cell) -> str:
    """What lm-eval calls the way of asking, as far as the stored items tell."""
    if cell.task.kind == "perplexity":
        return "loglikelihood_rolling"
    if cell.aggregate_only or any(len(scores) for scores in source.read(cell).scores):
        return "multiple_choice"
    return "generate_until"


def _lm_eval_samples(source: Source, cell: Cell) -> str:
    """A line an item."""
    samples = source.read(cell)
    items = source.read_items(cell)
    metric, is_text = _metric(cell), cell.task.kind == "perplexity"
    lines = []
    for place, key in enumerate(samples.key.tolist()):
        item = items.get(key)
        value = float(samples.value[place])
        said = str(value) if is_text else str(samples.answer[place])
        responses: list[Any] = [[str(score)] for score in samples.scores[place]] or [said]
        lines.append(
            {
                "doc_id": int(key) if key.isdecimal() else key,
                "doc": {"question": item.question, "choices": list(item.choices)} if item else {},
                "target": str(samples.gold[place]),
                "arguments": _arguments(item.prompt, item.choices) if item else {},
                "resps": [[response] for response in responses],
                "filtered_resps": responses,
                "filter": cell.task.filter,
                "metrics": [metric],
                "doc_hash": str(samples.doc_hash[place]),
                "prompt_hash": str(samples.prompt_hash[place]),
                "target_hash": str(samples.target_hash[place]),
                metric: [value, float(samples.weight[place])] if is_text else value,
            }
        )
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    return text.translate(_LINE_ENDS)


# Some readers of JSON lines take these for the end of a line too.
_LINE_ENDS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}


def _arguments(prompt: str, choices: Sequence[str]) -> dict[str, dict[str, str]]:
    parts: list[tuple[str, ...]] = [(prompt, choice) for choice in choices] or [(prompt,)]
    return {
        f"gen_args_{number}": {f"arg_{place}": text for place, text in enumerate(texts)}
        for number, texts in enumerate(parts)
    }
