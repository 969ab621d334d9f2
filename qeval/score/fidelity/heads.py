"""A model's head by itself: what of it is kept beside the states that enter it, and how both are put to work
in another process, where the model's body is not.

The head is never called by name. A model of the same class is made on torch's meta device, where it takes no
memory; what stands outside of its body gets its weights, and the model's own forward runs on stored states.
So scaling, soft caps and whatever else a model does to its logits stay the model's own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qeval.base.errors import QevalError
from qeval.score.engine.body import CausalModel, replayed

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

WEIGHT, BIAS = "head.weight", "head.bias"
_REST = "rest."
_PROBES = 256
"""States that a quantised head is asked for at once when it is unpacked."""


@dataclass(frozen=True, eq=False)
class Head:
    """A head's weights, and the class and configuration of the model that it belongs to.

    tensors: WEIGHT (v, h), any BIAS (v,), and with a prefix what else stands outside of the body.
    """

    tensors: dict[str, torch.Tensor]
    architecture: str
    config: dict[str, Any]


def head_of(lm: CausalModel) -> Head:
    """The head of a model in evaluation. Raises QevalError for a model without one, or one that is no single
    layer from states to logits."""
    model = _inner(lm.model)
    weight, bias = _weights(lm, model)
    tensors = {WEIGHT: weight} | ({BIAS: bias} if bias is not None else {})
    tensors |= {f"{_REST}{name}": tensor for name, tensor in _rest(lm, model)}
    return Head(tensors, type(model).__name__, _told(model.config))


def check_causal(lm: CausalModel) -> None:
    """Raise QevalError for a model whose distributions cannot be compared: an encoder with a decoder, and one
    without a head."""
    model = _inner(lm.model)
    if getattr(model.config, "is_encoder_decoder", False):
        raise QevalError(
            f"{type(model).__name__} is an encoder-decoder model: it does not read its tokens as one text.",
            "Fidelity is measured for causal language models only.",
        )
    if model.get_output_embeddings() is None or lm.body is None:
        raise QevalError(
            f"{type(model).__name__} has no head that can be separated from its body.",
            "Fidelity needs a model whose last hidden states enter one head; leave out --fidelity.",
        )


class Replayed:
    """A stored head at work: `logits` maps states (r, h) to logits (r, v). `lm` is a loaded model of the same
    class, which tells where the body is and what it returns. Raises QevalError where the classes differ."""

    def __init__(self, head: Head, lm: CausalModel) -> None:
        import torch
        from torch import nn

        model = _inner(lm.model)
        if type(model).__name__ != head.architecture:
            raise QevalError(
                f"The baseline is a {head.architecture}, and the variant a {type(model).__name__}: their"
                " heads are not the same.",
                "Compare variants of one model.",
            )
        config = type(model.config).from_dict(_plain(head.config))
        with torch.device("meta"):
            self.shell = type(model)._from_config(config).eval()  # noqa: SLF001 - the door for a class known
        self.like, self.body = lm.like, self.shell.get_submodule(_body_name(lm, model))
        weight = head.tensors[WEIGHT].to(lm.device)
        bias = head.tensors[BIAS].to(lm.device) if BIAS in head.tensors else None
        own = self.shell.get_output_embeddings()
        if isinstance(own, nn.Embedding):
            own.weight = nn.Parameter(weight, requires_grad=False)
        else:
            layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
            layer.weight = nn.Parameter(weight, requires_grad=False)
            layer.bias = nn.Parameter(bias, requires_grad=False) if bias is not None else None
            self.shell.set_output_embeddings(layer)
        for name, tensor in head.tensors.items():
            if name.startswith(_REST):
                _put(self.shell, name.removeprefix(_REST), tensor.to(lm.device))

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits (r, v) of states (r, h)."""
        return replayed(self.shell, self.body, self.like, hidden)


def _inner(model: Any) -> Any:
    """The model within an adapter's wrapping."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _body_name(lm: CausalModel, model: Any) -> str:
    return str(next(name for name, module in model.named_modules() if module is lm.body))


def _told(config: Any) -> dict[str, Any]:
    """A configuration as JSON values."""
    found: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    return found


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration without a quantisation, for the head's weights are plain."""
    return {name: value for name, value in config.items() if name != "quantization_config"}


def _weights(lm: CausalModel, model: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The weight (v, h) and bias (v,) of the head, unpacked through itself where it is quantised: the product
    of the unit vectors, each a sum of one term."""
    import torch
    from torch import nn

    layer = model.get_output_embeddings()
    if type(layer) in {nn.Linear, nn.Embedding} and layer.weight.is_floating_point():
        return layer.weight.detach().contiguous(), _detached(getattr(layer, "bias", None))
    width = int(getattr(lm.config, "hidden_size", 0) or layer.in_features)
    with torch.no_grad():
        nothing = layer(torch.zeros((1, width), dtype=lm.dtype, device=lm.device))
        rows = [
            layer(part) - nothing
            for part in torch.eye(width, dtype=lm.dtype, device=lm.device).split(_PROBES)
        ]
    bias = nothing[0] if bool(nothing.any()) else None
    return torch.cat(rows).t().contiguous(), bias


def _detached(tensor: torch.Tensor | None) -> torch.Tensor | None:
    return None if tensor is None else tensor.detach()


def _rest(lm: CausalModel, model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """What stands outside of body and head, by name."""
    inside = {id(tensor) for part in (lm.body, model.get_output_embeddings()) for tensor in _tensors(part)}
    seen: set[int] = set()
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if id(tensor) not in inside | seen:
            seen.add(id(tensor))
            yield name, tensor.detach()


def _tensors(module: Any) -> Iterator[torch.Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _put(model: Any, name: str, tensor: torch.Tensor) -> None:
    """Give a parameter or buffer of a model its value."""
    from torch import nn

    path, _, attribute = name.rpartition(".")
    module = model.get_submodule(path)
    known = getattr(module, attribute)
    setattr(
        module,
        attribute,
        nn.Parameter(tensor, requires_grad=False) if isinstance(known, nn.Parameter) else tensor,
    )
