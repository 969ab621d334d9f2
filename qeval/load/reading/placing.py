"""Layers that are put into a model here because transformers 5.23 fails to, for some libraries.

It looks a layer's dotted name up among the model's own children, and so ends in a KeyError on every model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

LayerFor = Callable[[Any, str, Any], Any]
"""Takes a checkpoint's quantization config, the name of a linear layer and that layer; returns the layer in
its place, None where it stays."""


@contextmanager
def placing(method: str, layer_for: LayerFor) -> Iterator[None]:
    """While it lasts, transformers reads checkpoints of `method` into the layers that `layer_for` makes."""
    from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING

    theirs = AUTO_QUANTIZER_MAPPING[method]
    AUTO_QUANTIZER_MAPPING[method] = _quantizer(theirs, layer_for)
    try:
        yield
    finally:
        AUTO_QUANTIZER_MAPPING[method] = theirs


def _quantizer(theirs: Any, layer_for: LayerFor) -> Any:
    """The class `theirs`, but asking for no GPU (qeval has checked what is needed) and placing all layers."""
    import torch

    def place(self: Any, model: Any, **_: Any) -> None:
        for name, linear in list(model.named_modules()):
            if not isinstance(linear, torch.nn.Linear):
                continue
            with torch.device("meta"):
                made = layer_for(self.quantization_config, name, linear)
            if made is not None:
                model.set_submodule(name, made.requires_grad_(False))

    own = {"validate_environment": lambda *_, **__: None, "_process_model_before_weight_loading": place}
    return type("Placing", (theirs,), own)
