"""Simulated schemes: weights are rounded in place and held as plain numbers, for their quality alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qeval.base.errors import QevalError
from qeval.load.reading import experts
from qeval.load.reading.layers import linears
from qeval.load.reading.opening import ATTENTION, compute_in, open_model
from qeval.load.reading.skipping import LATE_SKIP, kept_plain, skipped
from qeval.load.spec import OptionSpec, Recipe, SchemeSpec

if TYPE_CHECKING:
    from torch import Tensor

Options = Mapping[str, Any]
RoundWeight = Callable[["Tensor", Options], "Tensor"]
"""Takes a weight (out, in) in float32 and the options, all of them; returns the nearest weight that can be
stored, of the same shape."""
Bits = Callable[[int, int, Options], float]
"""Takes the outputs and inputs of a layer and the options; returns the bits of a weight if it were packed,
with everything that unpacking needs: scales, zero points, codebooks."""
Check = Callable[[str, int, int, Options], object]
"""Takes the name, outputs and inputs of a layer and the options; raises QevalError where they do not fit."""


@dataclass(frozen=True)
class Simulated(SchemeSpec):
    """The specification of a simulated scheme, with the functions that it is made of."""

    round_weight: RoundWeight = field(kw_only=True)
    bits: Bits = field(kw_only=True)
    check: Check | None = None


def simulated(
    name: str,
    summary: str,
    round_weight: RoundWeight,
    bits: Bits,
    options: tuple[OptionSpec, ...] = (),
    *,
    check: Check | None = None,
    **fields: Any,
) -> Simulated:
    """A scheme that rounds the weight of every linear layer but the head, and of every expert; `fields` are
    others of SchemeSpec.

    The loaded model is calculated in plain numbers, on any device. It tells the bits that packing would take,
    and its options as its quantization. Loading raises QevalError where rounding changes no weight at all.
    """

    def load(recipe: Recipe) -> Any:
        skipped(recipe)
        model = open_model(recipe)
        _round_model(spec, model, recipe)
        recipe.notes.append(f"{name} is simulated: weights are rounded to the grid and held unpacked.")
        return compute_in(model, recipe.compute)

    spec = Simulated(
        name,
        summary,
        load,
        (*options, LATE_SKIP, ATTENTION),
        unpacked=True,
        streams=True,
        round_weight=round_weight,
        bits=bits,
        check=check,
        **fields,
    )
    return spec


def _round_model(spec: Simulated, model: Any, recipe: Recipe) -> None:
    """Round every weight of a model that the scheme concerns, and have each module tell it. Raises QevalError
    where that changes none."""
    check, bits = spec.check, spec.bits
    told = {"quant_method": spec.name, **spec.shaping(recipe.options)}
    layers = [one for one in linears(model) if not kept_plain(recipe, one[0])]
    changed = False
    for layer_name, layer in layers:
        if check is not None:
            check(layer_name, layer.out_features, layer.in_features, recipe.options)
        changed = _round(spec, layer, recipe) or changed
        _mark(layer, bits(layer.out_features, layer.in_features, recipe.options), told)
    for stack in (one for one in experts.stacks(model) if not kept_plain(recipe, one.name)):
        if check is not None:
            check(stack.name, *stack.shape, recipe.options)
        changed = _round_stack(spec, stack, recipe) or changed
        _mark_stack(stack, bits(*stack.shape, recipe.options), told)
    if layers and not changed:
        raise QevalError(
            f"{spec.name} has changed no weight of {len(layers)} layers, so nothing is quantised.",
            "Either all weights lie on its grid already, or the scheme's own code has a mistake.",
        )


def _round(spec: Simulated, layer: Any, recipe: Recipe) -> bool:
    """Round a layer's weight in place, and tell whether that changed any of it."""
    weight = layer.weight.data
    layer.weight.data = _rounded(spec, weight, recipe)
    return bool((layer.weight.data != weight).any())


def _round_stack(spec: Simulated, stack: experts.Stack, recipe: Recipe) -> bool:
    """Round the weight of each expert in place, and tell whether that changed any of them."""
    changed = False
    for weight in stack.weights():
        rounded = _rounded(spec, weight, recipe)
        changed = changed or bool((rounded != weight).any())
        weight.copy_(rounded)
    return changed


def _rounded(spec: Simulated, weight: Any, recipe: Recipe) -> Any:
    """A weight rounded on the device that is calculated on, wherever it lies."""
    rounded = spec.round_weight(weight.to(recipe.device).float(), recipe.options)
    if rounded.shape != weight.shape:
        raise QevalError(
            f"{spec.name} makes a weight of the shape {list(rounded.shape)} out of one of"
            f" {list(weight.shape)}.",
            "This is a mistake in the scheme's own code: rounding keeps the shape.",
        )
    return rounded.to(weight.device, weight.dtype)


def _mark(layer: Any, bits: float, told: dict[str, Any]) -> None:
    from qeval.load.reading.grid import mark_rounded

    mark_rounded(layer, bits, told)


def _mark_stack(stack: experts.Stack, bits: float, told: dict[str, Any]) -> None:
    """Make a module of experts say how many of its weights were rounded, and to how many bits of a weight."""
    module, count = stack.module, int(stack.tensor.numel())
    before = getattr(module, "stacked_weights", 0)
    held = before * getattr(module, "bits_per_weight", 0.0) + count * bits
    module.stacked_weights, module.bits_per_weight = before + count, held / (before + count)
    module.quantization, module.form = told, "rounded"
