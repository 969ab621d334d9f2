"""awq: ready checkpoints, or made here; read through transformers and gptqmodel's kernels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from qeval.base.errors import QevalError
from qeval.load.making import checkpoint
from qeval.load.packages import ACCELERATE, GPTQMODEL
from qeval.load.reading.gptq_ready import OLD_NOTE, with_settings
from qeval.load.reading.kernels import BACKEND_NOTE, open_stepping_down
from qeval.load.reading.opening import ATTENTION, compute_in
from qeval.load.reading.skipping import LATE_SKIP
from qeval.load.source import Source, read_config, read_json
from qeval.load.spec import OptionSpec, Recipe, SchemeSpec

DOC = """\
AWQ (arXiv 2306.00978) multiplies weights by a scale for each input channel before rounding, and divides
what produces the channel by it: the norm before q, k and v or before gate and up, v before o, up before
down. The scale is the mean magnitude of the channel to a power in [0, 1), the best of 20 by the squared
error of the layers' outputs; then the range of each group is clipped where that lowers the error further,
except in q and k, as in the paper's code. Errors are exact over all calibration tokens, for they need no
more than the sum of xᵀx. Where several query heads read one value head, the scale before o is shared among
them. Rounding is asymmetric, to 4 bits.

The checkpoint is in AutoAWQ's gemm packing, which plain transformers loads; it is cached, keyed and resumed
as GPTQ's is. Blocks must be those of llama, mistral, qwen2 or qwen3; for others name a ready checkpoint.
gptqmodel's own AWQ was tried first: on a CPU of two cores it starts only with a setting of its thread pool,
calculates in float16, and took a minute a block of the demo model, where this takes five seconds.

Layers that `skip_modules` names stay in 16 bits. Where all that read a norm or a layer are among them, it is
not scaled; else they are multiplied by the scale that the others were given, so the model computes the
same function up to rounding to 16 bits. The checkpoint names them in `modules_to_not_convert`, for
transformers, and in `dynamic`, for gptqmodel.

To be scored, and on a CPU, weights are unpacked by gptqmodel's code and multiplied in the compute type, since
gptqmodel's kernels for a CPU round activations to 16 bits. `backend` chooses the kernel of a GPU that costs
are measured with, and with `--no-materialize` the one that scores. Checkpoints in the gemv packings need a
GPU, and are scored by its kernels.
"""
METHOD = 2
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
SETTINGS = "quant_config.json"
"""Where AutoAWQ first wrote what stands in config.json today."""
MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")
"""Models whose blocks are known to be those of `making.awq.PAIRS`, with norms that multiply by a weight."""
CPU_NOTE = (
    "gptqmodel's kernels for AWQ on a CPU round activations to 16 bits; here weights are unpacked by its code"
    " and multiplied in the type of the activations, so that the numbers are those of other devices."
)


def load(recipe: Recipe) -> Any:
    """The checkpoint, ready or made here: to be scored, by the layer that runs everywhere; `fast`, with the
    kernel asked for, as are packings for GPUs, which no other reads. Raises QevalError for one in a packing
    that cannot be read here."""
    from gptqmodel.nn_modules.qlinear import BaseQuantLinear
    from transformers import AwqConfig

    place = recipe.weights
    backend = str(recipe.options["backend"])
    on_cpu = recipe.device == "cpu" and (backend in {"auto", "torch"} or not recipe.fast)
    portable = recipe.streamed or on_cpu or not (recipe.fast or _packing(place) != "gemm")
    old = recipe.ready and _old_settings(place)
    keywords = {"config": with_settings(recipe, old)} if old else {}
    if old:
        recipe.notes.append(OLD_NOTE.format(name=place.path, file=SETTINGS, library="AutoAWQ"))
    if portable and backend not in {"auto", "torch"}:
        recipe.notes.append(BACKEND_NOTE.format(asked=backend))
    if recipe.streamed or on_cpu:
        _check_packing(place)
        if recipe.device == "cpu":
            recipe.notes.append(CPU_NOTE)
    if portable:
        backend = "torch"
    names = STEPS if backend == "auto" and recipe.device.startswith("cuda") else (backend,)
    # all else is read from the checkpoint; transformers takes only the loading attributes from here
    model = open_stepping_down(
        replace(recipe, source=place), names, lambda name: AwqConfig(backend=KERNELS[name]), **keywords
    )
    told = model.config.quantization_config
    told.sym = not told.zero_point  # transformers fills in GPTQ's default, which would be recorded
    if portable:
        _compute_in_own_dtype(model)
    return compute_in(model, recipe.compute, (BaseQuantLinear,))


def recognise(source: Source, config: Mapping[str, Any]) -> bool:
    """Whether it is one of AutoAWQ's older checkpoints, whose settings stand in a file of their own."""
    return not config and "w_bit" in (read_json(source, SETTINGS) or {})


