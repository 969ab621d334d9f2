"""Weight-only quantised layers turned into plain ones, where that changes no number.

A scheme that quantises weights only (bitsandbytes 4-bit, GPTQ, AWQ) unpacks them for every product. Unpacked
once, they cost more memory and less time. It is done only where a layer's own kernel is shown to multiply
by exactly these weights in the model's dtype; LLM.int8() quantises activations too and is refused.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qeval.base.errors import QevalError
from qeval.load.device import gpu_free

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch

ROWS = 64
"""Random activations per shape that a layer and its plain twin must agree on."""
RESERVE = 0.2
"""The share of free memory left for activations."""


@dataclass(frozen=True)
class Report:
    """`modules` layers were replaced, adding `added_bytes`. `exact`: in every probe the plain layer's outputs
    equalled the quantised one's bit for bit; where not, they differed by the order of summation only."""

    modules: int
    added_bytes: int
    exact: bool


@dataclass(frozen=True, eq=False)
class Layer:
    """A quantised layer: its place in the model, and how to get its weight (out, in) in the model's dtype."""

    name: str
    module: Any
    shape: tuple[int, int]
    weight: Callable[[], torch.Tensor]

    @property
    def kind(self) -> tuple[str, tuple[int, int], bool]:
        """Layers of one kind run the same kernel."""
        return type(self.module).__qualname__, self.shape, self.module.bias is not None


def compute_in_own_dtype(model: Any) -> bool:
    """Keep bitsandbytes' 4-bit layers on a CPU from rounding to bfloat16; whether they would have.

    On CPUs with AVX512-BF16 such a layer repacks its weight at first use, and from then on rounds
    activations and scales to bfloat16 whatever the model's dtype: other numbers than on any other
    device. Call this before the first forward pass; a layer that is repacked already stays so.
    """
    would = False
    for module in model.modules():
        if getattr(module, "support_avx512bf16_for_cpu", False):
            module.support_avx512bf16_for_cpu = False
            would = True
    return would


def can_materialize(model: Any, free_bytes: int | None = None) -> bool:
    """Whether `materialize` would succeed and fit in `free_bytes` (None: what the device has free now)."""
    try:
        dtype = settled_dtype(model)
        layers = list(packed_layers(model, dtype))
        if not layers or _refusal(model) is not None:
            return False
        free = _free_bytes(layers[0].module) if free_bytes is None else free_bytes
        if _added_bytes(layers, dtype) > (1 - RESERVE) * free:
            return False
        prove(layers, dtype)
    except QevalError:
        return False
    return True


def materialize(model: Any) -> tuple[Any, Report]:
    """Replace, in place, every weight-only quantised layer by a plain one with the unpacked weight.

    Raises QevalError, and leaves the model as it was, if there is no such layer, if some layer quantises
    activations as well, or if one kernel's products are not those of the unpacked weight.
    """
    dtype = settled_dtype(model)
    layers = list(packed_layers(model, dtype))
    reason = _refusal(model) or (None if layers else "it has no weight-only quantised layer")
    if reason is not None:
        raise _refused(reason)
    exact = prove(layers, dtype)
    added = _added_bytes(layers, dtype)
    unpack(model, layers)
    model.is_quantized = False  # what transformers looks at to refuse dtype changes and the like
    return model, Report(modules=_count(model), added_bytes=added, exact=exact)


def _refused(reason: str) -> QevalError:
    """The error for a model that keeps its packed weights."""
    return QevalError(
        f"The weights cannot be dequantised ahead of scoring: {reason}.", "Use --no-materialize."
    )


def settled_dtype(model: Any) -> torch.dtype:
    """The dtype of activations: that of the embeddings."""
    dtype: torch.dtype = model.get_input_embeddings().weight.dtype
    if not dtype.is_floating_point:
        raise _refused("its embeddings are quantised")
    return dtype


def _refusal(model: Any) -> str | None:
    """Why a model with quantised layers may not be materialised, None if nothing speaks against it."""
    names = {type(m).__name__ for m in model.modules()}
    if "Linear8bitLt" in names:
        return "LLM.int8() quantises activations too"
    return None


def packed_layers(model: Any, dtype: torch.dtype) -> Iterator[Layer]:
    """Every weight-only quantised layer of the model. Raises QevalError for one that cannot be unpacked."""
    for name, module in model.named_modules():
        if type(module).__name__ == "Linear4bit" and hasattr(module, "compute_dtype"):
            yield _bitsandbytes(name, module, dtype)
        elif hasattr(module, "dequantize_weight") and hasattr(module, "qweight"):
            yield _gptqmodel(name, module, dtype)


