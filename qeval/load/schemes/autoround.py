"""autoround: AutoRound, rounding learnt by sign gradients, ready checkpoints."""

from __future__ import annotations

from typing import Any

from qeval.load.packages import ACCELERATE
from qeval.load.reading.opening import ATTENTION, compute_in, open_model
from qeval.load.reading.ready import tell_bits
from qeval.load.spec import Package, Recipe, SchemeSpec

DOC = """\
Stays packed; on a CPU its portable kernel is used, and what is not packed is calculated in float32. An
earlier version of qeval ran it on its own symmetric packing of 4 and 8 bits, with auto-round 0.16.1.
"""


def load(recipe: Recipe) -> Any:
    """AutoRound's packed layers; on a CPU by the kernel that comes with auto-round itself.

    auto-round casts the whole model to 16 bits where its kernels do; what is not packed is then calculated
    in the compute type again, and its 16 bits are told.
    """
    from transformers import AutoRoundConfig

    from qeval.load.reading import proof

    backend = "auto" if recipe.device.startswith("cuda") else "torch"
    model = open_model(recipe, quantization_config=AutoRoundConfig(backend=backend))
    held = str(model.get_input_embeddings().weight.dtype).removeprefix("torch.")
    recipe.evidence["dtype"] = held if held == recipe.compute else f"{held} weights, {recipe.compute} compute"
    kinds = {type(module) for module in proof.quantised_modules(model).values()}
    tell_bits(recipe, model)
    return compute_in(model, recipe.compute, tuple(kinds))


SPECS = (
    SchemeSpec(
        "autoround",
        "AutoRound, rounding learnt by sign gradients; ready checkpoints",
        load,
        (ATTENTION,),
        (Package("auto-round", "auto_round", "0.5"), ACCELERATE),
        "autoround",
        DOC,
        place=130,
        checkpoint="required",
        methods=("auto-round", "intel/auto-round"),
    ),
)
