"""eetq: 8-bit weights, quantised while loading, by kernels for GPUs."""

from __future__ import annotations

from typing import Any

from qeval.load.packages import ACCELERATE, KERNELS
from qeval.load.reading.opening import ATTENTION
from qeval.load.reading.ready import quantising
from qeval.load.spec import Recipe, SchemeSpec


def config(_: Recipe) -> Any:
    """EETQ's configuration."""
    from transformers import EetqConfig

    return EetqConfig("int8")


SPECS = (
    SchemeSpec(
        "eetq",
        "EETQ, 8-bit weights",
        quantising(config),
        (ATTENTION,),
        (KERNELS, ACCELERATE),
        "eetq",
        "Needs `kernels` from 0.18.2 and below 0.19, and a GPU.\n",
        place=140,
        device="cuda",
        weight_bits=9,
        checkpoint="optional",
        methods=("eetq",),
    ),
)
