"""fp8: 8-bit floating point in blocks of 128 x 128, as DeepSeek-V3 is published."""

from __future__ import annotations

from typing import Any

from qeval.load.packages import ACCELERATE, KERNELS
from qeval.load.reading.opening import ATTENTION
from qeval.load.reading.ready import UNPACK, or_unpacked, quantising, unpack
from qeval.load.spec import Recipe, SchemeSpec

NOTE = "FP8 kernels round activations to 8 bits as well, which the unpacked checkpoint does not."
DOC = """\
Needs `kernels` from 0.18.2 and below 0.19, and a GPU of compute capability 8.9; with `unpack=true` neither.
Unpacking is an option because the numbers are others: fp8's kernels round activations as well. It was run
as `fp8[unpack=true]@...`, the files' own weights; the kernels were not run.
"""


def config(_: Recipe) -> Any:
    """Transformers' configuration, which rounds while loading."""
    from transformers import FineGrainedFP8Config

    return FineGrainedFP8Config()


def unpacked(recipe: Recipe) -> Any:
    """A checkpoint in 8-bit floating point, unpacked; activations are not rounded, as its kernels do."""
    from transformers import FineGrainedFP8Config

    recipe.notes.append(NOTE)
    return unpack(recipe, FineGrainedFP8Config(dequantize=True), "F8_")


SPECS = (
    SchemeSpec(
        "fp8",
        "8-bit floating point in blocks of 128 x 128",
        or_unpacked(quantising(config), unpacked),
        (UNPACK, ATTENTION),
        (KERNELS, ACCELERATE),
        "fp8",
        DOC,
        place=150,
        device="cuda",
        capability=(8, 9),
        weight_bits=9,
        checkpoint="optional",
        methods=("fp8",),
    ),
)
