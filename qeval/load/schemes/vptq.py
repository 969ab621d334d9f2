"""vptq: vector codebooks, ready checkpoints, multiplied by vptq's portable code."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from qeval.base.errors import QevalError
from qeval.load.packages import ACCELERATE
from qeval.load.reading.opening import ATTENTION, open_in_compute
from qeval.load.reading.placing import placing
from qeval.load.reading.ready import quantization_config, tell_bits
from qeval.load.spec import Package, Recipe, SchemeSpec

SETTINGS = (
    "vector_lens",
    "num_centroids",
    "num_res_centroids",
    "group_num",
    "group_size",
    "outlier_size",
    "indices_as_float",
    "enable_norm",
    "enable_perm",
)
NOTE = (
    "VPTQ's layers are unpacked for every product by vptq's portable code, not by its kernels: its quality"
    " and its memory, not its speed."
)
DOC = """\
Stays packed. On every device its layers multiply by the weight that vptq's portable code unpacks for each
product, slowly. The kernels of the published wheel need CUDA 12 and an older torch, and its authors have
not tested them with outliers and groups; so they are not used. transformers 5.23 fails on every VPTQ
checkpoint, with a KeyError: qeval puts the layers into the model itself, and asks for no GPU. Of what vptq
depends on, reading needs nothing that qeval does not bring: `pip install --no-deps vptq` is enough, and
leaves out gradio and others. A residual codebook larger than the main one is refused, since vptq 0.0.5
reads it wrongly.

It was run with and without residual codebooks, groups, outliers, permuted and scaled columns, with vptq
0.0.5.post1; no published checkpoint was at hand.
"""


def load(recipe: Recipe) -> Any:
    """VPTQ's indices and codebooks, on any device multiplied by vptq's portable product."""
    import_vptq()
    with placing("vptq", layer):
        model = open_in_compute(recipe)
    recipe.notes.append(NOTE)
    recipe.evidence["quantization"] = settings_of(quantization_config(recipe))
    tell_bits(recipe, model)
    return model


def import_vptq() -> None:
    """Import vptq without what it needs for other ends only, and have it multiply by its unpacked weights.

    It imports sentence-transformers to tell a class apart when packing, prints, and sets up logging. Its
    kernels were built for an older torch, and outliers and groups are untested in them by its authors.
    """
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with _stand_in("sentence_transformers", "SentenceTransformer"), contextlib.redirect_stdout(io.StringIO()):
        product = importlib.import_module("vptq.ops.quant_gemm")
    root.handlers[:], root.level = handlers, level
    vars(product)["__cuda_ops_installed"] = False


@contextmanager
def _stand_in(package: str, name: str) -> Iterator[None]:
    """While it lasts, `package.name` can be imported and holds an empty class `name`."""
    module = ModuleType(f"{package}.{name}")
    vars(module)[name] = type(name, (), {})
    made = {package: ModuleType(package), module.__name__: module}
    before = {key: sys.modules.get(key) for key in made}
    sys.modules.update(made)
    try:
        yield
    finally:
        for key, found in before.items():
            del sys.modules[key]
            if found is not None:
                sys.modules[key] = found


def layer(config: Any, name: str, linear: Any) -> Any:
    """A layer of VPTQ. Raises QevalError for a form that vptq's portable product misreads."""
    from transformers.quantizers.quantizers_utils import should_convert_module
    from vptq import VQuantLinear

    shared = config.shared_layer_config.get(name.rpartition(".")[2])
    settings = config.config_for_layers.get(name) or shared
    if settings is None or not should_convert_module(name, config.modules_to_not_convert):
        return None
    _check(name, settings)
    return VQuantLinear(
        linear.in_features,
        linear.out_features,
        **{key: settings[key] for key in SETTINGS},
        is_indice_packed=True,
        enable_proxy_error=False,
        bias=linear.bias is not None,
    )


def _check(name: str, settings: dict[str, Any]) -> None:
    """Refuse residual indices of more bits than the main ones, which vptq 0.0.5 cuts to these, and indices in
    float16, which would be rounded as weights are."""
    if settings["num_res_centroids"][1] > settings["num_centroids"][1]:
        raise QevalError(
            f"{name} has more residual centroids than main ones, which vptq reads wrongly.",
            "Choose a checkpoint whose residual codebooks are no larger than the main ones.",
        )
    if settings["indices_as_float"]:
        raise QevalError(
            f"{name} keeps its indices as floating-point numbers, which are not kept exactly.",
            "Choose a checkpoint with indices_as_float false.",
        )


def settings_of(config: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint's settings without naming each layer: the value of each, or a list where layers differ."""
    layers = [*config.get("config_for_layers", {}).values(), *config.get("shared_layer_config", {}).values()]
    found: dict[str, Any] = {"quant_method": config.get("quant_method")}
    for key in SETTINGS:
        values: list[Any] = []
        values += (layer[key] for layer in layers if key in layer and layer[key] not in values)
        found[key] = values[0] if len(values) == 1 else values
    return found


SPECS = (
    SchemeSpec(
        "vptq",
        "VPTQ, vector codebooks; ready checkpoints",
        load,
        (ATTENTION,),
        (Package("vptq", "vptq", "0.0.5"), ACCELERATE),
        "vptq",
        DOC,
        place=110,
        checkpoint="required",
        methods=("vptq",),
    ),
)
