"""Loaders of ready checkpoints that from_pretrained alone does not read, describe or multiply rightly."""

from __future__ import annotations

from collections import Counter
from typing import Any

from qeval.base.errors import QevalError
from qeval.load.reading import placed
from qeval.load.reading.headers import Stored, bits_per_weight, owner_of, stored_tensors
from qeval.load.reading.opening import compute_in, open_model
from qeval.load.schemes.plain import attention
from qeval.load.schemes.spec import Order

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


def load_compressed_tensors(order: Order) -> Any:
    """A checkpoint of llm-compressor, unpacked by compressed-tensors, which has no kernels of its own.

    It would unpack at the first forward pass of the whole model; here that happens at once, so that what is
    described is what is scored. Where the scheme rounds activations, the layers go on doing so.
    """
    from qeval.load.reading import proof

    if _packs_zeros(_config(order)):
        return _unpack_while_loading(order)
    model = _open(order)
    model.hf_quantizer.compressor.decompress_model(model)
    modules = proof.quantised_modules(model)
    weights = {name: int(module.weight.numel()) for name, module in modules.items()}
    order.evidence["bits_per_weight"] = bits_per_weight(stored_tensors(order.source), weights)
    rounds = any(module.quantization_scheme.input_activations is not None for module in modules.values())
    why = ", its activations still rounded" if rounds else ""
    order.notes.append(UNPACKED.format(name=order.source.path, why=why))
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


def _unpack_while_loading(order: Order) -> Any:
    """The model unpacked tensor by tensor, in the type of the file's scales; its files tell what it was.

    Raises QevalError where a scheme rounds activations, since they would not be rounded.
    """
    from transformers import CompressedTensorsConfig

    config = _config(order)
    if any(group.get("input_activations") for group in config["config_groups"].values()):
        raise QevalError(
            f"{order.source.path} has packed zero points and rounds activations, which compressed-tensors"
            " cannot do together.",
            "Choose a symmetric checkpoint, or one of weights only.",
        )
    return _unpack(order, CompressedTensorsConfig(dequantize=True), "I32")


def load_aqlm(order: Order) -> Any:
    """AQLM's codes and codebooks; on a CPU multiplied by the library's portable product."""
    model = _open(order)
    if not order.device.startswith("cuda"):
        _multiply_unpacked(model)
        order.notes.append(AQLM_NOTE)
    _tell_bits(order, model)
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


def load_vptq(order: Order) -> Any:
    """VPTQ's indices and codebooks, on any device multiplied by vptq's portable product."""
    placed.import_vptq()
    with placed.placing("vptq", placed.vptq_layer):
        model = _open(order)
    order.notes.append(VPTQ_NOTE)
    order.evidence["quantization"] = placed.vptq_settings(_config(order))
    _tell_bits(order, model)
    return model


def load_spqr(order: Order) -> Any:
    """SpQR's tiles and outliers. Raises QevalError for another type than float16, before weights are read."""
    if order.compute != "float16":
        raise QevalError(
            f"spqr calculates in float16 only, and {order.compute} was asked for.",
            "Leave out --dtype, or write --dtype float16.",
        )
    with placed.placing("spqr", placed.spqr_layer):
        model = _open(order)
    told = {name: value for name, value in _config(order).items() if name != "shapes"}
    order.evidence["quantization"] = told
    return model


def load_autoround(order: Order) -> Any:
    """AutoRound's packed layers; on a CPU by the kernel that comes with auto-round itself.

    auto-round casts the whole model to 16 bits where its kernels do; what is not packed is then calculated
    in the compute type again, and its 16 bits are told.
    """
    from transformers import AutoRoundConfig

    from qeval.load.reading import proof

    backend = "auto" if order.device.startswith("cuda") else "torch"
    config = AutoRoundConfig(backend=backend)
    model = open_model(order, quantization_config=config, **attention(order))
    held = str(model.get_input_embeddings().weight.dtype).removeprefix("torch.")
    order.evidence["dtype"] = held if held == order.compute else f"{held} weights, {order.compute} compute"
    kinds = {type(module) for module in proof.quantised_modules(model).values()}
    _tell_bits(order, model)
    return compute_in(model, order.compute, tuple(kinds))


def unpack_fp8(order: Order) -> Any:
    """A checkpoint in 8-bit floating point, unpacked; activations are not rounded, as its kernels do."""
    from transformers import FineGrainedFP8Config

    order.notes.append(
        "FP8 kernels round activations to 8 bits as well, which the unpacked checkpoint does not."
    )
    return _unpack(order, FineGrainedFP8Config(dequantize=True), "F8_")


def unpack_mxfp4(order: Order) -> Any:
    """A checkpoint of gpt-oss, its experts unpacked."""
    from transformers import Mxfp4Config

    return _unpack(order, Mxfp4Config(dequantize=True), "U8")


def _unpack(order: Order, config: Any, dtype: str) -> Any:
    """The model in plain weights of the compute type; what is quantised is told by its files.

    `dtype` is how the types of packed matrices begin in the files. Raises QevalError where no matrix is.
    """
    tensors = stored_tensors(order.source)
    packed = _packed(tensors, dtype)
    if not packed:
        raise QevalError(
            f"{order.source.path} holds no packed weights in safetensors files.",
            "Check that the directory holds the quantised checkpoint, not the model it was made of.",
        )
    quantization = _config(order)
    model = compute_in(_open(order, quantization_config=config), order.compute)
    weights = {name: int(_parameter(model, name).numel()) for name in packed}
    order.evidence.update(
        modules=dict(Counter(packed.values())),
        bits_per_weight=bits_per_weight(tensors, weights),
        quantization={**quantization, "dequantized": True},
    )
    order.notes.append(UNPACKED.format(name=order.source.path, why=""))
    return model


def _config(order: Order) -> dict[str, Any]:
    from qeval.load.source import read_config

    return dict(read_config(order.source).get("quantization_config") or {})


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


def _open(order: Order, **keywords: Any) -> Any:
    """The model with its plain weights in the compute type, which these libraries take for all."""
    order.evidence["dtype"] = order.compute
    return open_model(order, dtype=order.compute, **keywords, **attention(order))


def _tell_bits(order: Order, model: Any) -> None:
    """Bits per weight from the files, whose scales and codebooks a library may hold in another type."""
    from qeval.load.reading import proof

    found = {name: proof.weights_of(module) for name, module in proof.quantised_modules(model).items()}
    weights = {name: count for name, count in found.items() if count is not None}
    if len(weights) == len(found):
        bits = bits_per_weight(stored_tensors(order.source), weights)
        if bits is not None:
            order.evidence["bits_per_weight"] = bits
