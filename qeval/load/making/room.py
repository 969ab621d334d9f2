"""Where a model lies while it is quantised: on the device, or in host memory, from where its blocks come to
the device one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import nn

from qeval.base.errors import QevalError
from qeval.base.numbers import size
from qeval.load.making import walk
from qeval.load.making.calibration import Calibration
from qeval.load.memory import GIB, SPARE, check_fits, estimate, free_bytes
from qeval.load.source import read_config
from qeval.load.spec import Recipe, SchemeSpec

BESIDE = "The model does not fit on {device} with what quantising takes: its blocks come there one by one."
_WIDTH = ("hidden_size", "n_embd", "d_model", "dim")
_INNER = ("intermediate_size", "ffn_dim", "n_inner")
_BLOCKS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_STATES = 2
"""Copies of all samples' hidden states, in 16 bits: those that enter a block, and what is made of them."""
_SQUARES = 5
"""Float32 matrices of the widest layer's inputs at once: sums, their inverse, factors."""


def placed(recipe: Recipe, spec: SchemeSpec, told: Calibration) -> Recipe:
    """The recipe for a checkpoint that is made of a model on its device, or, where that has no room for it,
    of one in host memory. Raises QevalError where neither has."""
    recipe = replace(recipe, streamed=False)
    plain, free = estimate(recipe, spec), free_bytes(recipe.device)
    if plain is None or free is None or not recipe.device.startswith("cuda"):
        check_fits(recipe, spec)
        return recipe
    work, blocks = _work(read_config(recipe.base), told)
    if plain / SPARE + work <= free:
        return recipe
    host = free_bytes("cpu")
    least = 2 * plain // blocks + work
    if least <= free and (host is None or plain <= host):
        return replace(recipe, streamed=True)
    raise QevalError(
        f"Quantising {recipe.model} by {spec.name} takes {size(least)} of {recipe.device} and {size(plain)}"
        f" of host memory; there are {size(free)} and {size(host or 0)} free.",
        f"Make it on a machine with more, with qeval quantize, or with fewer samples={told.samples} of"
        f" length={told.length}; or name a ready checkpoint: {spec.name}@DIRECTORY.",
    )


def _work(config: Mapping[str, Any], told: Calibration) -> tuple[int, int]:
    """Bytes that quantising takes beside the weights, from above, and how many blocks the model has."""
    text = config.get("text_config") or config
    width = next((int(text[name]) for name in _WIDTH if text.get(name)), 4096)
    inner = next((int(text[name]) for name in _INNER if text.get(name)), 4 * width)
    blocks = next((int(text[name]) for name in _BLOCKS if text.get(name)), 1)
    states = _STATES * 2 * told.samples * told.length * width
    return states + _SQUARES * 4 * max(width, inner) ** 2 + GIB // 2, max(1, blocks)


def beside(model: Any, device: str) -> None:
    """Move all of a model but its blocks to a device: embeddings, final norm and head."""
    inside = {part for block in walk.find_blocks(model)[1] for part in block.modules()}
    for module in model.modules():
        if module not in inside:
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(device)
            for name, buffer in list(module.named_buffers(recurse=False)):
                setattr(module, name, buffer.to(device))


@contextmanager
def on(device: Any, block: nn.Module) -> Iterator[None]:
    """Within it a block lies on this device, and afterwards where it lay before."""
    before = next(block.parameters()).device
    block.to(device)
    try:
        yield
    finally:
        block.to(before)
