"""Stacks of experts: the weights of a mixture in one tensor of three dimensions, which is no linear layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from qeval.load.reading import kept

_STACK = 3
_BACK = ("down", "w2", "output")
"""How the names begin of weights that lead back to the hidden states."""


@dataclass(frozen=True, eq=False)
class Stack:
    """`module.parameter` holds the weights of all experts of a block, (experts, out, in), or where
    `transposed` (experts, in, out)."""

    name: str
    module: Any
    parameter: str
    transposed: bool

    @property
    def tensor(self) -> Any:
        """The parameter itself."""
        return getattr(self.module, self.parameter)

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs of one expert."""
        _, first, second = self.tensor.shape
        return (second, first) if self.transposed else (first, second)

    def weights(self) -> Iterator[Any]:
        """The weight of each expert, (out, in); what is written into it is written into the model."""
        for weight in self.tensor.data:
            yield weight.T if self.transposed else weight


NOTE = (
    "The experts, stacks of matrices that transformers leaves plain, are packed by {library} too; they are"
    " unpacked whenever they are read, which is slow."
)


def pack(
    model: Any,
    library: str,
    layer: Callable[[str, Any], Any],
    unpacked: Callable[[Any], Any],
    stays: Callable[[str], bool] = lambda _: False,
) -> list[str]:
    """Replace every stack of experts by layers of a library, one an expert; what is to be said, if any were.

    `layer` makes one out of a plain linear layer and its name, `unpacked` gives its weight (out, in) back,
    which is what the module then calculates with. That is what such a layer itself does where it rounds
    weights alone. A stack whose name `stays` is left plain. Raises what `layer` raises.
    """
    found = [stack for stack in stacks(model) if not stays(stack.name)]
    for stack in found:
        _replace(stack, [layer(stack.name, _linear(weight)) for weight in stack.weights()], unpacked)
    return [NOTE.format(library=library)] if found else []


def _linear(weight: Any) -> Any:
    from torch import nn

    out, inputs = weight.shape
    layer = nn.Linear(inputs, out, bias=False, device="meta")
    layer.weight = nn.Parameter(weight.contiguous().clone(), requires_grad=False)
    return layer


def _replace(stack: Stack, layers: list[Any], unpacked: Callable[[Any], Any]) -> None:
    """Make reading the parameter unpack the layers; once a call of its module, however often it is read."""
    import torch
    from torch import nn
    from torch.nn.utils import parametrize

    def unpack() -> Any:
        weights = [unpacked(layer) for layer in layers]
        return torch.stack([weight.T if stack.transposed else weight for weight in weights])

    class Unpacked(nn.Module):  # type: ignore[misc]  # torch is not followed by mypy here
        """Gives the weights of all experts, and holds nothing but their layers."""

        def __init__(self) -> None:
            super().__init__()
            self.layers, self.held = nn.ModuleList(layers), None

        def forward(self, _: Any) -> Any:
            return unpack() if self.held is None else self.held

        def right_inverse(self, whole: Any) -> Any:
            return whole.new_empty(0)

    packed = Unpacked()

    def hold(*_: Any) -> None:
        packed.held = unpack()

    def let_go(*_: Any) -> None:
        packed.held = None

    with torch.no_grad():
        parametrize.register_parametrization(stack.module, stack.parameter, packed, unsafe=True)
    stack.module.register_forward_pre_hook(hold)
    stack.module.register_forward_hook(let_go, always_call=True)


def stacks(model: Any) -> list[Stack]:
    """Every stack of experts that is held in plain numbers, all but those kept in float32."""
    return list(_stacks(model))


def _stacks(model: Any) -> Iterator[Stack]:
    hidden, stay = _hidden_size(model), kept.names(model)
    for place, module in model.named_modules():
        for own, tensor in module.named_parameters(recurse=False):
            name = f"{place}.{own}"
            plain = tensor.is_floating_point() and tensor.dtype.itemsize > 1 and name not in stay
            if tensor.dim() == _STACK and plain and _holds_experts(place, module, len(tensor)):
                yield Stack(name, module, own, _is_transposed(module, own, tensor.shape, hidden))


def _hidden_size(model: Any) -> int:
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    return int(getattr(config, "hidden_size", 0))


def _holds_experts(place: str, module: Any, count: int) -> bool:
    named = "expert" in type(module).__name__.lower() or place.endswith("experts")
    return named or getattr(module, "num_experts", None) == count


def _is_transposed(module: Any, own: str, shape: Any, hidden: int) -> bool:
    """As the module says itself; else by which side is as wide as the hidden states."""
    told = getattr(module, "is_transposed", None)
    if isinstance(told, bool):
        return told
    _, first, second = shape
    back, forth = second == hidden != first, first == hidden != second
    return bool(back if own.startswith(_BACK) else forth)
