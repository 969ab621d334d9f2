"""torchao: weights only, quantised while loading, or a ready checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qeval.load.packages import ACCELERATE
from qeval.load.reading.layers import divide
from qeval.load.reading.opening import ATTENTION
from qeval.load.reading.ready import quantising
from qeval.load.reading.skipping import LATE_SKIP, skipped
from qeval.load.spec import OptionSpec, Package, Recipe, SchemeSpec

DOC = """\
On a GPU torchao is calculated in bfloat16: in float16 its 8-bit weights gave logits that are not finite on
an H100, and its packed 4-bit weights could not be loaded.

`int4-packed` is torch's own kernel for 4 bits. It pads inputs to multiples of 1024, so narrow layers take
more than four and a half bits (SmolLM2-135M's 7.5); `int4` is the portable form.
"""


def config(recipe: Recipe) -> Any:
    """Torchao's configuration; `int4` by its portable kernel, `int4-packed` by the one for GPUs."""
    import torch
    from torchao import quantization as ao
    from torchao.quantization.granularity import PerGroup
    from transformers import TorchAoConfig

    group, weights = int(recipe.options["group_size"]), recipe.options["weights"]
    if str(weights).startswith("int4"):
        _check_groups(recipe, group)
    kinds: dict[str, Callable[[], Any]] = {
        "int8": ao.Int8WeightOnlyConfig,
        "int4": lambda: ao.IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(group)),
        # torch's own kernel; the plain packing would need mslk besides
        "int4-packed": lambda: ao.Int4WeightOnlyConfig(
            group_size=group, int4_packing_format="tile_packed_to_4d"
        ),
        "float8": ao.Float8WeightOnlyConfig,
    }
    return TorchAoConfig(kinds[str(weights)](), modules_to_not_convert=_left_out(recipe))


def _left_out(recipe: Recipe) -> list[str] | None:
    """What is left plain: here transformers looks at the names of weights, not of layers."""
    words = skipped(recipe)
    return None if words is None else [*words, *(f"{word}.weight" for word in words)]


def layer(plain: Any, chosen: Any) -> Any:
    """The linear layer with its weight in torchao's form."""
    from torchao.quantization import quantize_

    quantize_(plain, chosen.quant_type)
    return plain


def _check_groups(recipe: Recipe, group_size: int) -> None:
    """Refuse a group size that does not divide a width of the model, before its weights are read."""
    from transformers import AutoConfig

    source = recipe.source
    found = AutoConfig.from_pretrained(
        source.place, revision=source.revision or "main", trust_remote_code=recipe.trust_remote_code
    )
    for name in ("hidden_size", "intermediate_size"):
        if isinstance(getattr(found, name, None), int):
            divide(f"layers of the model's {name}", getattr(found, name), group_size)


SPECS = (
    SchemeSpec(
        "torchao",
        "torchao, weights only",
        quantising(config, "torchao", layer),
        (
            OptionSpec(
                "weights",
                str,
                "int8",
                "their type",
                choices=("int8", "int4", "int4-packed", "float8"),
                on_gpu=("int4-packed",),
            ),
            OptionSpec(
                "group_size",
                int,
                64,
                "inputs that share a scale",
                choices=(32, 64, 128, 256),
                needs=(("weights", "int4"), ("weights", "int4-packed")),
            ),
            LATE_SKIP,
            ATTENTION,
        ),
        (Package("torchao", "torchao", "0.15"), ACCELERATE),
        "torchao",
        DOC,
        place=60,
        dtype="bfloat16",
        weight_bits=9,
        checkpoint="optional",
        methods=("torchao",),
    ),
)
