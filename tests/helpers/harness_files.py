"""Files as lm-eval leaves them: results, and samples beside them that agree with what they say."""

from __future__ import annotations

import json
import math

from qeval.compare.conditions import of_variants
from qeval.compare.rows import find_baseline

STAMP = "2026-01-02T03-04-05.678901"
LATER = "2026-02-02T03-04-05.678901"
_FIXED = {
    "doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics", "answer",
    "doc_hash", "prompt_hash", "target_hash",
}  # fmt: skip
_MEASURES = {
    "word_perplexity": lambda mean: math.exp(-mean),
    "byte_perplexity": lambda mean: math.exp(-mean),
    "bits_per_byte": lambda mean: -mean / math.log(2),
}


def sample(at, right, task="letters", **changes):
    """One line of a samples file, as lm-eval writes it."""
    best = 1 if right else 0
    return {
        "doc_id": at,
        "doc": {"question": f"Letter {at}?"},
        "target": "1",
        "arguments": {
            f"gen_args_{i}": {"arg_0": f"Examples.\n\nLetter {at}?\nAnswer:", "arg_1": f" {choice}"}
            for i, choice in enumerate("AB")
        },
        "resps": [[[str(-1.0 - (i != best)), "False"]] for i in range(2)],
        "filtered_resps": [[str(-1.0 - (i != best)), "False"] for i in range(2)],
        "filter": "none",
        "metrics": ["acc"],
        "doc_hash": f"doc-{task}-{at}",
        "prompt_hash": f"prompt-{task}-{at}",
        "target_hash": "target-1",
        "acc": float(right),
        **changes,
    }


def generated(at, task="sums", **right):
    """The lines of one generated answer, one a filter: by its name, whether what it left of it was right."""
    plain = {name: value for name, value in sample(at, right=True, task=task).items() if name != "acc"}
    asked = {"gen_args_0": {"arg_0": f"Sum {at}?", "arg_1": {"until": ["\n"]}}}
    fixed = {"arguments": asked, "resps": [[f"it is {at}"]], "target": str(at), "metrics": ["exact_match"]}
    return [
        {
            **plain,
            **fixed,
            "filter": name.replace("_", "-"),
            "filtered_resps": [str(at) if good else "[invalid]"],
            "exact_match": float(good),
        }
        for name, good in right.items()
    ]


def results(*tasks, name="org/tiny", groups=None, args=None, **changes):
    """The table of a results file; `write` fills in what the samples come to."""
    config = {"model": "hf", "model_args": args or {"pretrained": name}, "limit": None, "fewshot_seed": 1234}
    configs = {
        task: {
            "task": task,
            "output_type": "multiple_choice",
            "target_delimiter": " ",
            "fewshot_delimiter": "\n\n",
            "dataset_path": "org/data",
        }
        for task in tasks
    }
    return {
        "results": {task: {"alias": task} for task in tasks},
        "group_subtasks": groups or {},
        "configs": configs,
        "versions": dict.fromkeys(tasks, 1.0),
        "n-shot": dict.fromkeys(tasks, 1),
        "n-samples": {task: {} for task in tasks},
        "config": config | changes.pop("config", {}),
        "date": 1767323045.0,
        "lm_eval_version": "0.4.13",
        "model_name": name,
        "chat_template": None,
        **changes,
    }


def letters(n=6, task="letters", right=lambda at: at % 2):
    """So many lines, of which those are right for which `right` says so."""
    return [sample(at, bool(right(at)), task) for at in range(n)]


def write(folder, table, stamp=STAMP, samples=None, stem="results", *, agree=True):
    """A directory as lm-eval leaves it: results and samples beside each other.

    With `agree`, means and numbers of items are those of the samples, where the table does not say them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    end = f"_{stamp}" if stamp else ""
    for task in table["configs"]:
        rows = (samples or {}).get(task) or letters(task=task)
        if agree:
            _agree(table, task, rows)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"samples_{task}{end}.jsonl").write_text(text, encoding="utf-8")
    (folder / f"{stem}{end}.json").write_text(json.dumps(table), encoding="utf-8")
    return folder


def _agree(table, task, rows):
    values = {}
    for row in rows:
        for metric in row.get("metrics", [key for key in row if key not in _FIXED]):
            if metric in row:
                values.setdefault((metric, row.get("filter", "none")), []).append(row[metric])
    said = table["results"][task]
    for (metric, name), some in values.items():
        said.setdefault(f"{metric},{name}", _mean(metric, some))
    if isinstance(count := (table.get("n-samples") or {}).get(task), dict):
        n = len({row["doc_id"] for row in rows})
        count.setdefault("effective", n)
        count.setdefault("original", n)


def _mean(metric, values):
    if all(isinstance(value, int | float) for value in values):
        return sum(values) / len(values)
    if metric in _MEASURES:
        total, weight = (sum(part) for part in zip(*values, strict=True))
        return _MEASURES[metric](total / weight)
    return 0.5  # a number for all items together


def unproved_of(run):
    """What is unproved of each cell, by variant and task: by itself, and beside the baseline's."""
    base = find_baseline(run)
    found = {
        (one.variant.name, cell.task.name): list(cell.unproved) for one in run.results for cell in one.cells
    }
    for one in run.results:
        for task, said in of_variants(base, one):
            found[one.variant.name, task].append(said)
    return found
