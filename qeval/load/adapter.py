"""Low-rank adapters through peft, kept beside the weights or merged into them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qeval.base.errors import MissingPackageError, QevalError
from qeval.load.source import Source, model_identity
from qeval.load.spec import Recipe, SchemeSpec
from qeval.load.versions import version_of

MERGED = "merged:"
"""Written before the adapter's name: merge it, so that the claim that merging costs nothing is measurable."""


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
        raise MissingPackageError("An adapter needs peft.", "Install it with: pip install 'qeval[adapter]'")
    source, merged = split(adapter)
    if merged and spec.unpacks(options):
        raise QevalError(
            f"{spec.name} holds plain weights here, which are off its grid once {source.path} is merged.",
            _unmerged(source),
        )


def _unmerged(source: Source) -> str:
    return (
        f"Write --adapter {source.path}, to keep it beside the weights; or merge it first and then quantise."
    )


def attach(model: Any, adapter: str, recipe: Recipe) -> Any:
    """The model with the adapter. QevalError where it cannot be found, does not fit or cannot be merged, and
    where merging changes nothing: optimum-quanto, for one, lets it happen and keeps its weights."""
    from peft import PeftModel

    source, merged = split(adapter)
    before = _answer(model) if merged else None
    try:
        wrapped = PeftModel.from_pretrained(model, source.place, revision=source.revision or "main").eval()
        layers = sum(hasattr(module, "lora_A") for module in wrapped.modules())
        # the base model holds the adapter's layers now, and is of the class that scoring knows
        found = wrapped.merge_and_unload().eval() if merged else wrapped.get_base_model()
    except Exception as error:
        reason = " ".join(str(error).split())[:200].rstrip(".") or "this kind of layer does not know how"
        raise QevalError(
            f"The adapter {source.path} cannot be {'merged' if merged else 'attached'}: {reason}.",
            "Check that it was trained on this model." + (f" {_unmerged(source)}" if merged else ""),
        ) from error
    if before is not None and _answer(found).equal(before):
        raise QevalError(
            f"The adapter {source.path} changes nothing once it is merged: these weights do not take it, or"
            " it was not trained.",
            _unmerged(source),
        )
    how = "merged into the weights" if merged else "beside the weights, unmerged"
    recipe.notes.append(f"The adapter {source.path} is {how} ({layers} layers).")
    return found


def _answer(model: Any) -> Any:
    """The logits of a few tokens."""
    import torch

    with torch.no_grad():
        return model(torch.arange(8, device=model.device)[None]).logits
