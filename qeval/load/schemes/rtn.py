"""rtn: round-to-nearest of weights in place, a data-free reference for every bit width on any machine."""

from __future__ import annotations

from typing import Any

from qeval.base.errors import QevalError
from qeval.load.reading.opening import compute_in, open_model
from qeval.load.schemes.plain import ATTENTION, attention
from qeval.load.schemes.spec import OptionSpec, Recipe, SchemeSpec


def load(recipe: Recipe) -> Any:
    """The plain model with every linear layer but the head rounded. Raises QevalError for a group size that
    does not divide a layer."""
    from torch import nn

    from qeval.load.reading.grid import round_linear

    model = open_model(recipe, **attention(recipe))
    head = model.get_output_embeddings()
    options = recipe.options
    for name, module in model.named_modules():
        if type(module) is nn.Linear and module is not head:
            group = divide(name, module.in_features, int(options["group_size"]))
            round_linear(module, int(options["bits"]), group, bool(options["symmetric"]))
    recipe.notes.append("rtn is simulated: weights are rounded to the grid and held unpacked.")
    return compute_in(model, recipe.compute)


def divide(name: str, features: int, group_size: int) -> int:
    """The size of the layer's groups; -1 stands for all its inputs. QevalError where it does not divide."""
    group = features if group_size == -1 else group_size
    if group < 1 or features % group:
        raise QevalError(
            f"A group size of {group_size} does not divide the {features} inputs of {name}.",
            f"Use one that does, for instance group_size={divisor(features)}.",
        )
    return group


def divisor(features: int) -> int:
    """The largest power of two up to 128 that divides `features`."""
    return min(128, features & -features)


SPECS = (
    SchemeSpec(
        "rtn",
        "round-to-nearest in place, data-free and simulated: the reference for every bit width",
        load,
        (
            OptionSpec("bits", int, 4, "bits of a weight", choices=(2, 3, 4, 5, 6, 7, 8)),
            OptionSpec("group_size", int, 64, "inputs that share a scale; -1 for a whole row", low=-1),
            OptionSpec("symmetric", bool, False, "no zero points"),
            ATTENTION,
        ),
        verified="CPU, H100",
        unpacked=True,
    ),
)
