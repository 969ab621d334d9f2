"""quip: a checkpoint of QuIP# as its authors publish them, unpacked into plain weights.

The layout is that of Cornell-RelaxML/quip-sharp (model/llama.py, lib/linear/quantized_linear.py): safetensors
files, the settings under `quip_params` of config.json, queries, keys and values fused into one layer, up and
gate projection into another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

from qeval.base.errors import QevalError
from qeval.load.reading.failures import explain
from qeval.load.reading.headers import Tensors
from qeval.load.reading.opening import ATTENTION, attention, compute_in
from qeval.load.reading.ready import tell_share
from qeval.load.source import Source, read_config
from qeval.load.spec import Recipe, SchemeSpec

DOC = """\
`quip@relaxml/Llama-2-7b-E8P-2Bit` reads a checkpoint of QuIP# (arXiv 2402.04396) as its authors publish
them, for Llama and Mistral, of the codebooks `E8P12`, `E8P12RVQ3B` and `E8P12RVQ4B` (2, 3 and 4 bits). No
package is needed: qeval unpacks the lattice codes, undoes the Hadamard transforms, splits the fused layers,
and puts plain weights into the plain model. So it measures the quality of QuIP#, not its speed or memory:
the unpacked model takes 16 bits a weight, or 32 on a CPU. The bits that the checkpoint stores, sign vectors
and scales included, are in the provenance. The authors' kernels calculate part of a layer in float16 where
the unpacked weights are rounded to the scheme's type, so the last digits differ.

No published checkpoint was at hand, so none has been loaded. The table's CPU stands for matrices that the
tests make, on which `quip` was tested:

- The order of the codes, their bits and their packing are those of the authors' repository,
  Cornell-RelaxML/quip-sharp. The bits per weight that follow from its layout for Llama-2-7B, 2.0052, are
  those that others measured on the published file.
- The Hadamard matrices of the orders 12, 20, 28, 36, 52, 60, 108, 140, 156 and 172 are built from their
  definitions and equal those that torchao carries, which were taken from the authors' repository. A model
  with another width is refused.
- Codebooks `D4` and `HI4B1C`, older versions of the codebooks, layers that are not fused, and checkpoints
  in the layout of QuIP-for-all are refused.
"""
EXAMPLE = "relaxml/Llama-2-7b-E8P-2Bit"
ARCHITECTURES = ("llama", "mistral")
PARTS = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "o_proj": ("o_proj",),
    "upgate_proj": ("up_proj", "gate_proj"),
    "down_proj": ("down_proj",),
}
"""The quantised layers of a block, and the plain ones whose rows each of them holds, in this order."""
UNTESTED = "quip was tested on matrices made in the tests, not on a checkpoint that QuIP#'s authors publish."


def load(recipe: Recipe) -> Any:
    """The plain model of the checkpoint's architecture with the unpacked weights.

    Raises QevalError for a checkpoint that is not in the authors' layout or of a codebook, version or width
    that is not known here, and where tensors are missing, unknown or of other shapes than the model's.
    """
    from qeval.load.reading.lattice import CODEBOOKS

    settings = check(recipe.source)
    name = str(settings["codebook"])
    with ExitStack() as stack:
        try:
            weights = Weights(recipe.source, stack)
            model = _build(recipe, weights, settings)
        except QevalError:
            raise
        except Exception as error:
            raise explain(error, recipe.source, recipe.device) from error
        layers = [weights.sizes(layer) for layer in weights.layers]
    recipe.evidence.update(evidence(name, layers, settings))
    tell_share(recipe, model, sum(layer["SU"][0][0] * layer["SV"][0][0] for layer in layers))
    what = f"{recipe.source.path} is QuIP# of {CODEBOOKS[name].bits} bits ({name})"
    recipe.notes.append(f"{what}, unpacked into plain weights: its quality, not its speed or memory.")
    recipe.notes.append(UNTESTED)
    return compute_in(model.to(recipe.device).eval(), recipe.compute)


def check(source: Source) -> dict[str, Any]:
    """The checkpoint's `quip_params`. Raises QevalError unless they are of a kind that can be unpacked."""
    from qeval.load.reading.lattice import CODEBOOKS

    config = read_config(source)
    settings = config.get("quip_params")
    if not isinstance(settings, dict):
        raise QevalError(
            f"{source.path} is not in the layout of QuIP#'s authors: its config.json has no quip_params.",
            f"Name a checkpoint of theirs, such as {EXAMPLE}.",
        )
    name = settings.get("codebook")
    known = CODEBOOKS.get(str(name))
    if known is None:
        raise QevalError(
            f"{source.path} is of the codebook {name}, which is not known here.",
            f"Name a checkpoint of one of these: {', '.join(CODEBOOKS)}.",
        )
    if settings.get("codebook_version", 0) != known.version:
        raise QevalError(
            f"{source.path} holds version {settings.get('codebook_version', 0)} of {name}, and version"
            f" {known.version} is known here.",
            "Download the checkpoint again; its authors replaced those of older versions.",
        )
    model = config.get("model_type")
    if model not in ARCHITECTURES:
        raise QevalError(
            f"{source.path} is of the architecture {model}, whose layout in QuIP# is not known here.",
            f"Name a checkpoint of one of these: {', '.join(ARCHITECTURES)}.",
        )
    _check_form(source, settings)
    return settings


