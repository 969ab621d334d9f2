"""Layers of VPTQ and SpQR, put into a model here because transformers 5.23 fails to.

It looks a layer's dotted name up among the model's own children, and so ends in a KeyError on every model.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from qeval.base.errors import QevalError

LayerFor = Callable[[Any, str, Any], Any]
"""Takes a checkpoint's quantization config, the name of a linear layer and that layer; returns the layer in
its place, None where it stays."""
VPTQ_SETTINGS = (
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
SPQR_PARTS = {"dense_weights": 64, "row_offsets": 32, "col_vals": 32, "in_perm": 32}
"""The tensors of a layer of SpQR, with the bits of a number in each."""


@contextmanager
def placing(method: str, layer_for: LayerFor) -> Iterator[None]:
    """While it lasts, transformers reads checkpoints of `method` into the layers that `layer_for` makes."""
    from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING

    theirs = AUTO_QUANTIZER_MAPPING[method]
    AUTO_QUANTIZER_MAPPING[method] = _quantizer(theirs, layer_for)
    try:
        yield
    finally:
        AUTO_QUANTIZER_MAPPING[method] = theirs


def _quantizer(theirs: Any, layer_for: LayerFor) -> Any:
    """The class `theirs`, but asking for no GPU (qeval has checked what is needed) and placing all layers."""
    import torch

    def place(self: Any, model: Any, **_: Any) -> None:
        for name, linear in list(model.named_modules()):
            if not isinstance(linear, torch.nn.Linear):
                continue
            with torch.device("meta"):
                made = layer_for(self.quantization_config, name, linear)
            if made is not None:
                model.set_submodule(name, made.requires_grad_(False))

    own = {"validate_environment": lambda *_, **__: None, "_process_model_before_weight_loading": place}
    return type("Placing", (theirs,), own)


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


def vptq_layer(config: Any, name: str, linear: Any) -> Any:
    """A layer of VPTQ. Raises QevalError for a form that vptq's portable product misreads."""
    from transformers.quantizers.quantizers_utils import should_convert_module
    from vptq import VQuantLinear

    shared = config.shared_layer_config.get(name.rpartition(".")[2])
    settings = config.config_for_layers.get(name) or shared
    if settings is None or not should_convert_module(name, config.modules_to_not_convert):
        return None
    _check_vptq(name, settings)
    return VQuantLinear(
        linear.in_features,
        linear.out_features,
        **{key: settings[key] for key in VPTQ_SETTINGS},
        is_indice_packed=True,
        enable_proxy_error=False,
        bias=linear.bias is not None,
    )


def _check_vptq(name: str, settings: dict[str, Any]) -> None:
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


def vptq_settings(config: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint's settings without naming each layer: the value of each, or a list where layers differ."""
    layers = [*config.get("config_for_layers", {}).values(), *config.get("shared_layer_config", {}).values()]
    found: dict[str, Any] = {"quant_method": config.get("quant_method")}
    for key in VPTQ_SETTINGS:
        values: list[Any] = []
        values += (layer[key] for layer in layers if key in layer and layer[key] not in values)
        found[key] = values[0] if len(values) == 1 else values
    return found


def spqr_layer(config: Any, name: str, linear: Any) -> Any:
    """A layer of SpQR that tells its shape and bits, and takes inputs of any leading shape.

    spqr_quant 0.2.0 knows the maker of its layers by a misspelt name only. Raises QevalError for a layer
    with a bias, which its layers do not have.
    """
    from spqr_quant import QuantizedLinear

    shapes = {part: config.shapes.get(f"{name}.{part}.shape") for part in SPQR_PARTS}
    if shapes["dense_weights"] is None:
        return None
    if linear.bias is not None:
        raise QevalError(
            f"{name} has a bias, which spqr_quant's layers do not add.", "Score this model in another scheme."
        )
    make = getattr(QuantizedLinear, "create_placeholder", None) or QuantizedLinear.create_placehodler
    sizes = {f"{part}_shape": shape or 0 for part, shape in shapes.items()}
    grid = {"bits": config.bits, "beta1": config.beta1, "beta2": config.beta2}
    made = make(rows=linear.out_features, cols=linear.in_features, **grid, **sizes)
    if not shapes["in_perm"]:
        made.in_perm = None
    made.in_features, made.out_features = linear.in_features, linear.out_features
    bits = sum(width * (shapes[part] or 0) for part, width in SPQR_PARTS.items())
    made.bits_per_weight = bits / (linear.in_features * linear.out_features)
    made.forward = _one_row(made.forward)
    return made


def _one_row(forward: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`forward`, which reads the first row of a batch only, for inputs of any leading shape."""

    def whole(inputs: Any) -> Any:
        out = forward(inputs.reshape(1, -1, inputs.shape[-1]))
        return out.reshape(*inputs.shape[:-1], out.shape[-1])

    return whole
