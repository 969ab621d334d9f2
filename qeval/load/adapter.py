"""Adapters through peft, with every trained tensor or not at all, beside the weights or merged into them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qeval.base import installed
from qeval.base.errors import MissingPackageError, QevalError
from qeval.load.source import Source, model_identity, read_json
from qeval.load.spec import Recipe, SchemeSpec
from qeval.load.versions import version_of

MERGED = "merged:"
"""Written before the adapter's name: merge it, so that the claim that merging costs nothing is measurable."""
PROMPTS = {
    "PROMPT_TUNING": "prompt tuning",
    "MULTITASK_PROMPT_TUNING": "multitask prompt tuning",
    "P_TUNING": "p-tuning",
    "PREFIX_TUNING": "prefix tuning",
    "CPT": "context-aware prompt tuning",
    "CARTRIDGE": "a cartridge",
}
"""The kinds of peft that learn a prompt, by peft's names."""


def split(adapter: str) -> tuple[Source, bool]:
    """The adapter's place, and whether it is to be merged: `merged:PATH`, or PATH; `@revision` may follow."""
    merged = adapter.startswith(MERGED)
    name = adapter.removeprefix(MERGED)
    source = Source(name)
    if not source.local and "@" in name:
        source = Source(*name.split("@", 1))
    return source, merged


def identity(adapter: str, cache_dir: Path) -> dict[str, Any]:
    """What makes the adapter this one, for the key of a stored result."""
    source, merged = split(adapter)
    return {**model_identity(source.path, source.revision, cache_dir), "merged": merged}


def check(adapter: str, spec: SchemeSpec, options: Mapping[str, Any]) -> None:
    """Raise MissingPackageError without peft, QevalError where merged weights would be quantised no more:
    what is unpacked or simulated holds plain numbers, and would go on telling the bits that they had."""
    if version_of("peft") is None:
        raise MissingPackageError("An adapter needs peft.", installed.remedy("adapter"))
    source, merged = split(adapter)
    if merged and spec.unpacks(options):
        raise QevalError(
            f"{spec.name} holds plain weights here, which are off its grid once {source.path} is merged.",
            _unmerged(source),
        )


def check_kind(adapter: str) -> None:
    """Refuse a trained prompt, before weights are read. QevalError where the adapter cannot be found."""
    source, _ = split(adapter)
    kind = str((read_json(source, "adapter_config.json") or {}).get("peft_type"))
    if kind in PROMPTS:
        raise QevalError(
            f"The adapter {source.path} is {PROMPTS[kind]}: it puts trained states before every text, and"
            " none of qeval's engines does so.",
            "Score an adapter that changes layers, such as LoRA or IA3.",
        )


def _unmerged(source: Source) -> str:
    return (
        f"Write --adapter {source.path}, to keep it beside the weights; or merge it first and then quantise."
    )


def attach(model: Any, adapter: str, recipe: Recipe) -> Any:
    """The model with the adapter.

    QevalError where it cannot be found, does not fit or cannot be merged, where a tensor of its file has no
    place or one of its layers no values, and where merging changes nothing: optimum-quanto, for one, lets it
    happen and keeps its weights.
    """
    from peft import PeftModel, load_peft_weights

    source, merged = split(adapter)
    revision = source.revision or "main"
    try:
        weights = load_peft_weights(source.place, "cpu", revision=revision)
        _make_room(model, weights, recipe, source)
        before = _answer(model)
        wrapped = PeftModel.from_pretrained(model, source.place, revision=revision).eval()
        loaded = wrapped.load_adapter(source.place, "default", revision=revision)  # tells what fits nowhere
        unused = [name for name in loaded.unexpected_keys if not _is_copy(name, weights)]
        _check_fits(unused, loaded.missing_keys, source)
        told = _layers(wrapped)
        # the base model holds the adapter's layers now, and is of the class that scoring knows
        found = wrapped.merge_and_unload().eval() if merged else wrapped.get_base_model()
    except QevalError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200].rstrip(".") or "this kind of layer does not know how"
        raise QevalError(
            f"The adapter {source.path} cannot be {'merged' if merged else 'attached'}: {reason}.",
            "Check that it was trained on this model." + (f" {_unmerged(source)}" if merged else ""),
        ) from error
    _check_acts(_answer(found).equal(before), source, merged, recipe)
    how = "merged into the weights" if merged else "beside the weights, unmerged"
    recipe.notes.append(f"The adapter {source.path} is {how} ({told}).")
    return found


