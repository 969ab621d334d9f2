"""gptq: ready checkpoints, or made here by gptqmodel's solver; read through transformers and gptqmodel."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from qeval import calibration
from qeval.errors import QevalError
from qeval.schemes.card import write_card
from qeval.schemes.loading import compute_in, open_model
from qeval.schemes.plain import ATTENTION, attention
from qeval.schemes.rtn import divisor
from qeval.schemes.spec import OptionSpec, Order, Package, SchemeSpec
from qeval.schemes.versions import versions
from qeval.sources import Source, model_identity
from qeval.storage import build_directory

METHOD = 1
"""Raised when a change of qeval's own code changes the checkpoint it makes."""
USUAL_GROUP = 128  # also the most that rtn.divisor gives
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
_LOADING = {"act_order", "backend", "attention"}


def known_checkpoint(model: str, options: dict[str, Any]) -> Source | None:
    """The catalogue's checkpoint of `model`, unless an option asks for something else than it holds."""
    asked = {name: value for name, value in options.items() if name not in _LOADING}
    if any((name, value) not in {("bits", 4), ("group_size", USUAL_GROUP)} for name, value in asked.items()):
        return None
    return CATALOGUE.get((model, bool(options.get("act_order", False))))


def calibration_of(model: str, options: dict[str, Any]) -> calibration.Calibration:
    """The calibration that the (complete) options ask for."""
    return calibration.complete(
        str(options["calibration"]),
        int(options["samples"]),
        int(options["length"]),
        int(options["seed"]),
        demo=model == "demo",
    )


def load(order: Order) -> Any:
    """The checkpoint, made first if none is ready, with the kernel asked for."""
    from gptqmodel.nn_modules.qlinear import BaseQuantLinear
    from transformers import GPTQConfig

    place = order.source if order.ready else Source(str(make(order)))
    keywords: dict[str, Any] = {}
    backend = _backend(order)
    if backend != "auto":
        # bits are read from the checkpoint; transformers takes only the loading attributes from here
        keywords["quantization_config"] = GPTQConfig(bits=4, backend=backend)
    model = open_model(_at(order, place), **keywords, **attention(order))
    if order.device == "cpu":
        _unpack_eagerly(model)
    return compute_in(model, order.compute, (BaseQuantLinear,))


def _backend(order: Order) -> str:
    """The kernel asked for; on a CPU, of itself, the one whose numbers are those of other devices."""
    asked = str(order.options["backend"])
    if asked == "auto" and order.device == "cpu" and order.compute == "float32":
        order.notes.append(CPU_KERNEL_NOTE)
        return "torch"
    return asked


def _unpack_eagerly(model: Any) -> None:
    """Undo gptqmodel's torch.compile of unpacking: on a CPU it costs half a minute and a C++ compiler."""
    for module in model.modules():
        vars(module).pop("dequantize_weight", None)


def _at(order: Order, place: Source) -> Order:
    return replace(order, source=place)


def make(order: Order) -> Path:
    """The directory of the checkpoint that the order describes, quantised at the first call and cached.

    A killed call goes on after the last block it finished. Raises QevalError for a group size that does
    not divide a layer, and for calibration text that cannot be had.
    """
    recipe = _recipe(order)
    name = hashlib.sha256(json.dumps(recipe, sort_keys=True, default=str).encode()).hexdigest()[:16]
    slug = "".join(char if char.isalnum() else "-" for char in Path(order.model).name.lower())
    target = order.cache_dir / "checkpoints" / f"{slug}-gptq-{name}"
    if not target.is_dir():
        order.progress("gptq: no checkpoint yet, quantising")
    return build_directory(target, lambda partial: _make(order, recipe, partial))


def _recipe(order: Order) -> dict[str, Any]:
    """Everything that can change the checkpoint."""
    options = {name: value for name, value in order.options.items() if name not in {"backend", "attention"}}
    return {
        "method": METHOD,
        "model": model_identity(order.model, order.base.revision, order.cache_dir),
        "options": options,
        "calibration": calibration.identity(calibration_of(order.model, dict(order.options))),
        "compute": order.compute,
        "versions": versions("gptqmodel", "optimum"),
    }


def _make(order: Order, recipe: dict[str, Any], target: Path) -> None:
    from transformers import AutoTokenizer

    from qeval.schemes import gptq_make

    base = _at(order, order.base)
    model = compute_in(open_model(base, attn_implementation="sdpa"), order.compute)
    tokenizer = AutoTokenizer.from_pretrained(base.source.place, revision=base.source.revision or "main")
    chosen = calibration_of(order.model, dict(order.options))
    windows = calibration.windows(chosen, tokenizer, order.datasets_dir)
    _check_length(model, chosen)
    plan = _plan(model, order.options)
    work = _work_dir(target)
    solved = gptq_make.quantise(model, windows, plan, work, order.progress)
    order.progress("gptq: packing")
    gptq_make.pack_and_save(compute_in(model, order.store), tokenizer, solved, plan, target)
    write_card(target, order.model, "gptq", {**recipe, "plan": asdict(plan), "samples": len(windows)})
    shutil.rmtree(work, ignore_errors=True)


def _work_dir(target: Path) -> Path:
    """Where finished blocks wait: beside the checkpoint, under a name that a later process finds again."""
    name = target.name.split(".partial-")[0].lstrip(".")
    work = target.parent / f".{name}.blocks"
    work.mkdir(exist_ok=True)
    return work


def _check_length(model: Any, chosen: calibration.Calibration) -> None:
    longest = getattr(model.config, "max_position_embeddings", None)
    if longest and chosen.length > longest:
        raise QevalError(
            f"Calibration samples of {chosen.length} tokens are longer than the model takes ({longest}).",
            f"Use gptq[length={longest}].",
        )


def _plan(model: Any, options: Any) -> Any:
    from qeval.schemes import gptq_make

    features = [
        layer.in_features
        for block in gptq_make.find_blocks(model)[1]
        for _, layer in gptq_make.linears(block)
    ]
    asked = int(options["group_size"])
    return gptq_make.Plan(
        bits=int(options["bits"]),
        group_size=asked or min(divisor(number) for number in features),
        act_order=bool(options["act_order"]),
        damp=float(options["damp"]),
        symmetric=bool(options["symmetric"]),
    )


SPECS = (
    SchemeSpec(
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
            OptionSpec("damp", float, 0.05, "share of the mean diagonal added to the Hessian's", low=0),
            OptionSpec("symmetric", bool, True, "no zero points"),
            OptionSpec("calibration", str, "auto", "c4, wikitext2, own (comes with qeval) or a text file"),
            OptionSpec(
                "samples", int, 0, "calibration samples; 0 for 128 of a set, 16 of our own text", low=0
            ),
            OptionSpec(
                "length", int, 0, "tokens of a sample; 0 for 2048 of a set, 256 of our own text", low=0
            ),
            OptionSpec("seed", int, 0, "seed of the draw of samples from a set", low=0),
            OptionSpec("backend", str, "auto", "gptqmodel's kernel", choices=KERNELS),
            ATTENTION,
        ),
        (
            Package("gptqmodel", "gptqmodel", "7.5"),
            Package("optimum", "optimum", "2.0"),
            Package("accelerate", "accelerate", "1.2"),
        ),
        "gptq",
        checkpoint="optional",
        methods=("gptq",),
        verified="CPU",
        calibrated=True,
        make=make,
        config_keys={"bits": "bits", "group_size": "group_size", "act_order": "desc_act", "symmetric": "sym"},
        weight_bits=4.5,
    ),
)
