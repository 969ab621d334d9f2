"""What a loaded model truly is, read from its modules and tensors: classes, counts, bits, bytes.

A layer that its tensors do not give away may say it itself, by attributes: `bits_per_weight`, what packing
its weights takes, which are plain numbers here but lie on a grid; `form`, in which they were stored;
`quantization`, a dictionary, how they were rounded, where the model's configuration does not tell; and where
it holds a stack of experts `stacked_weights`, their number, and `stands_for`, the name of their class.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from qeval.load.reading import kept

Beside = Callable[[Any], Iterable[tuple[str, Tensor]]]
"""Gives the tensors, with their names, that a module keeps elsewhere than in its parameters and buffers."""
_CONSTANTS = {"code", "wf", "wf_unsqueeze_zero", "wf_unsqueeze_neg_one", "bias"}
"""Tensors of a layer that its library could recompute (codebooks of 16 values, shift tables), and biases."""


_STACK = 3
_NO_WEIGHT = re.compile(r"bias$|\.default(\.|$)")
"""Tensors that are no weights though they have two dimensions: biases of experts, an adapter's own."""


def is_quantised(module: nn.Module) -> bool:
    """Whether a module holds its weight in another form than plain floating-point numbers.

    It does if it owns a matrix of integers or of 8-bit floats, if its weight is a tensor subclass of a
    quantisation library, or if it says that its weight lies on a grid.
    """
    return hasattr(module, "bits_per_weight") or any(_is_packed(tensor) for _, tensor in own_tensors(module))


def _is_packed(tensor: Tensor) -> bool:
    if _is_subclass(tensor):
        return True
    narrow = (
        tensor.dtype.itemsize == 1
        if tensor.is_floating_point()
        else tensor.dtype not in {torch.int64, torch.bool}
    )
    return tensor.dim() > 1 and narrow


def _is_subclass(tensor: Any) -> bool:
    return hasattr(tensor, "__tensor_flatten__")


def own_tensors(module: nn.Module, beside: Beside | None = None) -> Iterator[tuple[str, Tensor]]:
    """The tensors that a module owns itself, with their names: parameters, buffers, and what its library
    keeps `beside` them."""
    yield from module.named_parameters(recurse=False)
    yield from module.named_buffers(recurse=False)
    if beside is not None:
        yield from beside(module)


def tensor_bytes(tensor: Tensor) -> int:
    """Bytes of a tensor, of a subclass's inner tensors."""
    if _is_subclass(tensor):
        names, _ = tensor.__tensor_flatten__()
        inner = (getattr(tensor, name) for name in names)
        return sum(tensor_bytes(part) for part in inner if isinstance(part, Tensor))
    return int(tensor.numel() * tensor.dtype.itemsize)


def quantised_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The quantised modules by name."""
    return {name: module for name, module in model.named_modules() if is_quantised(module)}


def class_counts(modules: dict[str, nn.Module]) -> dict[str, int]:
    """How many modules of each class; where only the weight is special, the weight's class in brackets."""
    return dict(Counter(_class_name(module) for module in modules.values()))


def _class_name(module: nn.Module) -> str:
    weight = getattr(module, "weight", None)
    inner = f"[{type(weight).__name__}]" if type(module) is nn.Linear and _is_subclass(weight) else ""
    form = getattr(module, "form", None)
    if isinstance(form, str):
        inner = f"[{form}]"
    return f"{getattr(module, 'stands_for', type(module).__name__)}{inner}"


