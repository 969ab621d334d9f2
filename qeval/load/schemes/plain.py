"""fp32, bf16, fp16: weights rounded to a floating type, not quantised."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from qeval.base.errors import MissingPackageError
from qeval.load.reading.opening import compute_in, open_model
from qeval.load.schemes.spec import OptionSpec, Recipe, SchemeSpec

ATTENTION = OptionSpec(
    "attention",
    str,
    "auto",
    "attention implementation of transformers",
    choices=("auto", "eager", "sdpa", "flash_attention_2", "flex_attention"),
    acts="reading",
    on_gpu=("flash_attention_2",),
)


def attention(recipe: Recipe) -> dict[str, str]:
    """The keyword of from_pretrained for the option `attention`."""
    chosen = recipe.options.get("attention", "auto")
    return {} if chosen == "auto" else {"attn_implementation": chosen}


def check_attention(options: Mapping[str, Any]) -> None:
    """Raise MissingPackageError for flash attention where neither package is there that brings it."""
    asked = options.get("attention") == "flash_attention_2"
    if asked and not any(importlib.util.find_spec(name) for name in ("flash_attn", "kernels")):
        raise MissingPackageError(
            "attention=flash_attention_2 needs flash-attn.",
            "Install it with: pip install --no-build-isolation flash-attn; or write attention=sdpa.",
        )


def load(recipe: Recipe) -> Any:
    """The model with its weights rounded to the scheme's type, calculated in `recipe.compute`."""
    return compute_in(open_model(recipe, **attention(recipe)), recipe.compute)


def _spec(name: str, dtype: str, remark: str, verified: str) -> SchemeSpec:
    return SchemeSpec(
        name, f"weights in {dtype}{remark}", load, (ATTENTION,), quantised=False, verified=verified
    )


SPECS = (
    _spec("fp32", "float32", "", "CPU"),
    _spec("bf16", "bfloat16", "", "CPU"),
    _spec("fp16", "float16", ", the usual baseline", "CPU, H100"),
)
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
