"""fp32, bf16, fp16: weights rounded to a floating type, not quantised."""

from __future__ import annotations

from typing import Any, Literal

from qeval.load.reading.opening import ATTENTION, compute_in, open_model
from qeval.load.spec import Recipe, SchemeSpec


def load(recipe: Recipe) -> Any:
    """The model with its weights rounded to the scheme's type, calculated in `recipe.compute`."""
    return compute_in(open_model(recipe), recipe.compute)


def _spec(
    name: str, dtype: Literal["float32", "bfloat16", "float16"], place: int, remark: str = ""
) -> SchemeSpec:
    return SchemeSpec(
        name,
        f"weights in {dtype}{remark}",
        load,
        (ATTENTION,),
        place=place,
        quantised=False,
        streams=True,
        dtype=dtype,
    )


SPECS = (
    _spec("fp32", "float32", 10),
    _spec("bf16", "bfloat16", 11),
    _spec("fp16", "float16", 12, ", the usual baseline"),
)
