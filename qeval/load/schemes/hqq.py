"""hqq: half-quadratic quantisation, data-free (Badri and Shaji 2023), by the hqq library itself.

transformers 5 knows HqqConfig but refuses to quantise with it, so the layers are replaced here.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from qeval.load.packages import ACCELERATE
from qeval.load.reading import experts
from qeval.load.reading.layers import divide, linears
from qeval.load.reading.opening import ATTENTION, compute_in, open_model
from qeval.load.reading.skipping import LATE_SKIP, kept_plain, skipped
from qeval.load.spec import OptionSpec, Package, Recipe, SchemeSpec


def load(recipe: Recipe) -> Any:
    """Every linear layer but the head, and every expert, as HQQLinear. QevalError for a group size that does
    not divide one."""
    import torch
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear

    skipped(recipe)
    model = compute_in(open_model(recipe), recipe.compute)
    options = recipe.options
    group, axis = int(options["group_size"]), int(options["axis"])
    config = BaseQuantizeConfig(nbits=int(options["bits"]), group_size=group, axis=axis)

    def pack(name: str, layer: Any) -> Any:
        divide(name, layer.in_features if axis else layer.out_features, group)
        return HQQLinear(layer, config, compute_dtype=getattr(torch, recipe.compute), device=recipe.device)

    for name, layer in linears(model):
        if not kept_plain(recipe, name):
            model.set_submodule(name, pack(name, layer))
    stays = partial(kept_plain, recipe)
    recipe.notes.extend(experts.pack(model, "hqq", pack, lambda layer: layer.dequantize(), stays))
    recipe.evidence["quantization"] = {
        "quant_method": "hqq",
        "bits": options["bits"],
        "group_size": group,
        "axis": axis,
    }
    return model.eval()


def beside(module: Any) -> Iterator[tuple[str, Any]]:
    """The scales and zeros, which a layer keeps in a dictionary."""
    from torch import Tensor

    found = vars(module).get("meta")
    if isinstance(found, dict):
        yield from ((key, part) for key, part in found.items() if isinstance(part, Tensor))


SPECS = (
    SchemeSpec(
        "hqq",
        "HQQ, half-quadratic and data-free",
        load,
        (
            OptionSpec("bits", int, 4, "bits of a weight", choices=(1, 2, 3, 4, 8)),
            OptionSpec(
                "group_size", int, 64, "weights that share a scale", choices=(8, 16, 32, 64, 128, 256)
            ),
            OptionSpec(
                "axis", int, 1, "groups along it: 0 is more exact, 1 has faster kernels", choices=(0, 1)
            ),
            LATE_SKIP,
            ATTENTION,
        ),
        (Package("hqq", "hqq", "0.2.1"), ACCELERATE),
        "hqq",
        place=50,
        beside=beside,
        config_keys={"bits": "bits", "group_size": "group_size"},
    ),
)
