"""Ready GPTQ checkpoints as their files hold them, where the label is old, incomplete or wrong."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from qeval.base.errors import QevalError
from qeval.load.reading.headers import SINGLE, single_file
from qeval.load.reading.packed_layers import Layer, forms, packed_layers, zero_points
from qeval.load.source import Source, read_config, read_json
from qeval.load.spec import Recipe

SETTINGS = "quantize_config.json"
"""Where auto-gptq wrote what others write into config.json."""
OLD_NOTE = "{name} tells how it was quantised in {file} alone, as {library} wrote it."
FORMAT_NOTE = "{name} stores its zero points {how}, as its numbers prove, though its label says otherwise."
MIXED_NOTE = "{name} is mixed: {forms}, and the others plain."
_BLOCK = re.compile(r"(\.\d+)\.")
_FEW_BITS = 4


@contextmanager
def as_stored(recipe: Recipe) -> Iterator[dict[str, Any]]:
    """Keywords of from_pretrained that open a ready checkpoint as its files hold it; what was found is noted.

    Within it transformers makes the very layers that the files pack, each in its own form. Raises QevalError
    where nothing proves how zero points are stored. A checkpoint that was made here needs none of this.
    """
    if not recipe.ready:
        yield {}
        return
    source = recipe.source
    own = read_config(source).get("quantization_config")
    layers = packed_layers(source)
    settings = dict(own or _old_settings(source))
    settings |= _format(recipe, settings, layers)
    if not own:
        recipe.notes.append(OLD_NOTE.format(name=source.path, file=SETTINGS, library="auto-gptq"))
    mixed = _is_mixed(settings, layers)
    if mixed:
        recipe.notes.append(MIXED_NOTE.format(name=source.path, forms=_in_words(layers)))
    changed = settings != own or single_file(source) not in {"", SINGLE}
    keywords = {"config": with_settings(recipe, settings)} if changed else {}
    with _each_as_stored(recipe, layers, mixed) if layers else nullcontext():
        yield keywords


def _old_settings(source: Source) -> dict[str, Any]:
    found = read_json(source, SETTINGS) or {}
    if "bits" not in found:
        raise QevalError(
            f"{SETTINGS} of {source.path} does not state the bits of its weights.",
            "Download the checkpoint again, or name another.",
        )
    return {"quant_method": "gptq", **found}


def with_settings(recipe: Recipe, settings: Mapping[str, Any]) -> Any:
    """The model's configuration with these settings, and the name of its weight file where that is another
    than transformers looks for."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(
        recipe.source.place,
        revision=recipe.source.revision or "main",
        trust_remote_code=recipe.trust_remote_code,
    )
    config.quantization_config = dict(settings)
    file = single_file(recipe.source)
    if file not in {"", SINGLE}:
        config.transformers_weights = file
    return config


def _format(recipe: Recipe, settings: Mapping[str, Any], layers: Mapping[str, Layer]) -> dict[str, str]:
    """The format of zero points that the files prove, as settings, where it is another than their label."""
    label = str(settings.get("checkpoint_format") or settings.get("format") or "gptq").lower()
    if not layers or label not in {"gptq", "gptq_v2"}:
        return {}
    name = recipe.source.path
    proved = zero_points(recipe.source, layers)
    if proved is None:
        unproved = f"Nothing in the files of {name} proves that its zero points are stored as {label}"
        if max(layer.bits for layer in layers.values()) > _FEW_BITS:
            recipe.warnings.append(f"{unproved}; they are read so, as its label says.")
            return {}
        raise QevalError(
            f"{unproved}, as its label says.", "Name another checkpoint, or quantise the model again: gptq."
        )
    if proved == label:
        return {}
    how = {"gptq": "less one (gptq)", "gptq_v2": "as they are (gptq_v2)"}[proved]
    recipe.notes.append(FORMAT_NOTE.format(name=name, how=how))
    return {"checkpoint_format": proved, "format": proved}


