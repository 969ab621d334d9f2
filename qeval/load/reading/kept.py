"""The parameters that transformers keeps in float32 whatever a model is opened in, such as routers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_NAMES = "kept_in_float32"
_MATRIX = 2


def mark(model: Any, dtype: Any) -> list[str]:
    """Make a model that was opened in `dtype` remember the names of what stayed in float32; returns them.

    Those are named by its class (`_keep_in_fp32_modules`, and the strict form, which holds for bfloat16 too)
    or made in float32 by its code. Linear layers, packed ones and stacks of experts are kept by name only:
    a library may have unpacked them into float32.
    """
    found = list(_kept(model, dtype))
    setattr(model, _NAMES, frozenset(found))
    return found


def names(model: Any) -> frozenset[str]:
    """The parameters of a model that `mark` found; empty where it was never called."""
    found: frozenset[str] = getattr(model, _NAMES, frozenset())
    return found


def in_words(kept: list[str]) -> str:
    """Which parameters stay in float32: their names without the numbers of blocks, once each."""
    kinds = dict.fromkeys(re.sub(r"\.\d+\.", ".*.", name) for name in kept)
    return f"transformers keeps {', '.join(kinds)} in float32, and so is it calculated here."


def _kept(model: Any, dtype: Any) -> Iterator[str]:
    import torch

    from qeval.load.reading import proof

    if dtype not in {torch.float16, torch.bfloat16}:
        return
    patterns = [re.compile(glob.replace("*", ".*")) for glob in _plan(model, dtype)]
    for place, module in model.named_modules():
        free = not proof.is_linear(module) and not proof.is_quantised(module)
        for own, tensor in module.named_parameters(recurse=False):
            name = f"{place}.{own}" if place else own
            named = any(pattern.search(name) for pattern in patterns)
            if tensor.dtype == torch.float32 and (named or (free and tensor.dim() <= _MATRIX)):
                yield name


def _plan(model: Any, dtype: Any) -> list[str]:
    plan = getattr(model, "_get_dtype_plan", None)
    return list(plan(dtype)) if plan is not None else []