def _check_form(source: Source, settings: Mapping[str, Any]) -> None:
    """Refuse variants of the layout that its authors' published checkpoints do not use."""
    from qeval.load.reading.lattice import WIDTH

    odd = {
        "fused": True,
        "outlier_channel_split": False,
        "pack_out": False,
        "codesz": WIDTH,
        "incoh_mode": "had",
    }
    for key, value in odd.items():
        if settings.get(key, value) != value:
            raise QevalError(
                f"{source.path} has {key}={settings[key]} in its quip_params; only {value} is known here.",
                f"Name a checkpoint that is published by QuIP#'s authors, such as {EXAMPLE}.",
            )


class Weights(Tensors):
    """The tensors of a checkpoint. `layers` are the names of the quantised layers with the suffixes of their
    tensors, `plain` the names of the other tensors. Raises QevalError where there are none."""

    def __init__(self, source: Source, stack: ExitStack) -> None:
        super().__init__(source, stack)
        ends = {name.removesuffix(".Qidxs") for name in self.files if name.endswith(".Qidxs")}
        if not ends:
            raise QevalError(
                f"{source.path} holds no layer that QuIP# quantised: no tensor is called Qidxs.",
                "Download the checkpoint again.",
            )
        self.layers: dict[str, set[str]] = {layer: set() for layer in ends}
        self.plain = set()
        for name in self.files:
            layer, _, suffix = name.rpartition(".")
            if layer in self.layers:
                self.layers[layer].add(suffix)
            else:
                self.plain.add(name)

    def layer(self, layer: str) -> dict[str, Any]:
        """The tensors of a quantised layer by suffix."""
        return {suffix: self.read(f"{layer}.{suffix}") for suffix in self.layers[layer]}

    def sizes(self, layer: str) -> dict[str, tuple[tuple[int, ...], int]]:
        """Shape and bits of an element of each tensor of a layer, read without the numbers themselves."""
        found = {suffix: self.stored(f"{layer}.{suffix}") for suffix in self.layers[layer]}
        return {suffix: (stored.shape, stored.width) for suffix, stored in found.items()}


