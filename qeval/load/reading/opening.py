"""Opening a model through transformers, whole and as it was saved, or not at all."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from qeval.base.errors import QevalError
from qeval.load.reading import kept, unused
from qeval.load.reading.failures import explain
from qeval.load.reading.headers import stored_tensors
from qeval.load.source import read_config, read_json
from qeval.load.spec import OptionSpec, Recipe

ATTENTION = OptionSpec(
    "attention",
    str,
    "auto",
    "attention implementation of transformers",
    choices=("auto", "eager", "sdpa", "flash_attention_2", "flex_attention"),
    acts="reading",
    on_gpu=("flash_attention_2",),
)
"""An option of every scheme; `open_model` heeds it."""


def attention(recipe: Recipe) -> dict[str, str]:
    """The keyword of from_pretrained for the option `attention`."""
    chosen = recipe.options.get("attention", "auto")
    return {} if chosen == "auto" else {"attn_implementation": chosen}


def open_model(recipe: Recipe, *, dtype: str | None = None, **keywords: Any) -> Any:
    """The model of `recipe.source` by AutoModelForCausalLM, plain weights in `dtype` (or `recipe.store`).

    `keywords` go to from_pretrained; attention is the recipe's unless they name it. Raises QevalError for
    everything that a person can mend.
    """
    import torch
    from transformers import AutoModelForCausalLM

    keywords.setdefault("device_map", {"": recipe.held})
    held = getattr(torch, dtype or recipe.store)
    try:
        with unused.watched() as loading:
            model, found = AutoModelForCausalLM.from_pretrained(
                recipe.source.place,
                revision=recipe.source.revision or "main",
                dtype=held,
                trust_remote_code=recipe.trust_remote_code,
                output_loading_info=True,
                **(attention(recipe) | keywords),
            )
    except QevalError:
        raise
    except Exception as error:
        raise explain(error, recipe.source, recipe.device) from error
    _check_complete(unused.made_up(model, loading, found["missing_keys"]), recipe)
    unused.check(recipe, model, loading, found["unexpected_keys"])
    own_settings = recipe.ready and getattr(model.config, "quantization_config", None)
    if "gguf_file" not in keywords and not own_settings:
        _check_types(recipe, loading.unexpected)
    stays = kept.mark(model, held)
    if stays:
        recipe.notes.append(kept.in_words(stays))
    return model.eval()


def open_in_compute(recipe: Recipe, **keywords: Any) -> Any:
    """The model with its plain weights in the compute type, for libraries that take one type for all."""
    recipe.evidence["dtype"] = recipe.compute
    return open_model(recipe, dtype=recipe.compute, **keywords)


def outline(recipe: Recipe) -> Any:
    """The model of `recipe.source` on torch's meta device, without weights. QevalError as open_model."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    place, trust = recipe.source.place, recipe.trust_remote_code
    try:
        config = AutoConfig.from_pretrained(
            place, revision=recipe.source.revision or "main", trust_remote_code=trust
        )
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=trust)
    except Exception as error:
        raise explain(error, recipe.source, recipe.device) from error


def _check_complete(missing: Collection[str], recipe: Recipe) -> None:
    """Refuse a model of which transformers found no weights for some layers: it has made them up."""
    if missing:
        raise QevalError(
            f"{recipe.source.path} gives no values to {len(missing)} tensors of the model"
            f" (the first: {min(missing)}).",
            "Its files may be incomplete, or its library reads this form of it on no such device"
            f" ({recipe.device}).",
        )


def _check_types(recipe: Recipe, unexpected: Collection[str]) -> None:
    """Refuse weights that only a quantisation explains where the checkpoint names none: they would be taken
    for numbers as they stand."""
    config = read_config(recipe.source)
    told = [part.get("quantization_config") for part in (config, config.get("text_config") or {})]
    if any(told) or read_json(recipe.source, "quantize_config.json"):
        return
    for name, stored in stored_tensors(recipe.source).items():
        whole = stored.dtype.startswith(("F16", "F32", "F64", "BF16", "C"))
        if not whole and len(stored.shape) > 1 and name not in unexpected:
            raise QevalError(
                f"{name} of {recipe.source.path} is stored as {stored.dtype}, and no quantization_config"
                " says what its numbers stand for.",
                "Download the checkpoint again, with the config.json that belongs to it.",
            )


def compute_in(model: Any, dtype: str, keep: tuple[type, ...] = ()) -> Any:
    """Hold every plain floating tensor of the model in `dtype`, so that it is calculated in; returns it.

    Modules of the classes `keep` (quantised ones) stay as they are, and so do the parameters that
    transformers keeps in float32. Casting down or up happens in place, so that tied weights stay tied.
    """
    import torch

    wanted = getattr(torch, dtype)
    stays = {id(model.get_parameter(name)) for name in kept.names(model)}
    for module in model.modules():
        if isinstance(module, keep):
            continue
        for tensor in module.parameters(recurse=False):
            if tensor.is_floating_point() and tensor.dtype.itemsize > 1 and id(tensor) not in stays:
                tensor.data = tensor.data.to(wanted)
    model.config.dtype = wanted
    return model