def _check_acts(idle: bool, source: Source, merged: bool, recipe: Recipe) -> None:
    """Refuse a merged adapter that changes nothing, and warn of one beside the weights that does not."""
    if idle and merged:
        raise QevalError(
            f"The adapter {source.path} changes nothing once it is merged: these weights do not take it, or"
            " it was not trained.",
            _unmerged(source),
        )
    if idle:
        recipe.warnings.append(
            f"The adapter {source.path} changes no logit of a probe: it was not trained, or acts on nothing."
        )


def _check_fits(unexpected: Sequence[str], missing: Sequence[str], source: Source) -> None:
    """Refuse trained tensors that were not used, and layers of the adapter that hold made-up numbers."""
    for names, what in (
        (unexpected, "that fit no layer of this model"),
        (missing, "too few: layers that its configuration names have none"),
    ):
        if names:
            tensors = f"{len(names)} tensor" + ("s" if len(names) > 1 else "")
            raise QevalError(
                f"The adapter {source.path} has {tensors} {what} (the first: {min(names)}).",
                "Check that it was trained on this model, and that its files are complete.",
            )


def _is_copy(name: str, weights: Mapping[str, Any]) -> bool:
    """Whether a tensor is one that peft writes twice: a module that was trained whole, with new tokens."""
    other = weights.get(name.replace(".modules_to_save.", "."))
    return name in weights and other is not None and other.equal(weights[name]) and other is not weights[name]


def _layers(wrapped: Any) -> str:
    """How many layers an adapter acts on, and which modules it brings whole."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    modules = dict(wrapped.named_modules())
    layers = sum(isinstance(module, BaseTunerLayer) for module in modules.values())
    whole = [
        name.removeprefix("base_model.model.")
        for name, module in modules.items()
        if isinstance(module, AuxiliaryTrainingWrapper)
    ]
    return f"{layers} layers" + (f", and {', '.join(whole)} of its own" if whole else "")


def _make_room(model: Any, weights: Mapping[str, Any], recipe: Recipe, source: Source) -> None:
    """Give the model as many rows of embeddings as the adapter brings. QevalError where it brings more for
    reading than for answering, or the other way round: the rest would be random."""
    ends = {"reading": model.get_input_embeddings(), "answering": model.get_output_embeddings()}
    rows = {what: _rows(module, model, weights) for what, module in ends.items()}
    most, now = max(rows.values()), int(ends["reading"].weight.shape[0])
    if most <= now:
        return
    tied = ends["answering"] is None or ends["reading"].weight is ends["answering"].weight
    short = [what for what, found in rows.items() if found < most]
    if short and not tied:
        raise QevalError(
            f"The adapter {source.path} brings {most - now} tokens more than the model has, and no weights"
            f" for {short[0]} them.",
            "Save it again with both embeddings: modules_to_save=['embed_tokens', 'lm_head'].",
        )
    model.resize_token_embeddings(most, mean_resizing=False)
    recipe.notes.append(f"The adapter {source.path} brings {most - now} tokens of its own.")


def _rows(module: Any, model: Any, weights: Mapping[str, Any]) -> int:
    """The rows that an adapter's file holds for one of the embeddings; 0 where it holds none."""
    place = next((name for name, found in model.named_modules() if found is module), "")
    ends = tuple(f".{place}.{part}weight" for part in ("", "base_layer.", "modules_to_save."))
    return max((int(tensor.shape[0]) for name, tensor in weights.items() if name.endswith(ends)), default=0)


def _answer(model: Any) -> Any:
    """The logits of the first and the last few tokens that the model knows."""
    import torch

    rows = int(model.get_input_embeddings().weight.shape[0])
    tokens = torch.cat((torch.arange(8), torch.arange(rows - 8, rows))).clamp(0, rows - 1)
    with torch.no_grad():
        return model(tokens[None].to(model.device)).logits


def tokenizer_source(adapter: str | None) -> Source | None:
    """Where an adapter's own tokenizer is; None without an adapter, or without one beside it."""
    source = split(adapter)[0] if adapter else None
    return source if source and read_json(source, "tokenizer_config.json") is not None else None
