"""Opening a model through transformers, with its failures turned into sentences."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from qeval.base.errors import MissingPackageError, QevalError
from qeval.load.reading import kept
from qeval.load.source import Source, hub_refusal
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

    keywords.setdefault("device_map", {"": recipe.device})
    held = getattr(torch, dtype or recipe.store)
    try:
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
    _check_complete(found["missing_keys"], recipe)
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


def explain(error: Exception, source: Source, device: str) -> Exception:
    """`error` as a QevalError where its cause is known, else as it is."""
    name, text = source.path, str(error)
    refusal = hub_refusal(name, source.revision, _root(error))
    if refusal is not None:
        return refusal
    for applies, found in _known(error, text, name, device):
        if applies:
            return found
    return error


def _known(error: Exception, text: str, name: str, device: str) -> Iterator[tuple[bool, QevalError]]:
    """Whether `error` is of a kind that is known, and what is said then; the first that applies counts."""
    first = " ".join(text.split())[:300]
    yield (
        type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in text,
        QevalError(
            f"{name} does not fit into the memory of {device}.", "Choose a smaller model or another device."
        ),
    )
    yield (
        "trust_remote_code" in text,
        QevalError(
            f"{name} brings code of its own, which is not run unasked.",
            "Read that code, and if you trust it add --trust-remote-code.",
        ),
    )
    yield (
        type(error).__name__ == "SafetensorError",
        QevalError(f"A weight file of {name} is damaged: {first}.", "Download or save the model again."),
    )
    yield (
        isinstance(error, ImportError),
        MissingPackageError(f"{name} cannot be loaded: {first}", "Install what it names."),
    )
    yield (
        isinstance(error, (ValueError, OSError, RuntimeError, KeyError, NotImplementedError)),
        QevalError(
            f"{name} cannot be loaded: {first}",
            "A run's log shows where, another command after `qeval --debug`.",
        ),
    )


def _root(error: BaseException) -> BaseException:
    """The first cause in a chain: transformers wraps the Hub's errors in OSError."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


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
