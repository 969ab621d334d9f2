"""spqr: SpQR, sparse outliers apart, ready checkpoints, on GPUs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qeval.base.errors import QevalError
from qeval.load.packages import ACCELERATE
from qeval.load.reading.opening import ATTENTION, open_in_compute
from qeval.load.reading.placing import placing
from qeval.load.reading.ready import quantization_config
from qeval.load.spec import Package, Recipe, SchemeSpec

PARTS = {"dense_weights": 64, "row_offsets": 32, "col_vals": 32, "in_perm": 32}
"""The tensors of a layer, with the bits of a number in each."""
DOC = """\
Needs a GPU and a CUDA compiler (nvcc, ninja and the headers of CUDA's libraries), with which spqr_quant
builds its kernel when it is imported; float16 only, and another `--dtype` is refused.

transformers 5.23 fails on SpQR's checkpoints as on VPTQ's, and calls the maker of spqr_quant's layers by a
name that spqr_quant 0.2.0 misspells; qeval makes the layers itself. SpQR's kernel multiplies one token at a
time, and of a batch its layer reads the first row only, silently. qeval hands it the rows of a batch one
after the other, so batches are correct, but no faster. Its layers have no bias: a model with biases is
refused. An earlier version of qeval ran its kernel on an H100: it gave the logits of the weights that a
checkpoint made in the tests stands for. No published one was at hand.
"""


def load(recipe: Recipe) -> Any:
    """SpQR's tiles and outliers. Raises QevalError for another type than float16, before weights are read."""
    if recipe.compute != "float16":
        raise QevalError(
            f"spqr calculates in float16 only, and {recipe.compute} was asked for.",
            "Leave out --dtype, or write --dtype float16.",
        )
    with placing("spqr", layer):
        model = open_in_compute(recipe)
    told = {name: value for name, value in quantization_config(recipe).items() if name != "shapes"}
    recipe.evidence["quantization"] = told
    return model


def layer(config: Any, name: str, linear: Any) -> Any:
    """A layer of SpQR that tells its shape and bits, and takes inputs of any leading shape.

    spqr_quant 0.2.0 knows the maker of its layers by a misspelt name only. Raises QevalError for a layer
    with a bias, which its layers do not have.
    """
    from spqr_quant import QuantizedLinear

    shapes = {part: config.shapes.get(f"{name}.{part}.shape") for part in PARTS}
    if shapes["dense_weights"] is None:
        return None
    if linear.bias is not None:
        raise QevalError(
            f"{name} has a bias, which spqr_quant's layers do not add.", "Score this model in another scheme."
        )
    make = getattr(QuantizedLinear, "create_placeholder", None) or QuantizedLinear.create_placehodler
    sizes = {f"{part}_shape": shape or 0 for part, shape in shapes.items()}
    grid = {"bits": config.bits, "beta1": config.beta1, "beta2": config.beta2}
    made = make(rows=linear.out_features, cols=linear.in_features, **grid, **sizes)
    if not shapes["in_perm"]:
        made.in_perm = None
    made.in_features, made.out_features = linear.in_features, linear.out_features
    bits = sum(width * (shapes[part] or 0) for part, width in PARTS.items())
    made.bits_per_weight = bits / (linear.in_features * linear.out_features)
    made.forward = _one_row(made.forward)
    return made


def _one_row(forward: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`forward`, which reads the first row of a batch only, for inputs of any leading shape."""

    def whole(inputs: Any) -> Any:
        out = forward(inputs.reshape(1, -1, inputs.shape[-1]))
        return out.reshape(*inputs.shape[:-1], out.shape[-1])

    return whole


SPECS = (
    SchemeSpec(
        "spqr",
        "SpQR, sparse outliers apart; ready checkpoints",
        load,
        (ATTENTION,),
        (Package("spqr_quant", "spqr_quant", "0.2"), ACCELERATE),
        "spqr",
        DOC,
        place=120,
        device="cuda",
        checkpoint="required",
        methods=("spqr",),
    ),
)
