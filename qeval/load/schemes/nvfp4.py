"""nvfp4: NVIDIA's 4-bit floating point in blocks of 16, quantised while loading."""

from __future__ import annotations

from typing import Any

from qeval.load.packages import ACCELERATE, KERNELS
from qeval.load.reading.opening import ATTENTION
from qeval.load.reading.ready import quantising
from qeval.load.spec import Recipe, SchemeSpec

DOC = """\
Needs `kernels` from 0.18.2 and below 0.19, and a GPU of compute capability 10.0 (Blackwell); it quantises
while loading and reads no checkpoints.
"""


def config(_: Recipe) -> Any:
    """Transformers' configuration."""
    from transformers import NVFP4Config

    return NVFP4Config()


SPECS = (
    SchemeSpec(
        "nvfp4",
        "NVFP4, for Blackwell GPUs",
        quantising(config),
        (ATTENTION,),
        (KERNELS, ACCELERATE),
        "nvfp4",
        DOC,
        place=170,
        device="cuda",
        capability=(10, 0),
        weight_bits=5,
    ),
)
