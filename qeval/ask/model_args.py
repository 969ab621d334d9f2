"""The `model_args` of lm-eval's configuration: those that change what is measured must be what this run's
options say, or are refused by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qeval.base.errors import UsageError, did_you_mean

_PLACED = frozenset(
    [
        "pretrained", "backend", "logits_cache", "device", "batch_size", "max_batch_size",
        "trust_remote_code", "parallelize", "max_memory_per_gpu", "max_cpu_memory", "offload_folder",
        "tp_plan", "device_map", "low_cpu_mem_usage", "attn_implementation", "tensor_parallel_size",
        "data_parallel_size", "pipeline_parallel_size", "gpu_memory_utilization", "swap_space",
        "max_num_seqs", "enforce_eager", "use_fast_tokenizer", "num_concurrent", "max_retries",
        "base_url", "tokenizer_backend",
    ]
)  # fmt: skip
"""What says which model, where and how fast; --model and other options say it here."""
_USUAL = {"add_bos_token": None, "revision": "main", "subfolder": "", "truncation": False}
"""What lm-eval takes where nothing is said; None and false are so of others."""
_HINTS = {
    "max_length": "Leave it out of the file: prompts are as long as the model takes.",
    "max_model_len": "Leave it out of the file: prompts are as long as the model takes.",
    "add_bos_token": "Leave it out of the file: the tokenizer's own setting holds.",
    "enable_thinking": "Leave it out of the file: the tokenizer's template holds as it is.",
    "delta": "Leave it out of the file, and name the whole model with --model.",
    "gguf_file": "Leave it out of the file, and name the model with --model.",
    "subfolder": "Leave it out of the file, and name the directory with --model.",
    "load_in_4bit": "Leave it out of the file, and add bnb4 to --schemes.",
    "load_in_8bit": "Leave it out of the file, and add bnb8 to --schemes.",
    "autogptq": "Leave it out of the file, and add gptq to --schemes.",
    "gptqmodel": "Leave it out of the file, and add gptq to --schemes.",
    "quantization": "Leave it out of the file, and name the scheme with --schemes.",
}
_OTHERS = (
    "prefix_token_id", "softmax_dtype", "mixed_precision_dtype", "truncation", "truncation_side",
    "chat_template_args", "max_gen_toks", "seed",
)  # fmt: skip
_LEAVE = "Leave it out of the file: nothing here would do the same."
_TYPES = {"float32": "fp32", "float": "fp32", "float16": "fp16", "half": "fp16", "bfloat16": "bf16"}
"""The types that lm-eval loads weights in, and the schemes that do the same."""


@dataclass(frozen=True)
class Asked:
    """What a run's options say of the model; `schemes` are names without options."""

    model: str = ""
    revision: str | None = None
    adapter: str | None = None
    schemes: tuple[str, ...] = ()
    dtype: str = "auto"
    think_end: str | None = None


def check(path: Path, value: Any, asked: Asked) -> None:
    """Raises UsageError for a model argument that changes what is measured and is not what was asked."""
    for name, wanted in _table(path, value).items():
        plain = _plain(wanted)
        usual = _USUAL.get(name, False)
        if name in _PLACED or plain is None or (type(plain) is type(usual) and plain == usual):
            continue
        answer = _ANSWERS.get(name)
        if answer is None:
            raise UsageError(
                f"{path}: model_args has {name}: {wanted}, which would have no effect.", _hint(name)
            )
        option = answer(str(wanted), asked)
        if option:
            raise UsageError(f"{path}: model_args has {name}: {wanted}, and this run does not.", option)


def _table(path: Path, value: Any) -> dict[str, Any]:
    """From a table or from "name=value,..."."""
    if value is None:
        return {}
    if isinstance(value, str):
        pairs = (part.partition("=") for part in value.split(",") if part.strip())
        return {name.strip(): word.strip() for name, _, word in pairs}
    if isinstance(value, Mapping):
        return {str(name): word for name, word in value.items()}
    raise UsageError(f"{path}: model_args is not a table.", "Write for example: model_args: {dtype: float16}")


def _plain(value: Any) -> Any:
    """A value as YAML would hold it, where it stood in a text."""
    words = {"none": None, "null": None, "false": False, "true": True}
    return words.get(value.lower(), value) if isinstance(value, str) else value


def _hint(name: str) -> str:
    if name in _HINTS or name in _OTHERS:
        return _HINTS.get(name, _LEAVE)
    return did_you_mean(name, sorted({*_HINTS, *_PLACED, *_ANSWERS, *_OTHERS})) or _LEAVE


# --- what an option says too: empty where it says the same, else the remedy ----------------------


def _revision(wanted: str, asked: Asked) -> str:
    return "" if wanted == asked.revision else f"Add --revision {wanted}."


def _adapter(wanted: str, asked: Asked) -> str:
    told = (asked.adapter or "").removeprefix("merged:")
    return "" if wanted == told else f"Add --adapter {wanted}."


def _tokenizer(wanted: str, asked: Asked) -> str:
    return "" if wanted == asked.model else "Leave it out of the file: the model's own tokenizer is taken."


def _think_end(wanted: str, asked: Asked) -> str:
    return "" if wanted == asked.think_end else f"Add --think-end {wanted}."


def _dtype(wanted: str, asked: Asked) -> str:
    """Weights of that type are a scheme; where it calculates only is --dtype."""
    wanted = wanted.removeprefix("torch.")
    scheme = _TYPES.get(wanted)
    same = wanted == "auto" or not asked.schemes or scheme in asked.schemes or wanted == asked.dtype
    return "" if same else f"Add {scheme} to --schemes." if scheme else _LEAVE


_ANSWERS: Mapping[str, Callable[[str, Asked], str]] = {
    "revision": _revision,
    "peft": _adapter,
    "lora_local_path": _adapter,
    "tokenizer": _tokenizer,
    "think_end_token": _think_end,
    "dtype": _dtype,
}