def evidence(
    codebook: str, layers: list[dict[str, tuple[tuple[int, ...], int]]], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """What the checkpoint held, for the provenance; `layers` are the sizes of each layer's tensors.

    `modules` counts plain layers, `bits_per_weight` is all that the quantised layers store by their weights.
    """
    from math import prod

    bits = sum(prod(shape) * each for layer in layers for shape, each in layer.values())
    weights = sum(layer["SU"][0][0] * layer["SV"][0][0] for layer in layers)
    count = sum(layer["fuse_scales"][0][0] if "fuse_scales" in layer else 1 for layer in layers)
    return {
        "modules": {codebook: count},
        "bits_per_weight": bits / weights,
        "quantization": {"quant_method": "quip", **settings, "dequantized": True},
    }


def _build(recipe: Recipe, weights: Weights, settings: Mapping[str, Any]) -> Any:
    """The model, its weights rounded to `recipe.store`, on the CPU."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    dtype = getattr(torch, recipe.store)
    config = AutoConfig.from_pretrained(recipe.source.place, revision=recipe.source.revision or "main")
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config)
    shapes = {name: tuple(parameter.shape) for name, parameter in empty.named_parameters()}
    state = {}
    for name, tensor in _all_weights(recipe, weights, shapes, settings):
        state[name] = tensor.to("cpu", dtype)
    _check_names(recipe.source, set(state), set(shapes))
    return type(empty).from_pretrained(
        None, config=config, state_dict=state, dtype=dtype, **attention(recipe)
    )


def _all_weights(
    recipe: Recipe, weights: Weights, shapes: Mapping[str, tuple[int, ...]], settings: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    for name in sorted(weights.plain):
        if not name.endswith("rotary_emb.inv_freq"):  # older models stored it; it follows from the config
            yield name, weights.read(name)
    for layer in sorted(weights.layers):
        yield from _unpack(recipe, weights, layer, shapes, settings)


def _unpack(
    recipe: Recipe,
    weights: Weights,
    layer: str,
    shapes: Mapping[str, tuple[int, ...]],
    settings: Mapping[str, Any],
) -> Iterator[tuple[str, Any]]:
    """The plain weights of one quantised layer, with their names."""
    import torch

    from qeval.load.reading.lattice import CODEBOOKS, dequantise

    block, _, kind = layer.rpartition(".")
    targets = [f"{block}.{part}.weight" for part in PARTS.get(kind, ())]
    if not targets or any(name not in shapes for name in targets):
        raise QevalError(
            f"{recipe.source.path} has a quantised layer {layer}, which its model has no place for.",
            f"Only the fused layers of QuIP#'s authors are read: {', '.join(PARTS)}.",
        )
    codebook = CODEBOOKS[str(settings["codebook"])]
    _check_layer(recipe.source, layer, weights, [shapes[name] for name in targets], settings)
    tensors = {suffix: tensor.to(recipe.device) for suffix, tensor in weights.layer(layer).items()}
    number = int(tensors["codebook_id"])
    if number != codebook.number:
        raise QevalError(
            f"{layer} of {recipe.source.path} is of codebook {number}, and the config.json beside it names"
            f" {settings['codebook']}, which is {codebook.number}.",
            "Download the checkpoint again.",
        )
    weight = dequantise(tensors, codebook, float(settings.get("resid_scale_override", -1)))
    scales = tensors.get("fuse_scales", torch.ones(1, device=weight.device)).float()
    parts = weight.split([shapes[name][0] for name in targets])
    yield from ((name, part * scale) for name, part, scale in zip(targets, parts, scales, strict=True))


def _check_layer(
    source: Source,
    layer: str,
    weights: Weights,
    targets: list[tuple[int, ...]],
    settings: Mapping[str, Any],
) -> None:
    """Refuse a layer that lacks a tensor, has one more, or one of another shape than its plain layers ask."""
    from qeval.load.reading.lattice import CODEBOOKS, COLUMNS

    rows, columns = sum(shape[0] for shape in targets), targets[0][1]
    rank = int(settings.get("lora_rank", 0))
    words = CODEBOOKS[str(settings["codebook"])].bits * columns // COLUMNS
    wanted: dict[str, tuple[int, ...]] = {"Qidxs": (rows, words), "SU": (columns,), "SV": (rows,)}
    wanted |= {"Wscale": (), "codebook_id": ()}
    wanted |= {"fuse_scales": (len(targets),)} if len(targets) > 1 else {}
    wanted |= {"A": (rows, rank), "B": (rank, columns)} if rank > 0 else {}
    wanted |= {"scaleWH": (columns,)} if settings.get("rescale_WH") else {}
    found = {suffix: shape for suffix, (shape, _) in weights.sizes(layer).items()}
    for suffix in sorted(wanted.keys() | found.keys()):
        if found.get(suffix) != wanted.get(suffix):
            raise QevalError(
                f"{layer}.{suffix} of {source.path} {_differs(found.get(suffix), wanted.get(suffix))}.",
                "Download the checkpoint again; one that was made elsewhere must keep the authors' layout.",
            )


def _differs(found: tuple[int, ...] | None, wanted: tuple[int, ...] | None) -> str:
    if found is None:
        return "is missing"
    if wanted is None:
        return "is not known here"
    return f"has the shape {list(found)} instead of {list(wanted)}"


def _check_names(source: Source, found: set[str], wanted: set[str]) -> None:
    """Refuse a checkpoint whose unpacked tensors are not exactly the model's."""
    for names, what in ((wanted - found, "lacks"), (found - wanted, "has, where its model does not,")):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise QevalError(
                f"{source.path} {what} the tensor {min(names)}{more}.",
                "Download the checkpoint again; one that was made elsewhere must keep the authors' layout.",
            )


def recognise(source: Source, config: Mapping[str, Any]) -> bool:
    """Whether it is a checkpoint of QuIP#'s authors, who write no quantization_config."""
    return not config and bool(read_config(source).get("quip_params"))


SPECS = (
    SchemeSpec(
        "quip",
        "QuIP#, Hadamard rotation and the E8P lattice, unpacked; ready checkpoints",
        load,
        (ATTENTION,),
        doc=DOC,
        place=180,
        unpacked=True,
        checkpoint="required",
        methods=("quip",),
        recognise=recognise,
    ),
)
