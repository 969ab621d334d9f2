"""The schemes that transformers reads through its own quantizers: some quantise while loading, the others
need a ready checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from qeval.load.reading.opening import open_model
from qeval.load.schemes import ready
from qeval.load.schemes.plain import ATTENTION, attention
from qeval.load.schemes.rtn import divide
from qeval.load.schemes.spec import OptionSpec, Package, Recipe, SchemeSpec

Config = Callable[[Recipe], Any]
ACCELERATE = Package("accelerate", "accelerate", "1.2")
KERNELS = Package("kernels", "kernels", "0.18.2", below="0.19", kernel=True)
"""The versions that transformers 5.23 takes; it fetches the kernels themselves from the Hub."""
TRITON = Package("triton", "triton", "3.4", kernel=True)
UNPACK = OptionSpec(
    "unpack", bool, False, "hold a ready checkpoint in plain weights, for any device", acts="reading"
)


def _open(recipe: Recipe, **keywords: Any) -> Any:
    """The model with its plain weights in the compute type: these libraries take the type they are given."""
    recipe.evidence["dtype"] = recipe.compute
    return open_model(recipe, dtype=recipe.compute, **keywords, **attention(recipe))


def load_ready(recipe: Recipe) -> Any:
    """A ready checkpoint, which says itself how it is to be read."""
    return _open(recipe)


def _or_unpacked(load: Callable[[Recipe], Any], unpack: Callable[[Recipe], Any]) -> Callable[[Recipe], Any]:
    """The loader of a scheme with the option `unpack`."""
    return lambda recipe: (unpack if recipe.options["unpack"] else load)(recipe)


def _while_loading(config: Config) -> Callable[[Recipe], Any]:
    """A loader that quantises with `config`; a ready checkpoint keeps its own."""

    def load(recipe: Recipe) -> Any:
        return load_ready(recipe) if recipe.ready else _open(recipe, quantization_config=config(recipe))

    return load


def _check_groups(recipe: Recipe, group_size: int) -> None:
    """Refuse a group size that does not divide a width of the model, before its weights are read."""
    from transformers import AutoConfig

    source = recipe.source
    config = AutoConfig.from_pretrained(
        source.place, revision=source.revision or "main", trust_remote_code=recipe.trust_remote_code
    )
    for name in ("hidden_size", "intermediate_size"):
        if isinstance(getattr(config, name, None), int):
            divide(f"layers of the model's {name}", getattr(config, name), group_size)


def quanto_config(recipe: Recipe) -> Any:
    """optimum-quanto, weights only."""
    from transformers import QuantoConfig

    return QuantoConfig(weights=recipe.options["weights"])


def torchao_config(recipe: Recipe) -> Any:
    """torchao, weights only; `int4` by its portable kernel, `int4-packed` by the one for GPUs."""
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
    return TorchAoConfig(kinds[str(weights)]())


def eetq_config(_: Recipe) -> Any:
    """EETQ, 8-bit weights."""
    from transformers import EetqConfig

    return EetqConfig("int8")


def fp8_config(_: Recipe) -> Any:
    """8-bit floating point in blocks of 128 x 128, as DeepSeek-V3 is published."""
    from transformers import FineGrainedFP8Config

    return FineGrainedFP8Config()


def nvfp4_config(_: Recipe) -> Any:
    """NVIDIA's 4-bit floating point in blocks of 16."""
    from transformers import NVFP4Config

    return NVFP4Config()


def _ready(
    name: str,
    summary: str,
    packages: tuple[Package, ...],
    *methods: str,
    load: Callable[[Recipe], Any] = load_ready,
    options: tuple[OptionSpec, ...] = (),
    device: Literal["any", "cuda"] = "any",
    **fields: Any,
) -> SchemeSpec:
    return SchemeSpec(
        name,
        f"{summary}; ready checkpoints",
        load,
        (*options, ATTENTION),
        (*packages, ACCELERATE),
        fields.pop("extra", name),
        checkpoint="required",
        methods=methods,
        device=device,
        **fields,
    )


