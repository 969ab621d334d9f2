"""mxfp4: the experts of gpt-oss, ready checkpoints."""

from __future__ import annotations

from typing import Any

from qeval.load.packages import ACCELERATE, KERNELS
from qeval.load.reading.opening import ATTENTION
from qeval.load.reading.ready import UNPACK, load_ready, or_unpacked, unpack
from qeval.load.spec import Package, Recipe, SchemeSpec

DOC = """\
Needs `kernels` from 0.18.2 and below 0.19, triton 3.4, and a GPU of compute capability 7.5; with
`unpack=true` none of them. It was run as `mxfp4[unpack=true]@...`, the files' own weights; the kernels were
not run.
"""


def unpacked(recipe: Recipe) -> Any:
    """A checkpoint of gpt-oss, its experts unpacked."""
    from transformers import Mxfp4Config

    return unpack(recipe, Mxfp4Config(dequantize=True), "U8", {"U8": "MXFP4"})


SPECS = (
    SchemeSpec(
        "mxfp4",
        "MXFP4, the experts of gpt-oss; ready checkpoints",
        or_unpacked(load_ready, unpacked),
        (UNPACK, ATTENTION),
        (KERNELS, Package("triton", "triton", "3.4", kernel=True), ACCELERATE),
        "mxfp4",
        DOC,
        place=160,
        device="cuda",
        capability=(7, 5),
        checkpoint="required",
        methods=("mxfp4",),
    ),
)
