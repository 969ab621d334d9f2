"""How a task was asked beside what hashes prove, as lm-eval's files tell it.

What of it must agree between two variants, and what may differ: see `qeval.compare.conditions`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

from qeval.compare.conditions import ITEMS, SCORED, arguments
from qeval.exchange.lm_eval.judging import Judge
from qeval.exchange.lm_eval.results import ResultsFile, arguments_of
from qeval.exchange.lm_eval.settings import told_of
from qeval.exchange.lm_eval.survey import Survey

_ASKED = (
    "output_type", "generation_kwargs", "repeats", "doc_to_choice", "target_delimiter", "process_results",
    "dataset_path", "dataset_name", "test_split",
)  # fmt: skip
"""What of a task's configuration must agree: neither the hashes of prompts nor names prove it."""
_UNHASHED = (
    "doc_to_text", "doc_to_target", "description", "fewshot_delimiter", "fewshot_split", "fewshot_config",
    "process_docs",
)  # fmt: skip
"""What must agree too where there are no samples, whose hashes prove it."""
_LEFT_OUT = {**dict.fromkeys((*_ASKED, *_UNHASHED)), "repeats": 1, "target_delimiter": " "}
"""What lm-eval means by a key that a task's whole configuration leaves out."""
_LONG, _BEGINNING = 400, 100
"""Letters of a text from which on its beginning and its hash are kept: functions are there as source."""


def conditions_of(survey: Survey, judge: Judge) -> dict[str, str]:
    """How a task was asked, as cells keep it; nothing of files that qeval wrote, whose settings tell it."""
    results = survey.results
    if results.ours:
        return {}
    given = arguments_of(results.config.get("model_args"))
    told = {**_deciding(survey, judge), **told_of(results), **arguments(given)}
    if survey.asked:
        digests = (f"{key}\0{survey.asked[key].hex()}\n" for key in sorted(survey.asked))
        told[ITEMS] = hashlib.sha256("".join(digests).encode("utf-8", "surrogatepass")).hexdigest()
    return {name: _kept(value) for name, value in told.items()}


def _kept(value: str) -> str:
    if len(value) <= _LONG:
        return value
    brief = hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{value[:_BEGINNING]}... ({brief})"


def first_other_item(survey: Survey, first: Survey, name: str) -> Iterator[str]:
    """A sentence that names an item that was given something else than by `first`, the survey of `name`."""
    if survey.results.ours or first.results.ours:
        return
    other = [key for key, asked in survey.asked.items() if first.asked.get(key, asked) != asked]
    if other:
        given = f"item {other[0]} has another prompt, other choices or another right answer than in {name}"
        yield f"{survey.task}: {given}, as have {len(other)} in all."


def _deciding(survey: Survey, judge: Judge) -> dict[str, str]:
    """What decides a value besides the prompt, by name; only what the file tells."""
    config = survey.said.config
    names = (*_ASKED, *_UNHASHED)
    whole = {**_LEFT_OUT, **config} if "output_type" in config else config
    known = {name: whole[name] for name in names if name in whole}
    for name, entries, mine in (
        ("filter", config.get("filter_list"), {"name": judge.filter}),
        ("metric", config.get("metric_list"), {"metric": judge.metric}),
    ):
        found = [entry for entry in entries or () if mine.items() <= entry.items()]
        known |= {f"the {name} {next(iter(mine.values()))}": found[0] for _ in found[:1]}
    known |= _of_call(survey.results, survey.task, str(config.get("output_type") or ""))
    return {name: _as_text(value) for name, value in known.items()}


def _of_call(results: ResultsFile, task: str, output_type: str) -> dict[str, Any]:
    """What the file tells of how lm-eval was called. How texts are to be generated does not concern choices
    that are scored."""
    table, hashes = results.table, results.table.get("task_hashes")
    known = {"max_length": table["max_length"]} if table.get("max_length") is not None else {}
    if isinstance(hashes, dict) and task in hashes:
        known["task_hashes"] = hashes[task]
    if output_type not in SCORED:
        known["gen_kwargs"] = results.config.get("gen_kwargs") or None
    return known


def _as_text(value: Any) -> str:
    """As JSON, without what is each process's own (the address of a function), or is compared elsewhere."""
    kept = {k: v for k, v in value.items() if k != "aggregation"} if isinstance(value, dict) else value
    if kept is None:
        return "none"
    return re.sub(r" at 0x[0-9a-f]+", "", json.dumps(kept, sort_keys=True, default=str))