def _made(
    name: str,
    summary: str,
    config: Config,
    options: tuple[OptionSpec, ...],
    packages: tuple[Package, ...],
    *methods: str,
    device: Literal["any", "cuda"] = "any",
    **fields: Any,
) -> SchemeSpec:
    return SchemeSpec(
        name,
        summary,
        fields.pop("load", _while_loading(config)),
        (*options, ATTENTION),
        (*packages, ACCELERATE),
        name,
        checkpoint="optional" if methods else "no",
        methods=methods,
        device=device,
        **fields,
    )


SPECS = (
    _made(
        "torchao",
        "torchao, weights only",
        torchao_config,
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
        ),
        (Package("torchao", "torchao", "0.15"),),
        "torchao",
        verified="CPU, H100",
        half="bfloat16",
        weight_bits=9,
    ),
    _made(
        "quanto",
        "optimum-quanto, weights only",
        quanto_config,
        (OptionSpec("weights", str, "int8", "their type", choices=("int8", "int4", "int2", "float8")),),
        (Package("optimum-quanto", "optimum.quanto", "0.2.6"),),
        "quanto",
        verified="CPU, H100",
        config_keys={"weights": "weights"},
        weight_bits=9,
    ),
    _ready(
        "compressed-tensors",
        "fp8, int8, w4a16 as llm-compressor writes them",
        (Package("compressed-tensors", "compressed_tensors", "0.15"),),
        "compressed-tensors",
        load=ready.load_compressed_tensors,
        verified="CPU, H100",
        unpacked=True,
    ),
    _ready(
        "aqlm",
        "AQLM, additive codebooks of about 2 bits",
        (Package("aqlm", "aqlm", "1.1"),),
        "aqlm",
        load=ready.load_aqlm,
        verified="CPU, H100",
    ),
    _ready(
        "higgs",
        "HIGGS, Hadamard rotation and a Gaussian grid",
        (
            Package("flute-kernel", "flute", "0.4.1"),
            Package("fast-hadamard-transform", "fast_hadamard_transform"),
        ),
        "higgs",
        device="cuda",
    ),
    _ready(
        "vptq",
        "VPTQ, vector codebooks",
        (Package("vptq", "vptq", "0.0.5"),),
        "vptq",
        load=ready.load_vptq,
        verified="CPU, H100",
    ),
    _ready(
        "spqr",
        "SpQR, sparse outliers apart",
        (Package("spqr_quant", "spqr_quant", "0.2"),),
        "spqr",
        load=ready.load_spqr,
        device="cuda",
        verified="H100",
    ),
    _ready(
        "autoround",
        "AutoRound, rounding learnt by sign gradients",
        (Package("auto-round", "auto_round", "0.5"),),
        "auto-round",
        "intel/auto-round",
        load=ready.load_autoround,
        verified="CPU, H100",
    ),
    _made("eetq", "EETQ, 8-bit weights", eetq_config, (), (KERNELS,), "eetq", device="cuda", weight_bits=9),
    _made(
        "fp8",
        "8-bit floating point in blocks of 128 x 128",
        fp8_config,
        (UNPACK,),
        (KERNELS,),
        "fp8",
        load=_or_unpacked(_while_loading(fp8_config), ready.unpack_fp8),
        device="cuda",
        capability=(8, 9),
        verified="CPU and H100, unpacked",
        weight_bits=9,
    ),
    _ready(
        "mxfp4",
        "MXFP4, the experts of gpt-oss",
        (KERNELS, TRITON),
        "mxfp4",
        load=_or_unpacked(load_ready, ready.unpack_mxfp4),
        options=(UNPACK,),
        device="cuda",
        capability=(7, 5),
        verified="CPU and H100, unpacked",
    ),
    _made(
        "nvfp4",
        "NVFP4, for Blackwell GPUs",
        nvfp4_config,
        (),
        (KERNELS,),
        device="cuda",
        capability=(10, 0),
        weight_bits=5,
    ),
)
