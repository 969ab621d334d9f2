"""bnb4 and bnb8: bitsandbytes, quantising while loading, without calibration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from qeval.load.packages import ACCELERATE
from qeval.load.reading.experts import NOTE, stacks
from qeval.load.reading.opening import ATTENTION, compute_in, open_model
from qeval.load.reading.skipping import SKIP, answers, skipped
from qeval.load.spec import OptionSpec, Package, Recipe, SchemeSpec

BLOCK = 64
PACKAGES = (Package("bitsandbytes", "bitsandbytes", "0.46"), ACCELERATE)


def load_4bit(recipe: Recipe) -> Any:
    """Linear layers as Linear4bit, all but the head; a ready checkpoint keeps its own settings."""
    import bitsandbytes
    import torch
    from transformers import BitsAndBytesConfig

    options = recipe.options
    chosen = options["compute_dtype"]
    compute = recipe.compute if chosen == "auto" else str(chosen)
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=options["quant_type"],
        bnb_4bit_use_double_quant=options["double_quant"],
        bnb_4bit_compute_dtype=getattr(torch, compute),
        llm_int8_skip_modules=skipped(recipe),
    )
    keywords = {} if recipe.ready else {"quantization_config": config}
    with _quantised_on(recipe):
        model = open_model(recipe, **keywords)
    compute_in(model, recipe.compute, (bitsandbytes.nn.Linear4bit,))
    if recipe.ready:
        _compute_4bit(model, compute)
    else:
        _quantise_experts(model, recipe)
    return model


@contextmanager
def _quantised_on(recipe: Recipe) -> Iterator[None]:
    """Within it weights that are left in host memory are quantised on the device all the same: a CPU divides
    otherwise, and would round a few to the other neighbour."""
    from bitsandbytes.nn import Params4bit

    if recipe.held == recipe.device:
        yield
        return
    theirs = Params4bit._quantize  # noqa: SLF001 - its only door

    def quantise(weight: Any, _: Any) -> Any:
        made = theirs(weight, recipe.device)
        made.data = made.data.to(recipe.held)
        made.quant_state.to(recipe.held)
        return made

    Params4bit._quantize = quantise  # noqa: SLF001
    try:
        yield
    finally:
        Params4bit._quantize = theirs  # noqa: SLF001


def _quantise_experts(model: Any, recipe: Recipe) -> None:
    """Stacks of experts in the same 4 bits, unpacked by bitsandbytes when they are read: transformers leaves
    them as they are, since they are no linear layers."""
    from bitsandbytes.nn.parametrize import replace_parameter_4bit

    options = recipe.options
    words = str(options["skip_modules"]).split("+")
    found = [stack for stack in stacks(model) if not any(answers(stack.name, word) for word in words)]
    for stack in found:
        kind, count = type(stack.module).__name__, int(stack.tensor.numel())
        kind = kind.removeprefix("Parametrized")
        stack.tensor.data = stack.tensor.data.to(recipe.device)
        replace_parameter_4bit(
            stack.module,
            stack.parameter,
            compress_statistics=bool(options["double_quant"]),
            quant_type=options["quant_type"],
            blocksize=BLOCK,
        )
        packed = stack.module.parametrizations[stack.parameter]
        packed.stacked_weights, packed.stands_for, packed.form = count, kind, options["quant_type"]
        packed.to(recipe.held)
        packed[0].quant_state.to(recipe.held)
    if found:
        recipe.notes.append(NOTE.format(library="bitsandbytes"))


def _compute_4bit(model: Any, dtype: str) -> None:
    """Calculate in the dtype asked for: a checkpoint's own was chosen for another machine."""
    import bitsandbytes
    import torch

    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.compute_dtype = getattr(torch, dtype)
            module.compute_type_is_set = True


def load_8bit(recipe: Recipe) -> Any:
    """Linear layers as Linear8bitLt, all but the head: 8-bit weights and activations, outliers apart."""
    import bitsandbytes
    from transformers import BitsAndBytesConfig

    options = recipe.options
    config = BitsAndBytesConfig(
        load_in_8bit=True,
        llm_int8_threshold=options["threshold"],
        llm_int8_skip_modules=skipped(recipe),
        llm_int8_enable_fp32_cpu_offload=options["fp32_cpu_offload"],
    )
    keywords: dict[str, Any] = {} if recipe.ready else {"quantization_config": config}
    if options["fp32_cpu_offload"]:
        keywords["device_map"] = "auto"
    model = open_model(recipe, **keywords)
    return compute_in(model, recipe.compute, (bitsandbytes.nn.Linear8bitLt,))


def beside(module: Any) -> Iterator[tuple[str, Any]]:
    """What bitsandbytes keeps beside its weights: scales, nested scales, the 16 values of a code."""
    for tensor in module.parameters(recurse=False):
        state = getattr(tensor, "quant_state", None)
        if state is not None:
            yield from _state_tensors(state)
        if getattr(tensor, "SCB", None) is not None:
            yield "SCB", tensor.SCB
    if hasattr(module, "stacked_weights"):
        for part in module.children():
            yield from _state_tensors(part.quant_state)


def _state_tensors(state: Any) -> Iterator[tuple[str, Any]]:
    from torch import Tensor

    for name in ("absmax", "code", "offset"):
        tensor = getattr(state, name, None)
        if isinstance(tensor, Tensor):
            yield name, tensor
    if getattr(state, "state2", None) is not None:
        yield from _state_tensors(state.state2)


SPECS = (
    SchemeSpec(
        "bnb4",
        "bitsandbytes, 4 bits: NF4 or FP4 in blocks of 64",
        load_4bit,
        (
            OptionSpec("quant_type", str, "nf4", "the 16 values a weight can take", choices=("nf4", "fp4")),
            OptionSpec(
                "double_quant", bool, False, "quantise the block scales too, saving 0.4 bits per weight"
            ),
            OptionSpec(
                "compute_dtype",
                str,
                "auto",
                "what the unpacked weights are multiplied in",
                choices=("auto", "float32", "float16", "bfloat16"),
                acts="reading",
            ),
            SKIP,
            ATTENTION,
        ),
        PACKAGES,
        "bnb",
        place=20,
        weight_bits=5,
        streams=True,
        beside=beside,
        checkpoint="optional",
        methods=("bitsandbytes_4bit",),
        recognise=lambda _, config: bool(config.get("load_in_4bit")),
        config_keys={"quant_type": "bnb_4bit_quant_type", "double_quant": "bnb_4bit_use_double_quant"},
    ),
    SchemeSpec(
        "bnb8",
        "bitsandbytes, LLM.int8(): 8-bit weights and activations, outlier columns apart",
        load_8bit,
        (
            OptionSpec("threshold", float, 6.0, "activations beyond it are outliers, kept in 16 bits", low=0),
            SKIP,
            OptionSpec(
                "fp32_cpu_offload",
                bool,
                False,
                "let layers that do not fit the GPU stay on the CPU in float32",
                acts="reading",
            ),
            ATTENTION,
        ),
        PACKAGES,
        "bnb",
        place=21,
        weight_bits=9,
        beside=beside,
        checkpoint="optional",
        methods=("bitsandbytes_8bit",),
        recognise=lambda _, config: bool(config.get("load_in_8bit")),
        config_keys={"threshold": "llm_int8_threshold"},
    ),
)