def _bitsandbytes(name: str, module: Any, dtype: torch.dtype) -> Layer:
    """A bitsandbytes 4-bit layer. Its quantisation state knows the orientation, even of square matrices."""
    state = getattr(module.weight, "quant_state", None)
    if state is None:
        raise _refused("a 4-bit layer has not been quantised yet")
    if getattr(state, "packing_format_for_cpu", False):
        raise _refused("a 4-bit layer is packed for a CPU kernel")
    if module.compute_type_is_set and module.compute_dtype not in (None, dtype):
        raise _refused(f"a 4-bit layer computes in {module.compute_dtype}, the model in {dtype}")

    def weight() -> torch.Tensor:
        from bitsandbytes.functional import dequantize_4bit

        # The kernel unpacks straight to the dtype it computes in, not to the dtype that was quantised.
        unpacked = copy.copy(module.weight.quant_state)
        unpacked.dtype = dtype
        dense: torch.Tensor = dequantize_4bit(module.weight.data, unpacked)
        return dense

    out_features, in_features = state.shape
    return Layer(name, module, (int(out_features), int(in_features)), weight)


def _gptqmodel(name: str, module: Any, dtype: torch.dtype) -> Layer:
    """A gptqmodel layer, whose `dequantize_weight` gives (in, out), any act-order already undone by g_idx."""
    if getattr(module, "adapter", None) is not None:
        raise _refused("a layer carries an adapter")

    def weight() -> torch.Tensor:
        try:
            # The class's function: the instance's may be wrapped in torch.compile, half a minute for nothing.
            dense: torch.Tensor = type(module).dequantize_weight(module)
        except Exception as error:
            raise _refused(f"{type(module).__name__} does not unpack its weight") from error
        # A transposed view, so that the product runs over memory in the kernel's order: bit by bit the same.
        return dense[: module.in_features, : module.out_features].to(dtype).t()

    return Layer(name, module, (int(module.out_features), int(module.in_features)), weight)


def prove(layers: list[Layer], dtype: torch.dtype) -> bool:
    """Probe one layer of every kind; whether all agreed exactly. Raises QevalError if one does not agree."""
    import torch

    first = {layer.kind: layer for layer in reversed(layers)}
    with torch.no_grad():
        agreed = [_probe(layer, dtype) for layer in first.values()]
    return all(agreed)


def _probe(layer: Layer, dtype: torch.dtype) -> bool:
    """Whether the layer's own outputs on random activations equal those of its unpacked weight bit for bit.

    Raises QevalError if they are further from the exact product, in float64, than the plain product is:
    then the kernel does other arithmetic (a lower dtype, quantised activations).
    """
    import torch

    dense = layer.weight()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((ROWS, layer.shape[1]), generator=generator).to(dense.device, dtype)
    bias = None if layer.module.bias is None else layer.module.bias.detach().to(dtype)
    native = layer.module(x)
    plain = torch.nn.functional.linear(x, dense, bias)
    if torch.equal(native, plain):
        return True
    exact = torch.nn.functional.linear(x.double(), dense.double(), None if bias is None else bias.double())
    theirs, ours = ((y.double() - exact).square().mean().sqrt() for y in (native, plain))
    if not theirs <= 1.5 * ours:
        raise _refused(f"{type(layer.module).__name__} does not multiply by its unpacked weight in {dtype}")
    return False


def unpack(model: Any, layers: list[Layer]) -> None:
    """Put plain layers in the places of packed ones, and empty the list.

    Each packed weight is let go of before the next is unpacked: by hand, for layers that something else holds
    (gptqmodel's do) would keep theirs until the garbage collector comes.
    """
    while layers:
        layer = layers.pop(0)
        plain_for(model, layer, layer.weight())
        for module in layer.module.modules():
            for found in (module.named_parameters, module.named_buffers):
                for name in [name for name, _ in found(recurse=False)]:
                    delattr(module, name)


def plain_for(model: Any, layer: Layer, weight: torch.Tensor) -> Any:
    """Put a plain layer with this weight (out, in) in the place of a quantised one; returns it."""
    import torch

    bias = layer.module.bias
    plain = torch.nn.Linear(layer.shape[1], layer.shape[0], bias=bias is not None, device="meta")
    plain.weight = torch.nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        plain.bias = torch.nn.Parameter(bias.detach().to(weight.dtype), requires_grad=False)
    plain.materialized_by_qeval = True
    parent, _, attribute = layer.name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, plain.eval())
    return plain


def _count(model: Any) -> int:
    """How many layers have been replaced."""
    return sum(hasattr(m, "materialized_by_qeval") for m in model.modules())


def _added_bytes(layers: list[Layer], dtype: torch.dtype) -> int:
    """How much more memory the plain weights take than the packed ones."""
    dense = sum(int(layer.shape[0] * layer.shape[1]) for layer in layers) * dtype.itemsize
    packed = sum(
        t.numel() * t.element_size()
        for layer in layers
        for t in (*layer.module.parameters(), *layer.module.buffers())
    )
    return max(0, int(dense - packed))


def _free_bytes(module: Any) -> int:
    """Memory free on a layer's device, what torch has cached included."""
    import psutil  # type: ignore[import-untyped]  # comes with accelerate

    tensor = next(iter((*module.parameters(), *module.buffers())))
    if tensor.device.type == "cuda":
        return gpu_free(str(tensor.device))
    return int(psutil.virtual_memory().available)
