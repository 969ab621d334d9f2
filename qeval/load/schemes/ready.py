"""Loaders of ready checkpoints that from_pretrained alone does not read, describe or multiply rightly."""

from __future__ import annotations

from collections import Counter
from typing import Any

from qeval.base.errors import QevalError
from qeval.load.reading import placed
from qeval.load.reading.headers import Stored, bits_per_weight, owner_of, stored_tensors
from qeval.load.reading.opening import compute_in, open_model
from qeval.load.schemes.plain import attention
from qeval.load.schemes.spec import Recipe

_FORMS = {"U8": "MXFP4", "I32": "Linear[pack-quantized]"}
"""What a packed matrix is, where the type of its tensor does not say."""
UNPACKED = "{name} is unpacked into plain weights{why}: its quality, not its speed or its memory."
AQLM_NOTE = (
    "On a CPU, AQLM's layers are multiplied by their unpacked weights: aqlm's own kernel for CPUs lets"
    " threads overwrite each other's sums."
)
VPTQ_NOTE = (
    "VPTQ's layers are unpacked for every product by vptq's portable code, not by its kernels: its quality"
    " and its memory, not its speed."
)


def load_compressed_tensors(recipe: Recipe) -> Any:
    """A checkpoint of llm-compressor, unpacked by compressed-tensors, which has no kernels of its own.

    It would unpack at the first forward pass of the whole model; here that happens at once, so that what is
    described is what is scored. Where the scheme rounds activations, the layers go on doing so.
    """
    from qeval.load.reading import proof

    if _packs_zeros(_config(recipe)):
        return _unpack_while_loading(recipe)
    model = _open(recipe)
    model.hf_quantizer.compressor.decompress_model(model)
    modules = proof.quantised_modules(model)
    weights = {name: int(module.weight.numel()) for name, module in modules.items()}
    recipe.evidence["bits_per_weight"] = bits_per_weight(stored_tensors(recipe.source), weights)
    rounds = any(module.quantization_scheme.input_activations is not None for module in modules.values())
    why = ", its activations still rounded" if rounds else ""
    recipe.notes.append(UNPACKED.format(name=recipe.source.path, why=why))
    return model


def _packs_zeros(config: dict[str, Any]) -> bool:
    """Whether zero points are packed with the weights: compressed-tensors 0.20 makes room for unpacked ones,
    so that the model as it is cannot take them in."""
    groups = [group for group in (config.get("config_groups") or {}).values() if isinstance(group, dict)]
    return any(
        (group.get("format") or config.get("format")) == "pack-quantized"
        and not (group.get("weights") or {}).get("symmetric", True)
        for group in groups
    )


def _unpack_while_loading(recipe: Recipe) -> Any:
    """The model unpacked tensor by tensor, in the type of the file's scales; its files tell what it was.

    Raises QevalError where a scheme rounds activations, since they would not be rounded.
    """
    from transformers import CompressedTensorsConfig

    config = _config(recipe)
    if any(group.get("input_activations") for group in config["config_groups"].values()):
        raise QevalError(
            f"{recipe.source.path} has packed zero points and rounds activations, which compressed-tensors"
            " cannot do together.",
            "Choose a symmetric checkpoint, or one of weights only.",
        )
    return _unpack(recipe, CompressedTensorsConfig(dequantize=True), "I32")


def load_aqlm(recipe: Recipe) -> Any:
    """AQLM's codes and codebooks; on a CPU multiplied by the library's portable product."""
    model = _open(recipe)
    if not recipe.device.startswith("cuda"):
        _multiply_unpacked(model)
        recipe.notes.append(AQLM_NOTE)
    _tell_bits(recipe, model)
    return model


def _multiply_unpacked(model: Any) -> None:
    """Give every AQLM layer the product by its unpacked weight, before it chooses one at its first call.

    The choice for codebooks of 256 would be a numba kernel (of aqlm 1.1.7) whose threads add to the same
    output without a lock: wrong numbers, and others at every call.
    """
    from aqlm import QuantizedLinear
    from aqlm.inference_kernels.dequantization import dequantize_gemm

    class Portable:
        apply = staticmethod(dequantize_gemm)

    for module in model.modules():
        if isinstance(module, QuantizedLinear):
            module.gemv_op = module.gemm_op = Portable
            module.use_gemv_rule = lambda _: True


def load_vptq(recipe: Recipe) -> Any:
    """VPTQ's indices and codebooks, on any device multiplied by vptq's portable product."""
    placed.import_vptq()
    with placed.placing("vptq", placed.vptq_layer):
        model = _open(recipe)
    recipe.notes.append(VPTQ_NOTE)
    recipe.evidence["quantization"] = placed.vptq_settings(_config(recipe))
    _tell_bits(recipe, model)
    return model