def _is_mixed(settings: Mapping[str, Any], layers: Mapping[str, Layer]) -> bool:
    """Whether layers are not all in one form, or not the same ones in every block."""
    blocks = defaultdict(set)
    for name in layers:
        block, _, layer = _BLOCK.sub(r"\1 ", name, count=1).partition(" ")
        blocks[block].add(layer)
    alike = all(found == next(iter(blocks.values())) for found in blocks.values())
    return bool(layers) and (bool(settings.get("dynamic")) or len(forms(layers)) > 1 or not alike)


def _in_words(layers: Mapping[str, Layer]) -> str:
    return ", ".join(
        f"{count} layers of {bits} bits" + ("" if group == -1 else f" in groups of {group}")
        for (bits, group), count in sorted(forms(layers).items())
    )


@contextmanager
def _each_as_stored(recipe: Recipe, layers: Mapping[str, Layer], mixed: bool) -> Iterator[None]:
    """Within it optimum, which knows one form for all layers of the blocks, makes those that `layers` names.

    gptqmodel's own loader reads such checkpoints too, but takes its own way to devices and types, and tells
    no missing tensors.
    """
    from optimum.gptq import GPTQQuantizer

    replace, finish = GPTQQuantizer._replace_by_quant_layers, GPTQQuantizer.post_init_model  # noqa: SLF001

    def make(self: Any, model: Any, *given: Any) -> None:
        plain = {name: _plain(model, name) for name in layers}
        lacking = [name for name, layer in plain.items() if layer is None]
        if lacking and (mixed or "expert" in lacking[0]):
            raise _without_place(recipe, lacking[0])
        if lacking:  # transformers gives the tensors of such files other names
            replace(self, model, *given)
            return
        for name, form in layers.items():
            model.set_submodule(name, _empty(self, plain[name], form))

    def convert(self: Any, model: Any) -> Any:
        label = self.format
        if label == "gptq":
            _less_one_no_more(model)
        self.format = "gptq_v2"  # for nothing is left to be converted
        try:
            return finish(self, model)
        finally:
            self.format = label

    GPTQQuantizer._replace_by_quant_layers, GPTQQuantizer.post_init_model = make, convert  # noqa: SLF001
    try:
        yield
    finally:
        GPTQQuantizer._replace_by_quant_layers, GPTQQuantizer.post_init_model = replace, finish  # noqa: SLF001


def _plain(model: Any, name: str) -> Any:
    """The plain layer in whose place a packed one belongs; None where the model has none of that name."""
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


def _without_place(recipe: Recipe, name: str) -> QevalError:
    stacks = "expert" in name
    why = "which transformers holds in stacks" if stacks else "which the model has not"
    return QevalError(
        f"{recipe.source.path} packs {name}, {why}, so transformers cannot read it.",
        "Score another form of it, such as a GGUF file, or quantise the model here: bnb4, hqq or rtn."
        if stacks
        else "Check that the checkpoint and its config.json belong together.",
    )


def _empty(quantizer: Any, layer: Any, form: Layer) -> Any:
    """A layer of gptqmodel's that takes in what the files hold of a plain one."""
    rows, columns = layer.weight.shape
    inputs, outputs = (columns, rows) if hasattr(layer, "in_features") else (rows, columns)
    made = quantizer.quant_linear(
        form.bits,
        -1 if form.group == form.inputs else form.group,
        quantizer.desc_act,
        quantizer.sym,
        inputs,
        outputs,
        layer.bias is not None,
        weight_dtype=layer.weight.dtype,
    )
    return made.to(layer.weight.device)


def _less_one_no_more(model: Any) -> None:
    """Add to the zero points what auto-gptq took from them, in every layer whose kernel wants that."""
    from gptqmodel.nn_modules.qlinear import BaseQuantLinear
    from gptqmodel.utils.model import convert_gptq_v1_to_v2_format_module

    for module in model.modules():
        if isinstance(module, BaseQuantLinear) and getattr(module, "REQUIRES_FORMAT_V2", False):
            convert_gptq_v1_to_v2_format_module(module, module.bits, module.pack_dtype)
