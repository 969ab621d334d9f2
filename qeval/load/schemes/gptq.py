"""gptq: ready checkpoints, or made here by gptqmodel's solver; read through transformers and gptqmodel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from qeval.base.errors import QevalError
from qeval.base.records import Option
from qeval.load.making import checkpoint
from qeval.load.packages import ACCELERATE, GPTQMODEL
from qeval.load.reading import gptq_ready as ready
from qeval.load.reading.kernels import BACKEND_NOTE, build_nothing, open_stepping_down
from qeval.load.reading.opening import ATTENTION, compute_in
from qeval.load.reading.skipping import LATE_SKIP
from qeval.load.source import Source, read_json
from qeval.load.spec import OptionSpec, Package, Recipe, SchemeSpec

DOC = """\
auto-gptq is archived and does not import with today's transformers. gptqmodel is its maintained successor
and reads the same checkpoints; `gptq` uses it.

Plain `gptq` first looks into a catalogue of ready checkpoints (the Llama-2 ones of 7B and 13B, both
orders), unless an option asks for something that they do not hold. Otherwise qeval quantises the model with
gptqmodel's solver: the layers of a block that read the same tensor are solved together, on activations that
passed through everything quantised before, as in the paper (arXiv 2210.17323). Calibration is 128 samples
of 2048 tokens of C4, as there; for the demo model 16 samples of 256 tokens of a text that comes with qeval,
so that a CPU manages it in minutes. The checkpoint is cached under everything that can change it; a
killed run goes on after the last finished block, and so does one that filled the disk; what is scored is
the saved checkpoint, read back. `qeval quantize` writes the same files to a directory of yours, with a model
card. On a GPU layers that read the same tensor are solved as one matrix, and no kernel is compiled. The kind
of device and the threads of a CPU are in the checkpoint's key, since sums are rounded differently elsewhere.

To be scored, weights are unpacked by gptqmodel's portable layer, on every machine, and dequantised once.
`backend` chooses the kernel that costs are measured with, and with `--no-materialize` the one that scores; by
default it is gptqmodel's choice, or the next that runs where that cannot be fetched or built.

