"""Low-rank adapters through peft, kept beside the weights or merged into them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qeval.errors import MissingPackageError, QevalError
from qeval.schemes.spec import Order
from qeval.schemes.versions import version_of
from qeval.sources import Source, model_identity

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


def attach(model: Any, adapter: str, order: Order) -> Any:
    """The model with the adapter. QevalError where it cannot be found, does not fit or cannot be merged."""
    if version_of("peft") is None:
        raise MissingPackageError("An adapter needs peft.", "Install it with: pip install 'qeval[adapter]'")
    from peft import PeftModel

    source, merged = split(adapter)
    try:
        wrapped = PeftModel.from_pretrained(model, source.place, revision=source.revision or "main").eval()
        layers = sum(hasattr(module, "lora_A") for module in wrapped.modules())
        # the base model holds the adapter's layers now, and is of the class that scoring knows
        found = wrapped.merge_and_unload().eval() if merged else wrapped.get_base_model()
    except Exception as error:
        raise QevalError(
            f"The adapter {source.path} cannot be {'merged' if merged else 'attached'}:"
            f" {' '.join(str(error).split())[:200]}",
            "Check that it was trained on this model; some schemes take adapters unmerged only.",
        ) from error
    how = "merged into the weights" if merged else "beside the weights, unmerged"
    order.notes.append(f"The adapter {source.path} is {how} ({layers} layers).")
    return found