def linear_count(model: nn.Module) -> int:
    """The number of linear layers, quantised or not; an adapter's own and stacks of experts do not count."""
    return sum(
        is_linear(module) or (is_quantised(module) and not hasattr(module, "stacked_weights"))
        for name, module in model.named_modules()
        if ".lora_" not in name and ".modules_to_save." not in name
    )


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a plain linear layer (GPT-2's Conv1D is one too)."""
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def weights_of(module: nn.Module) -> int | None:
    """The number of weights that a quantised layer stands for, None if it does not tell."""
    if hasattr(module, "stacked_weights"):
        return int(module.stacked_weights)
    for first, second in (("in_features", "out_features"), ("infeatures", "outfeatures"), ("nx", "nf")):
        sizes = getattr(module, first, None), getattr(module, second, None)
        if all(isinstance(size, int) for size in sizes):
            return int(sizes[0] * sizes[1])  # type: ignore[operator]
    return sum(_stacked(name, tensor) for name, tensor in own_tensors(module)) or None


def _stacked(name: str, tensor: Tensor) -> int:
    """The weights in a packed stack of experts: those of 8 bits, or two of 4 bits in a byte."""
    if tensor.dim() < _STACK or not _is_packed(tensor) or _is_subclass(tensor) or "scale" in name:
        return 0
    return int(tensor.numel()) * (1 if tensor.is_floating_point() else 2)


def bits_per_weight(modules: dict[str, nn.Module], beside: Beside | None = None) -> float | None:
    """Bits that the quantised layers take per weight, scales, zeros and group indices included.

    From the sizes of the tensors held; simulated layers say what packing would take. None where there are
    no quantised layers or one does not tell its shape.
    """
    bits, count = 0.0, 0
    for module in modules.values():
        weights = weights_of(module)
        if weights is None:
            return None
        told = getattr(module, "bits_per_weight", None)
        held = (
            tensor_bytes(tensor) for name, tensor in own_tensors(module, beside) if name not in _CONSTANTS
        )
        bits += told * weights if told is not None else 8 * sum(held)
        count += weights
    return bits / count if count else None


def weight_bytes(model: nn.Module, held: str, beside: Beside | None = None) -> int:
    """Bytes of all parameters, buffers and scales; tied tensors count once.

    Plain weights count in the dtype `held` that they are rounded to, though a CPU may calculate in a wider
    copy, and those that transformers keeps in float32 in that; the tensors of quantised modules count as
    they are, unless these are unpacked or simulated.
    """
    import torch

    plain = getattr(torch, held).itemsize
    found = quantised_modules(model).values()
    packed = {id(each) for each in found if not hasattr(each, "bits_per_weight")}
    wide = {id(model.get_parameter(name)) for name in kept.names(model)}
    seen: dict[int, int] = {}
    for module in model.modules():
        for _, tensor in own_tensors(module, beside):
            size = tensor_bytes(tensor)
            plainly = id(module) not in packed and id(tensor) not in wide
            if plainly and tensor.is_floating_point() and not _is_subclass(tensor):
                size = min(size, tensor.numel() * plain)
            seen[id(tensor) if _is_subclass(tensor) else tensor.data_ptr() or id(tensor)] = size
    return sum(seen.values())


class Weights(NamedTuple):
    """How many weights a model has: in quantised layers, in plain matrices by name, and in its embeddings and
    head. Vectors and biases do not count, nor do an adapter's own tensors."""

    quantised: int
    plain: dict[str, int]
    ends: int

    @property
    def body(self) -> int:
        """All weights but those of embeddings and head."""
        return self.quantised + sum(self.plain.values())


def count_weights(model: Any, modules: dict[str, nn.Module]) -> Weights | None:
    """The weights of a model of which `modules` are quantised; None where one of them does not tell."""
    ends = {id(each) for each in (model.get_input_embeddings(), model.get_output_embeddings())}
    packed = {id(each): weights_of(each) for each in modules.values() if id(each) not in ends}
    if None in packed.values():
        return None
    plain: dict[str, int] = {}
    outer: dict[int, int] = {}
    for place, module in model.named_modules():
        if id(module) in packed:
            continue
        for own, tensor in module.named_parameters(recurse=False):
            name = f"{place}.{own}"
            if id(module) in ends or isinstance(module, nn.Embedding):
                outer[id(tensor)] = int(tensor.numel())
            elif tensor.dim() > 1 and tensor.is_floating_point() and not _NO_WEIGHT.search(name):
                plain[name] = int(tensor.numel())
    return Weights(sum(count or 0 for count in packed.values()), plain, sum(outer.values()))


def permuted_groups(modules: dict[str, nn.Module]) -> bool | None:
    """Whether the columns of layers with group indices stand in another order: their g_idx does not rise.

    None where no layer has one (kernels that repack drop it).
    """
    found = [
        module.g_idx for module in modules.values() if isinstance(getattr(module, "g_idx", None), Tensor)
    ]
    full = [order for order in found if order.numel() > 1]
    return any(bool((order[1:] < order[:-1]).any()) for order in full) if full else None


def quantization_of(model: Any, modules: dict[str, nn.Module]) -> dict[str, Any]:
    """The model's own quantization_config as plain values; without one what a layer says itself."""
    config = getattr(model.config, "quantization_config", None)
    found = dict(config if isinstance(config, dict) else config.to_dict()) if config is not None else {}
    if not found:
        found = next((dict(told) for told in map(_told, modules.values()) if told), {})
    order = permuted_groups(modules)
    if order is not None:
        found["g_idx_permuted"] = order
    return {name: _plain(value) for name, value in found.items() if value is not None and name != "tokenizer"}


def _told(module: nn.Module) -> dict[str, Any]:
    found = getattr(module, "quantization", None)
    return found if isinstance(found, dict) else {}


def _plain(value: Any) -> Any:
    """`value` as JSON holds it; what JSON cannot hold as text."""
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(part) for part in value]
    if isinstance(value, bool | int | float) or value is None:
        return value
    return str(getattr(value, "value", value)).removeprefix("torch.")