Without `act_order` the solver still takes columns by falling activation, whole groups first and then within
each (gptqmodel's `act_group_aware`, arXiv 2505.14638), and stores them in their own order. That gains most
of what act-order does, so `gptq` here need not be worse than `gptq[act_order=true]`.
`gptq[group_aware=false]` takes columns as they stand, as checkpoints of auto-gptq without act-order were
made. On the demo model, with 16 samples of 256 tokens of C4 and three seeds, the mean perplexity was 49.9
as they stand, 45.2 in act-order and 44.3 by default ([benchmarks/RESULTS.md](../benchmarks/RESULTS.md),
which has the other orders too).

Layers that `skip_modules` names stay in 16 bits. Layers after them are solved on their output, and the
checkpoint names them in the terms of both readers: `modules_in_block_to_quantize` lists the others, each
by its whole name, for transformers, and `dynamic` these for gptqmodel.

A ready checkpoint is read as its files hold it, whatever its label says: layers of several bits (`dynamic`),
layers that are left plain, a packed head, zero points of either format, and auto-gptq's directories with a
quantize_config.json alone. Experts that are packed one by one are refused, since transformers holds them in
stacks.

Ready `gptq` checkpoints store zero points less one, as auto-gptq did, or as they are (`gptq_v2`). Their
numbers prove which, for the mean code of a group lies at its zero point. In the former, with
`symmetric=false`, a zero point of 0 borrows from its neighbour in the same integer. gptqmodel undoes that
exactly, so transformers and qeval read the very weights that were solved; a reader that unpacks first and
adds one afterwards does not.
"""
METHOD = 2
"""Raised when a change of qeval's own code changes the checkpoint it makes."""
USUAL_GROUP = 128  # also the most that layers.divisor gives
STEPS = ("auto", "marlin", "exllama_v2", "triton", "torch")
"""Kernels of a GPU from the library's choice to the one that runs everywhere. For an H100 gptqmodel 7.6
chooses machete for every layer, which takes only outputs that 128 divides, and is built out of a CUTLASS
that it fetches."""
KERNELS = ("auto", "torch", "torch_fused", "triton", "exllama_v2", "marlin", "machete", "bitblas")

CATALOGUE = {
    ("meta-llama/Llama-2-7b-hf", False): Source("TheBloke/Llama-2-7B-GPTQ", "main"),
    ("meta-llama/Llama-2-7b-hf", True): Source("TheBloke/Llama-2-7B-GPTQ", "gptq-4bit-128g-actorder_True"),
    ("meta-llama/Llama-2-13b-hf", False): Source("TheBloke/Llama-2-13B-GPTQ", "main"),
    ("meta-llama/Llama-2-13b-hf", True): Source("TheBloke/Llama-2-13B-GPTQ", "gptq-4bit-128g-actorder_True"),
}
"""Ready checkpoints of 4 bits in groups of 128, by model and act_order."""
CPU_KERNEL_NOTE = (
    "gptqmodel's usual kernel for a CPU rounds activations to bfloat16; its torch kernel, which does not, is"
    " used, so that the numbers are those of other devices."
)


def known(model: str, options: Mapping[str, Option]) -> Source | None:
    """The catalogue's checkpoint of `model`, unless an option asks for something else than it holds."""
    asked = SPEC.shaping(options)
    act_order = bool(asked.pop("act_order", False))
    if any((name, value) not in {("bits", 4), ("group_size", USUAL_GROUP)} for name, value in asked.items()):
        return None
    return CATALOGUE.get((model, act_order))


def recognise(source: Source, config: Mapping[str, Any]) -> bool:
    """Whether it is one of auto-gptq's older checkpoints, whose settings stand in a file of their own."""
    return not config and bool(read_json(source, ready.SETTINGS))


def load(recipe: Recipe) -> Any:
    """The checkpoint, ready or made here: to be scored, by the layer that runs everywhere; `fast`, with the
    kernel asked for."""
    from gptqmodel.nn_modules.qlinear import BaseQuantLinear
    from transformers import GPTQConfig

    with ready.as_stored(recipe) as keywords:
        # bits are read from the checkpoint; transformers takes only the loading attributes from here
        model = open_stepping_down(
            replace(recipe, source=recipe.weights),
            _kernels(recipe),
            lambda name: GPTQConfig(bits=4, backend=name),
            **keywords,
        )
    if recipe.held == "cpu" or not recipe.fast:
        build_nothing(model)
    return compute_in(model, recipe.compute, (BaseQuantLinear,))


def _kernels(recipe: Recipe) -> tuple[str, ...]:
    """To be scored, the portable one. Else the kernel asked for; of itself the library's choice and what to
    take where that does not run, and on a CPU the one whose numbers are those of other devices."""
    asked = str(recipe.options["backend"])
    if recipe.streamed:
        return ("torch",)  # which unpacks on any device
    if not recipe.fast and asked not in {"auto", "torch"}:
        recipe.notes.append(BACKEND_NOTE.format(asked=asked))
    if asked != "auto":
        return (asked,) if recipe.fast else ("torch",)
    if recipe.device == "cpu" and recipe.compute == "float32":
        recipe.notes.append(CPU_KERNEL_NOTE)
        return ("torch",)
    if not recipe.fast:
        return ("torch",)
    return STEPS if recipe.device.startswith("cuda") else ("auto",)


def make(recipe: Recipe) -> Path:
    """The directory of the checkpoint that the recipe describes, quantised at the first call and cached.

    Raises QevalError for a group size that does not divide a layer, for a damping that is no share, and for
    calibration text that cannot be had.
    """
    if not 0 < float(recipe.options["damp"]) < 1:
        raise QevalError(
            f"damp={recipe.options['damp']} is not between 0 and 1, as gptqmodel requires.",
            "Leave it out for 0.05, or write another, such as damp=0.01.",
        )
    return checkpoint.checkpoint(
        recipe, SPEC, METHOD, ("gptqmodel", "optimum"), lambda found, target: _build(recipe, found, target)
    )


def _build(recipe: Recipe, found: checkpoint.Materials, target: Path) -> dict[str, Any]:
    from qeval.load.making import gptq

    options = recipe.options
    plain = checkpoint.left_plain(recipe, found.model)
    plan = gptq.Plan(
        bits=int(options["bits"]),
        group_size=checkpoint.group_size(found.model, int(options["group_size"]), plain),
        act_order=bool(options["act_order"]),
        group_aware=bool(options["group_aware"]),
        damp=float(options["damp"]),
        symmetric=bool(options["symmetric"]),
        plain=plain,
    )
    solved = gptq.quantise(found.model, found.windows, plan, found.work, recipe.progress)
    recipe.progress("gptq: writing")
    stored = compute_in(found.model, recipe.store)
    gptq.save(stored, found.tokenizer, solved, plan, found.work, target)
    return checkpoint.told(plan)


SPEC = SchemeSpec(
    "gptq",
    "GPTQ: a ready checkpoint (those of auto-gptq too), else quantised here with calibration text",
    load,
    (
        OptionSpec("bits", int, 4, "bits of a weight", choices=(2, 3, 4, 8)),
        OptionSpec(
            "group_size",
            int,
            0,
            "inputs that share a scale; -1 a row, 0 the largest power of two up to 128 that divides all",
            low=-1,
        ),
        OptionSpec("act_order", bool, False, "quantise columns by falling activation (desc_act)"),
        OptionSpec(
            "group_aware",
            bool,
            True,
            "without act_order, take groups and the columns within by falling activation all the same",
        ),
        OptionSpec("damp", float, 0.05, "share of the mean diagonal added to the Hessian's", low=0),
        OptionSpec("symmetric", bool, True, "no zero points"),
        *checkpoint.OPTIONS,
        LATE_SKIP,
        OptionSpec(
            "backend",
            str,
            "auto",
            "gptqmodel's kernel",
            choices=KERNELS,
            acts="reading",
            on_gpu=("triton", "exllama_v2", "marlin", "machete", "bitblas"),
        ),
        ATTENTION,
    ),
    (
        GPTQMODEL,
        Package("optimum", "optimum.gptq", "2.0"),
        ACCELERATE,
    ),
    "gptq",
    DOC,
    place=30,
    make=make,
    weight_bits=4.5,
    streams=True,
    kernels=True,
    checkpoint="optional",
    methods=("gptq",),
    recognise=recognise,
    config_keys={"bits": "bits", "group_size": "group_size", "act_order": "desc_act", "symmetric": "sym"},
    known=known,
)
SPECS = (SPEC,)
