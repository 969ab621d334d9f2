"""What two variants of one model must have in common beside what hashes prove, and what may differ.

The one place that lists it. What is known to differ leaves a task unproved, so that no gate passes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from qeval.exchange.lm_eval.judging import Judge
from qeval.exchange.lm_eval.results import ResultsFile, arguments_of
from qeval.exchange.lm_eval.samples import SCORED
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
_WEIGHTS = re.compile(
    "pretrained|model|path|engine|peft|delta|lora_local_path|adapter_weights|delta_weights|revision|subfolder"
    "|model_sha|scheme|gguf_file|variant"
    "|(torch_)?dtype|quant.*|load_in_(4|8)bit|bnb_.*|(auto)?gptq.*|gptqmodel|awq.*|hqq.*|wbits|groupsize"
    "|load_format|kv_cache_dtype"
)
"""Arguments of a model that say which weights it has and how they are held: what variants are made to differ
in."""
_MACHINE = re.compile(
    "device|device_map.*|parallelize|max_(cpu_)?memory.*|offload.*|low_cpu_mem_usage|attn_implementation"
    "|(max_)?batch_size|backend|trust_remote_code|(tensor|data|pipeline)_parallel_size|num_gpus|gpus"
    "|gpu_memory_utilization|swap_space|cpu_offload_gb|enforce_eager|num_concurrent|base_url|timeout"
    "|max_num_(seqs|batched_tokens)|enable_chunked_prefill|enable_prefix_caching|block_size"
    "|distributed_executor_backend|disable_log_.*|(tp|dp|pp)_size|mem_fraction_static|use_flash_attention_2"
    "|verify_certificate|api_key|auth_token|header"
    "|max_retries|cache_dir|use_cache|logits_cache|compile|nthreads|n_gpu_layers|seed|token|use_auth_token"
)
"""Arguments that say where and how fast it is calculated."""
_USUAL = {"add_bos_token": "False", "truncation": "False", "use_fast_tokenizer": "True"}
"""What arguments are where nobody gave them; others have no value then."""
_LONG = 120
_ALSO_CALLED = {"max_model_len": "max_length"}


def differing(survey: Survey, baseline: Survey, judge: Judge) -> Iterator[str]:
    """A sentence for each thing that is known not to be the baseline's, or that nothing tells of choices."""
    if survey is baseline or survey.results.ours or baseline.results.ours:
        return
    first, second = (_deciding(one, judge) for one in (baseline, survey))
    known = [(name, first[name], second[name]) for name in first if name in second]
    called = tuple(arguments_of(one.results.config.get("model_args")) for one in (baseline, survey))
    for name, one, two in (*known, *_arguments(*called)):
        if one != two:
            known_to = f"{name} is {_short(two)} where the baseline has {_short(one)}"
            yield f"{survey.task}: {known_to}, so nothing proves that they did the same."
    yield from _other_items(survey, baseline)


def _short(value: str) -> str:
    """A value in a sentence: functions are there by their source, and some harnesses record whole files."""
    return value if len(value) <= _LONG else f"{value[: _LONG - 3]}..."


def _arguments(first: Mapping[str, str], second: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Each argument that may not differ, and what it is for either; none where one file tells no arguments.
    Arguments that nobody here knows are among them."""
    if not first or not second:
        return
    one, two = (_as_called(some) for some in (first, second))
    for name in dict.fromkeys((*one, *two)):
        if not (_WEIGHTS.fullmatch(name) or _MACHINE.fullmatch(name)):
            yield f"model_args {name}", _value(one, name), _value(two, name)


def _as_called(arguments: Mapping[str, str]) -> dict[str, str]:
    return {_ALSO_CALLED.get(name, name): value for name, value in arguments.items()}


def _value(arguments: Mapping[str, str], name: str) -> str:
    """The value of an argument; a tokenizer is the model's own where none is named."""
    own = arguments.get("pretrained", "none") if name == "tokenizer" else "none"
    value = arguments.get(name, "None")
    return _USUAL.get(name, own) if value in {"None", ""} else value


def _other_items(survey: Survey, baseline: Survey) -> Iterator[str]:
    """What items were given, prompts and choices: the hashes are of documents, prompts and right answers."""
    if survey.published or baseline.published:
        return
    if not (survey.asked and baseline.asked):
        if survey.said.config.get("output_type") in SCORED:
            yield f"{survey.task}: its samples do not hold what was asked, so nothing proves its choices."
        return
    other = [key for key, asked in survey.asked.items() if baseline.asked.get(key, asked) != asked]
    if other:
        yield (
            f"{survey.task}: item {other[0]} was given another prompt or other choices than the baseline's, "
            f"as were {len(other)} in all: they were not asked the same."
        )


def _deciding(survey: Survey, judge: Judge) -> dict[str, str]:
    """What decides a value besides the prompt, by name; only what the file tells."""
    config = survey.said.config
    names = (*_ASKED, *(_UNHASHED if survey.published else ()))
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
