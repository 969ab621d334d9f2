"""aqlm: additive codebooks of about 2 bits, ready checkpoints."""

from __future__ import annotations

from typing import Any

from qeval.load.packages import ACCELERATE
from qeval.load.reading.opening import ATTENTION, open_in_compute
from qeval.load.reading.ready import tell_bits
from qeval.load.spec import Package, Recipe, SchemeSpec

GPU_NOTE = (
    "AQLM's layers are multiplied by their unpacked weights, so that no kernel has to be built to score them;"
    " costs are of aqlm's own kernel."
)
NOTE = (
    "On a CPU, AQLM's layers are multiplied by their unpacked weights: aqlm's own kernel for CPUs lets"
    " threads overwrite each other's sums."
)
DOC = """\
Stays packed. To be scored, its layers multiply by the unpacked weight each time, slowly: aqlm's kernels for
GPUs are compiled at their first use, and serve costs and `--no-materialize`; its own CPU kernel (1.1.7) adds
up in several threads without a lock, and its results are wrong and differ from call to call.
It was run on codebooks of 1x16, 2x8 and 1x4, with aqlm 1.1.7.
"""


def load(recipe: Recipe) -> Any:
    """AQLM's codes and codebooks; to be scored, and on a CPU, by the library's portable product."""
    model = open_in_compute(recipe)
    if not (recipe.fast and recipe.device.startswith("cuda")):
        _multiply_unpacked(model)
        recipe.notes.append(GPU_NOTE if recipe.device.startswith("cuda") else NOTE)
    tell_bits(recipe, model)
    return model


def _multiply_unpacked(model: Any) -> None:
    """Give every AQLM layer the product by its unpacked weight, before it chooses one at its first call.

    The choice for codebooks of 256 would be a numba kernel (of aqlm 1.1.7) whose threads add to the same
    output without a lock: wrong numbers, and others at every call.
    """
    from aqlm import QuantizedLinear
    from aqlm.inference_kernels.dequantization import dequantize_gemm

    class Portable:
        apply = staticmethod(dequantize_gemm)

    for module in model.modules():
        if isinstance(module, QuantizedLinear):
            module.gemv_op = module.gemm_op = Portable
            module.use_gemv_rule = lambda _: True


SPECS = (
    SchemeSpec(
        "aqlm",
        "AQLM, additive codebooks of about 2 bits; ready checkpoints",
        load,
        (ATTENTION,),
        (Package("aqlm", "aqlm", "1.1"), ACCELERATE),
        "aqlm",
        DOC,
        kernels=True,
        place=90,
        checkpoint="required",
        methods=("aqlm",),
    ),
)