def load_spqr(recipe: Recipe) -> Any:
    """SpQR's tiles and outliers. Raises QevalError for another type than float16, before weights are read."""
    if recipe.compute != "float16":
        raise QevalError(
            f"spqr calculates in float16 only, and {recipe.compute} was asked for.",
            "Leave out --dtype, or write --dtype float16.",
        )
    with placed.placing("spqr", placed.spqr_layer):
        model = _open(recipe)
    told = {name: value for name, value in _config(recipe).items() if name != "shapes"}
    recipe.evidence["quantization"] = told
    return model


def load_autoround(recipe: Recipe) -> Any:
    """AutoRound's packed layers; on a CPU by the kernel that comes with auto-round itself.

    auto-round casts the whole model to 16 bits where its kernels do; what is not packed is then calculated
    in the compute type again, and its 16 bits are told.
    """
    from transformers import AutoRoundConfig

    from qeval.load.reading import proof

    backend = "auto" if recipe.device.startswith("cuda") else "torch"
    config = AutoRoundConfig(backend=backend)
    model = open_model(recipe, quantization_config=config, **attention(recipe))
    held = str(model.get_input_embeddings().weight.dtype).removeprefix("torch.")
    recipe.evidence["dtype"] = held if held == recipe.compute else f"{held} weights, {recipe.compute} compute"
    kinds = {type(module) for module in proof.quantised_modules(model).values()}
    _tell_bits(recipe, model)
    return compute_in(model, recipe.compute, tuple(kinds))


def unpack_fp8(recipe: Recipe) -> Any:
    """A checkpoint in 8-bit floating point, unpacked; activations are not rounded, as its kernels do."""
    from transformers import FineGrainedFP8Config

    recipe.notes.append(
        "FP8 kernels round activations to 8 bits as well, which the unpacked checkpoint does not."
    )
    return _unpack(recipe, FineGrainedFP8Config(dequantize=True), "F8_")


def unpack_mxfp4(recipe: Recipe) -> Any:
    """A checkpoint of gpt-oss, its experts unpacked."""
    from transformers import Mxfp4Config

    return _unpack(recipe, Mxfp4Config(dequantize=True), "U8")


def _unpack(recipe: Recipe, config: Any, dtype: str) -> Any:
    """The model in plain weights of the compute type; what is quantised is told by its files.

    `dtype` is how the types of packed matrices begin in the files. Raises QevalError where no matrix is.
    """
    tensors = stored_tensors(recipe.source)
    packed = _packed(tensors, dtype)
    if not packed:
        raise QevalError(
            f"{recipe.source.path} holds no packed weights in safetensors files.",
            "Check that the directory holds the quantised checkpoint, not the model it was made of.",
        )
    quantization = _config(recipe)
    model = compute_in(_open(recipe, quantization_config=config), recipe.compute)
    weights = {name: int(_parameter(model, name).numel()) for name in packed}
    recipe.evidence.update(
        modules=dict(Counter(packed.values())),
        bits_per_weight=bits_per_weight(tensors, weights),
        quantization={**quantization, "dequantized": True},
    )
    recipe.notes.append(UNPACKED.format(name=recipe.source.path, why=""))
    return model


def _config(recipe: Recipe) -> dict[str, Any]:
    from qeval.load.source import read_config

    return dict(read_config(recipe.source).get("quantization_config") or {})


def _packed(tensors: dict[str, Stored], dtype: str) -> dict[str, str]:
    """The layers, or parameters, that own a packed matrix, with what it is."""
    ends = ("weight", "_blocks", "weight_packed")
    return {
        owner_of(name): _FORMS.get(stored.dtype, stored.dtype)
        for name, stored in tensors.items()
        if stored.dtype.startswith(dtype) and len(stored.shape) > 1 and name.endswith(ends)
    }


def _parameter(model: Any, name: str) -> Any:
    """The weight of a layer, or the parameter itself."""
    parameters = dict(model.named_parameters())
    return parameters[name] if name in parameters else parameters[f"{name}.weight"]


def _open(recipe: Recipe, **keywords: Any) -> Any:
    """The model with its plain weights in the compute type, which these libraries take for all."""
    recipe.evidence["dtype"] = recipe.compute
    return open_model(recipe, dtype=recipe.compute, **keywords, **attention(recipe))


def _tell_bits(recipe: Recipe, model: Any) -> None:
    """Bits per weight from the files, whose scales and codebooks a library may hold in another type."""
    from qeval.load.reading import proof

    found = {name: proof.weights_of(module) for name, module in proof.quantised_modules(model).items()}
    weights = {name: count for name, count in found.items() if count is not None}
    if len(weights) == len(found):
        bits = bits_per_weight(stored_tensors(recipe.source), weights)
        if bits is not None:
            recipe.evidence["bits_per_weight"] = bits
