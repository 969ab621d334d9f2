"""How imported variants were asked, beside what hashes prove: what must agree between two, what may differ.

The one place that lists it, for variants of one import and for those of several runs. A cell tells it as
texts by name (`Cell.conditions`); what differs leaves a task unproved, so that no gate passes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from qeval.base.records import Cell, Result
from qeval.compare.rows import cell_of

ARGUMENT = "model_args "
"""What stands before the name of an argument that the model was loaded with."""
MODEL = f"{ARGUMENT}pretrained"
"""The argument that is told wherever any is: "none" where it was not given."""
ITEMS = "items"
"""The name of the hash of all that the items were given, prompts and choices, and of their right answers."""
_CALL = ("gen_kwargs",)
"""What a person adds when a tool is called, beside arguments: "none" where it was not given."""
_BY_PROMPTS = frozenset([
    "doc_to_text", "doc_to_target", "description", "fewshot_delimiter", "fewshot_split", "fewshot_config",
    "process_docs", "chat_template", "system_instruction", "fewshot_as_multiturn",
])  # fmt: skip
"""What the hashes of prompts prove where both have items, and must agree where one has none."""
SCORED = ("multiple_choice", "loglikelihood")
"""The output types whose continuations are given and scored, not made by the model."""
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
_ALSO_CALLED = {"max_model_len": "max_length"}
_NONE = "none"
_SHOWN = 120


def arguments(given: Mapping[str, str]) -> dict[str, str]:
    """The arguments that a model was loaded with, by the names that cells tell them under, without those that
    may differ; empty where none are known."""
    kept = {_ALSO_CALLED.get(name, name): value for name, value in given.items() if _matters(name)}
    own = {"pretrained": given.get("pretrained") or _NONE} if given else {}
    return {f"{ARGUMENT}{name}": value for name, value in {**own, **kept}.items()}


def _matters(name: str) -> bool:
    return not (_WEIGHTS.fullmatch(name) or _MACHINE.fullmatch(name))


def of_variants(base: Result, result: Result) -> Iterator[tuple[str, str]]:
    """(task, sentence) for each thing in which the two were not asked alike, or are not known to be."""
    for cell in base.cells:
        other = cell_of(result, cell.task)
        if other is not None:
            yield from ((cell.task.name, said) for said in differing(cell, other))


def differing(base: Cell, cell: Cell) -> Iterator[str]:
    """A sentence for each thing that is known not to be the baseline's, or is told of one of the two alone
    where that proves nothing. Nothing is said of two cells that tell nothing: qeval's own."""
    task = cell.task.name
    if not (base.conditions and cell.conditions):
        yield from _of_one_alone(base.conditions or cell.conditions, task)
        return
    if (MODEL in base.conditions) != (MODEL in cell.conditions):
        asked = base.conditions if MODEL in base.conditions else cell.conditions
        yield from _of_one_alone({k: v for k, v in asked.items() if k.startswith(ARGUMENT)}, task)
    for name, one, two in unlike(base, cell):
        known_to = f"{name} is {_short(two)} where the baseline has {_short(one)}"
        yield f"{task}: {known_to}, so nothing proves that they did the same."
    if _hashed(base, cell):
        yield from _other_items(base, cell)


def unlike(base: Cell, cell: Cell) -> Iterator[tuple[str, str, str]]:
    """What both tell, and tell otherwise: its name, and what it is for either; without what hashes prove."""
    by_hashes = _hashed(base, cell)
    told = (*_facts(base.conditions, cell.conditions, by_hashes=by_hashes), *_arguments(base, cell))
    yield from ((name, one, two) for name, one, two in told if one != two)


def _hashed(base: Cell, cell: Cell) -> bool:
    return not (base.aggregate_only or cell.aggregate_only)


def _of_one_alone(asked: Mapping[str, str], task: str) -> Iterator[str]:
    """What was asked for beside what is usual, where nobody knows it of the other variant."""
    told = {name: asked[name] for name in _CALL if asked.get(name, _NONE) != _NONE}
    told |= {
        name: value
        for name, value in asked.items()
        if name.startswith(ARGUMENT) and name != MODEL and value != _value(asked, name, default=True)
    }
    for name, value in told.items():
        yield (
            f"{task}: {name} is {_short(value)} for one of the two, and for the other it is not recorded, so "
            "nothing proves that they did the same."
        )


def _facts(
    one: Mapping[str, str], two: Mapping[str, str], *, by_hashes: bool
) -> Iterator[tuple[str, str, str]]:
    """What both tell, without arguments and items; without what hashes prove, where these do."""
    for name in one:
        shown = name in two and not name.startswith(ARGUMENT) and name != ITEMS
        if shown and not (by_hashes and name in _BY_PROMPTS):
            yield name, one[name], two[name]


def _arguments(base: Cell, cell: Cell) -> Iterator[tuple[str, str, str]]:
    """Each argument that may not differ, and what it is for either; none where one tells no arguments.
    Arguments that nobody here knows are among them."""
    one, two = base.conditions, cell.conditions
    if MODEL in one and MODEL in two:
        for name in dict.fromkeys((*one, *two)):
            if name.startswith(ARGUMENT) and name != MODEL:
                yield name, _value(one, name), _value(two, name)


def _value(asked: Mapping[str, str], name: str, *, default: bool = False) -> str:
    """The value of an argument, or what it is where nobody gave it; a tokenizer is the model's own then."""
    bare = name.removeprefix(ARGUMENT)
    own = asked.get(MODEL, _NONE) if bare == "tokenizer" else _NONE
    value = "None" if default else asked.get(name, "None")
    return _USUAL.get(bare, own) if value in {"None", ""} else value


def _other_items(base: Cell, cell: Cell) -> Iterator[str]:
    """What items were given, prompts and choices: the hashes are of documents, prompts and right answers."""
    one, two = base.conditions.get(ITEMS), cell.conditions.get(ITEMS)
    if one is None or two is None:
        if cell.output_type in SCORED:
            yield f"{cell.task.name}: its samples do not hold what was asked, so nothing proves its choices."
    elif one != two:
        yield other_items(cell.task.name)


def other_items(task: str) -> str:
    """The sentence on items that were given something else."""
    return f"{task}: its items, prompts, choices or right answers are not all the baseline's."


def _short(value: str) -> str:
    """A value in a sentence: functions are there by their source, and some harnesses record whole files."""
    return value if len(value) <= _SHOWN else f"{value[: _SHOWN - 3]}..."
