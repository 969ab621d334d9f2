"""awq: ready checkpoints, or made here; read through transformers and gptqmodel's kernels."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from qeval.base.errors import QevalError
from qeval.load.making import checkpoint
from qeval.load.reading.kernels import open_stepping_down
from qeval.load.reading.opening import compute_in
from qeval.load.schemes.plain import ATTENTION
from qeval.load.schemes.spec import OptionSpec, Package, Recipe, SchemeSpec
from qeval.load.source import Source, read_config

METHOD = 1
"""Raised when a change of qeval's own code changes the checkpoint it makes."""
KERNELS = {
    "auto": "auto",
    "torch": "torch_awq",
    "gemm_triton": "gemm_triton",
    "exllama_v2": "exllama_v2",
    "marlin": "marlin",
    "machete": "machete",
}
"""Our names of kernels, and transformers'."""
STEPS = ("auto", "marlin", "exllama_v2", "gemm_triton", "torch")
"""Kernels of a GPU from the library's choice to the one that runs everywhere."""
MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")
"""Models whose blocks are known to be those of `awq_make.PAIRS`, with norms that multiply by a weight."""
CPU_NOTE = (
    "gptqmodel's kernels for AWQ on a CPU round activations to 16 bits; here weights are unpacked by its code"
    " and multiplied in the type of the activations, so that the numbers are those of other devices."
)


def load(recipe: Recipe) -> Any:
    """The checkpoint, made first if none is ready, with the kernel asked for. Raises QevalError for one in
    a packing that cannot be read here."""
    from gptqmodel.nn_modules.qlinear import BaseQuantLinear
    from transformers import AwqConfig

    place = recipe.source if recipe.ready else Source(str(make(recipe)))
    backend = str(recipe.options["backend"])
    on_cpu = recipe.device == "cpu" and backend in {"auto", "torch"}
    if on_cpu:
        _check_packing(place)
        backend = "torch"
        recipe.notes.append(CPU_NOTE)
    names = STEPS if backend == "auto" and recipe.device.startswith("cuda") else (backend,)
    # all else is read from the checkpoint; transformers takes only the loading attributes from here
    model = open_stepping_down(
        replace(recipe, source=place), names, lambda name: AwqConfig(backend=KERNELS[name])
    )
    told = model.config.quantization_config
    told.sym = not told.zero_point  # transformers fills in GPTQ's default, which would be recorded
    if on_cpu:
        from qeval.load.reading.awq_linear import compute_in_own_dtype

        compute_in_own_dtype(model)
    return compute_in(model, recipe.compute, (BaseQuantLinear,))


def _check_packing(place: Source) -> None:
    """Refuse, before weights are read, a checkpoint in one of AutoAWQ's packings for GPUs."""
    config = read_config(place).get("quantization_config") or {}
    packing = str(config.get("version") or config.get("format") or "gemm").lower()
    if packing != "gemm":
        raise QevalError(
            f"{place.path} is packed as {packing}, which is read on NVIDIA GPUs only.",
            "Run it there, or name a checkpoint whose version is gemm.",
        )


def make(recipe: Recipe) -> Path:
    """The directory of the checkpoint that the recipe describes, quantised at the first call and cached.

    Raises QevalError for a model whose blocks are not like Llama's, a group size that does not divide a
    layer, and for calibration text that cannot be had.
    """
    _check_model(recipe)
    return checkpoint.checkpoint(
        recipe, "awq", METHOD, ("gptqmodel",), lambda found, target: _build(recipe, found, target)
    )


def _check_model(recipe: Recipe) -> None:
    """Refuse, before weights are read, a model whose blocks are not known."""
    kind = read_config(recipe.base).get("model_type")
    if kind not in MODEL_TYPES:
        raise QevalError(
            f"AWQ is made here for {', '.join(MODEL_TYPES)} only, and {recipe.model} is {kind}.",
            "Use a ready checkpoint, awq@<Hub id or directory>, or gptq.",
        )


def _build(recipe: Recipe, found: checkpoint.Materials, target: Path) -> dict[str, Any]:
    from qeval.load.making import awq

    size = checkpoint.group_size(found.model, int(recipe.options["group_size"]))
    plan = awq.Plan(bits=int(recipe.options["bits"]), group_size=size)
    awq.search(found.model, found.windows, plan, found.work, recipe.progress)
    recipe.progress("awq: packing")
    awq.pack(found.model, plan)
    compute_in(found.model, recipe.store).save_pretrained(target)
    found.tokenizer.save_pretrained(target)
    return asdict(plan)


SPECS = (
    SchemeSpec(
        "awq",
        "AWQ, activation-aware: a ready checkpoint, else quantised here with calibration text",
        load,
        (
            OptionSpec("bits", int, 4, "bits of a weight", choices=(4,)),
            OptionSpec(
                "group_size",
                int,
                0,
                "inputs that share a scale; 0 the largest power of two up to 128 that divides all",
                choices=(0, 16, 32, 64, 128),
            ),
            *checkpoint.OPTIONS,
            OptionSpec(
                "backend",
                str,
                "auto",
                "gptqmodel's kernel",
                choices=tuple(KERNELS),
                acts="reading",
                on_gpu=("gemm_triton", "exllama_v2", "marlin", "machete"),
            ),
            ATTENTION,
        ),
        (
            Package("gptqmodel", "gptqmodel", "7.5"),
            Package("accelerate", "accelerate", "1.2"),
        ),
        "gptq",
        checkpoint="optional",
        methods=("awq",),
        verified="CPU, H100",
        calibrated=True,
        make=make,
        config_keys={"bits": "bits", "group_size": "group_size"},
        weight_bits=4.5,
    ),
)