def _old_settings(place: Source) -> dict[str, Any]:
    """The settings in AutoAWQ's own file, as they stand in a config.json today; empty where that has them."""
    found = {} if read_config(place).get("quantization_config") else read_json(place, SETTINGS) or {}
    names = {"w_bit": "bits", "q_group_size": "group_size", "zero_point": "zero_point", "version": "version"}
    told = {now: found[then] for then, now in names.items() if then in found}
    return {"quant_method": "awq", **told} if told else {}


def _check_packing(place: Source) -> None:
    """Refuse, before weights are read, a checkpoint in one of AutoAWQ's packings for GPUs."""
    packing = _packing(place)
    if packing != "gemm":
        raise QevalError(
            f"{place.path} is packed as {packing}, which is read on NVIDIA GPUs only.",
            "Run it there, or name a checkpoint whose version is gemm.",
        )


def _packing(place: Source) -> str:
    """The packing that a checkpoint tells."""
    config = read_config(place).get("quantization_config") or _old_settings(place)
    return str(config.get("version") or config.get("format") or "gemm").lower()


def _compute_in_own_dtype(model: Any) -> None:
    """Make the model's AWQ layers, loaded with gptqmodel's torch kernel, multiply in their input's dtype."""
    from gptqmodel.nn_modules.qlinear.torch_awq import AwqTorchLinear

    for module in model.modules():
        if type(module) is AwqTorchLinear:
            module.__class__ = _own_dtype_linear()  # keeps buffers and name


@cache
def _own_dtype_linear() -> type:
    """Gptqmodel's AWQ layer, multiplying in the type of the activations instead of in 16 bits."""
    from gptqmodel.nn_modules.qlinear.torch_awq import AwqTorchLinear
    from gptqmodel.quantization.awq.utils.packing_utils import dequantize_gemm
    from torch.nn.functional import linear

    class AwqOwnDtypeLinear(AwqTorchLinear):  # type: ignore[misc]  # gptqmodel is not followed by mypy
        """The parent casts activations to float16, whose products are slow on a CPU and rounded."""

        def dequantize_weight(self) -> Any:
            """The weight as (in, out) in the dtype of the scales, float16: what GPU kernels multiply by."""
            return dequantize_gemm(
                self.qweight, self.qzeros, self.scales, bits=self.bits, group_size=self.group_size
            )

        def forward(self, x: Any) -> Any:
            """(..., in) to (..., out), in the dtype of `x`."""
            bias = None if self.bias is None else self.bias.to(x.dtype)
            out = linear(x, self.dequantize_weight().to(x.dtype).t(), bias)
            return out if self.adapter is None else self.adapter.apply(x=x, out=out)

    return AwqOwnDtypeLinear


def make(recipe: Recipe) -> Path:
    """The directory of the checkpoint that the recipe describes, quantised at the first call and cached.

    Raises QevalError for a model whose blocks are not like Llama's, a group size that does not divide a
    layer, and for calibration text that cannot be had.
    """
    _check_model(recipe)
    return checkpoint.checkpoint(
        recipe, SPEC, METHOD, ("gptqmodel",), lambda found, target: _build(recipe, found, target)
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

    plain = checkpoint.left_plain(recipe, found.model)
    size = checkpoint.group_size(found.model, int(recipe.options["group_size"]), plain)
    plan = awq.Plan(bits=int(recipe.options["bits"]), group_size=size, plain=plain)
    awq.search(found.model, found.windows, plan, found.work, recipe.progress)
    recipe.progress("awq: writing")
    awq.save(compute_in(found.model, recipe.store), found.tokenizer, plan, found.work, target)
    return checkpoint.told(plan)


SPEC = SchemeSpec(
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
        LATE_SKIP,
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
        GPTQMODEL,
        ACCELERATE,
    ),
    "gptq",
    DOC,
    place=40,
    make=make,
    weight_bits=4.5,
    streams=True,
    kernels=True,
    checkpoint="optional",
    methods=("awq",),
    recognise=recognise,
    config_keys={"bits": "bits", "group_size": "group_size"},
)
SPECS = (SPEC,)
