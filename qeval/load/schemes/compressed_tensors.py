"""compressed-tensors: checkpoints of llm-compressor, unpacked while or right after they are read."""

from __future__ import annotations

from typing import Any

from qeval.base.errors import QevalError
from qeval.load.packages import ACCELERATE
from qeval.load.reading.headers import bits_per_weight, stored_tensors
from qeval.load.reading.opening import ATTENTION, open_in_compute
from qeval.load.reading.ready import UNPACKED, quantization_config, unpack
from qeval.load.spec import Package, Recipe, SchemeSpec

PACKED = "pack-quantized"
DOC = """\
compressed-tensors has no kernels of its own here: its weights are unpacked right after loading, and what is
scored are the unpacked weights. Schemes that round activations (W8A8, dynamic fp8) go on rounding them. A
checkpoint with packed zero points (W4A16, asymmetric) is unpacked while it is read, since
compressed-tensors 0.20 cannot hold it packed. It was run on pack-quantized (4 and 8 bits, zero points too),
int-quantized and float-quantized checkpoints, with compressed-tensors 0.20.0.
"""


def load(recipe: Recipe) -> Any:
    """A checkpoint of llm-compressor, unpacked by compressed-tensors, which has no kernels of its own.

    It would unpack at the first forward pass of the whole model; here that happens at once, so that what is
    described is what is scored. Where the scheme rounds activations, the layers go on doing so.
    """
    if _packs_zeros(quantization_config(recipe)):
        return _unpack_while_loading(recipe)
    model = open_in_compute(recipe)
    model.hf_quantizer.compressor.decompress_model(model)
    layers = {
        name: module
        for name, module in model.named_modules()
        if getattr(module, "quantization_scheme", None) is not None
    }
    _tell(recipe, layers)
    rounds = any(layer.quantization_scheme.input_activations is not None for layer in layers.values())
    why = ", its activations still rounded" if rounds else ""
    recipe.notes.append(UNPACKED.format(name=recipe.source.path, why=why))
    return model


def _tell(recipe: Recipe, layers: dict[str, Any]) -> None:
    """Make the layers say in what form their weights were stored, and in how many bits."""
    tensors = stored_tensors(recipe.source)
    weights = {name: int(layer.weight.numel()) for name, layer in layers.items()}
    recipe.evidence["bits_per_weight"] = bits_per_weight(tensors, weights)
    for name, layer in layers.items():
        form = layer.quantization_scheme.format
        layer.form = getattr(form, "value", form)
        layer.bits_per_weight = bits_per_weight(tensors, {name: weights[name]})


def _packs_zeros(config: dict[str, Any]) -> bool:
    """Whether zero points are packed with the weights: compressed-tensors 0.20 makes room for unpacked ones,
    so that the model as it is cannot take them in."""
    groups = [group for group in (config.get("config_groups") or {}).values() if isinstance(group, dict)]
    return any(
        (group.get("format") or config.get("format")) == PACKED
        and not (group.get("weights") or {}).get("symmetric", True)
        for group in groups
    )


def _unpack_while_loading(recipe: Recipe) -> Any:
    """The model unpacked tensor by tensor, in the type of the file's scales; its files tell what it was.

    Raises QevalError where a scheme rounds activations, since they would not be rounded.
    """
    from transformers import CompressedTensorsConfig

    config = quantization_config(recipe)
    if any(group.get("input_activations") for group in config["config_groups"].values()):
        raise QevalError(
            f"{recipe.source.path} has packed zero points and rounds activations, which compressed-tensors"
            " cannot do together.",
            "Choose a symmetric checkpoint, or one of weights only.",
        )
    return unpack(recipe, CompressedTensorsConfig(dequantize=True), "I32", {"I32": f"Linear[{PACKED}]"})


SPECS = (
    SchemeSpec(
        "compressed-tensors",
        "fp8, int8, w4a16 as llm-compressor writes them; ready checkpoints",
        load,
        (ATTENTION,),
        (Package("compressed-tensors", "compressed_tensors", "0.15"), ACCELERATE),
        "compressed-tensors",
        DOC,
        place=80,
        unpacked=True,
        checkpoint="required",
        methods=("compressed-tensors",),
    ),
)
