"""Where a variant's weights will lie while it is scored, and whether there is room: decided before loading.

Nothing of what is free at the moment decides, for a run and its continuation are fed alike; only memory that
a machine has, or that a person allows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qeval.base.errors import QevalError
from qeval.base.numbers import size
from qeval.base.records import Variant
from qeval.load.device import resolve_dtypes
from qeval.load.memory import GIB, SPARE, estimate, weights
from qeval.load.model import base_of
from qeval.load.resolve import resolve
from qeval.load.schemes import SCHEMES
from qeval.load.source import read_config
from qeval.load.spec import Recipe, SchemeSpec

ROOM = 1.05
"""Room for what a device keeps beside the weights, in parts of them."""
WORK = int(1.5 * GIB)
"""Room for the activations of a chunk, and for a slice of logits."""
LEAST_WORK = GIB // 4
"""Room for the same of the smallest chunk."""
BLOCKS = 3
"""How many blocks a device holds of a streamed model: two as they are stored, and one unpacked."""
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_WIDTH = ("hidden_size", "n_embd", "d_model", "dim")
_FEW_LAYERS = 12
_AS_ASKED = "The weights are streamed from host memory layer by layer, as asked."


@dataclass(frozen=True)
class Sizes:
    """Bytes of a variant of `count` weights: `plain` is all of them in the compute type, `packed` what
    loading takes, `ends` the embeddings and the head, `block` one of the blocks unpacked."""

    count: int
    plain: int
    packed: int
    ends: int
    block: int

    @property
    def streamed(self) -> int:
        """What a device holds of a model whose blocks reach it one by one."""
        return self.ends + BLOCKS * self.block


@dataclass(frozen=True)
class Room:
    """Bytes that weights may take: `gpu` is None where there is no GPU, `host` where it cannot be told."""

    gpu: int | None
    host: int | None


@dataclass(frozen=True)
class Placement:
    """Where weights lie. `on_device` is what of them lies on the device while they are scored, in bytes, and
    on each of `gpus`, at most; `sentence` tells a person of what is not usual, and `refused` why there is no
    way."""

    streamed: bool
    on_device: int
    sentence: str = ""
    refused: QevalError | None = None
    gpus: int = 1

    @property
    def name(self) -> str:
        """What provenance says of a placement that is not usual."""
        if self.streamed:
            return "streamed"
        return f"{self.gpus} GPUs" if self.gpus > 1 else ""


def sizes_of(variant: Variant, dtype: str, device: str, cache_dir: Path) -> Sizes | None:
    """The sizes of a variant by its files, without torch; None where they do not tell."""
    spec = SCHEMES[variant.scheme.kind]
    meant, base = resolve(variant), base_of(variant, cache_dir)
    store, compute = resolve_dtypes(spec, dtype, device)
    options = spec.complete(variant.scheme.options)
    source, ready = meant.ready or base, meant.ready is not None
    recipe = Recipe(variant.model, source, base, ready, options, store, compute, device, cache_dir)
    count = int(weights(base))
    loaded = estimate(recipe, spec)
    if not count or loaded is None:
        return None
    if spec.make is not None and not ready:  # it is read back packed, once it is made
        loaded = int(count * (spec.weight_bits or 16) / 8 * SPARE)
    return _sizes(read_config(base), count, BYTES[compute], loaded)


def _sizes(config: Mapping[str, Any], count: int, each: int, packed: int) -> Sizes:
    text, plain = config.get("text_config") or config, count * each
    width = next((int(text[name]) for name in _WIDTH if text.get(name)), 0)
    tables = 1 if text.get("tie_word_embeddings", config.get("tie_word_embeddings")) else 2
    ends = min(tables * each * width * int(text.get("vocab_size") or 0), plain // 2)
    layers = next((int(text[name]) for name in _LAYERS if text.get(name)), _FEW_LAYERS)
    return Sizes(count, plain, packed, ends, (plain - ends) // max(layers, 1))


def place(
    variant: Variant,
    sizes: Sizes | None,
    room: Room,
    asked: str = "auto",
    *,
    materialize: bool = True,
    gpus: int = 1,
) -> Placement:
    """Where the weights of a variant will lie.

    They lie on the device where they fit there as they are scored, unpacked. Otherwise they are streamed from
    host memory, or where that cannot be, lie on the device as their scheme packs them. `asked` is "resident",
    "streamed" or "auto"; `materialize` tells whether packed layers may be unpacked. Where a variant has
    several `gpus` it is spread over them; `room` is that of each.
    """
    spec = SCHEMES[variant.scheme.kind]
    plain = not spec.quantised or spec.unpacks(spec.complete(variant.scheme.options))
    reason = _not_streamed(variant, spec, unpacked=plain or materialize)
    if gpus > 1:
        return _spread(variant, sizes, room, gpus, reason)
    wished = asked == "streamed"
    if wished and reason is not None:
        return Placement(True, 0, refused=reason)
    if sizes is None:
        return Placement(wished, 0, _AS_ASKED if wished else "")
    if room.gpu is None and not wished:
        refused = None if _holds(sizes, room) else _too_little(variant, sizes, room)
        return Placement(False, sizes.plain, refused=refused)
    ways = {(False, sizes.plain): not wished, (True, sizes.streamed): reason is None and asked != "resident"}
    ways[False, sizes.packed] = not (wished or plain)
    found = _first(sizes, room, [way for way, open_ in ways.items() if open_])
    if found is not None:
        said = (_AS_ASKED if wished else _said(sizes, room)) if found.streamed else ""
        return replace(found, sentence=said)
    refused = None if asked == "resident" else _nowhere(variant, sizes, room, reason)  # loading will say so
    return Placement(wished, sizes.plain if plain else sizes.packed, refused=refused)


def _spread(
    variant: Variant, sizes: Sizes | None, room: Room, gpus: int, reason: QevalError | None
) -> Placement:
    """A variant on several GPUs, through host memory, where its packed layers are left as it is loaded."""
    said = f"The weights lie on {gpus} GPUs, a run of layers on each, as asked."
    if reason is not None:
        hint = "Leave out --gpus-per-variant for it."
        message = reason.message.replace("streamed from host memory", "spread over several GPUs")
        return Placement(False, 0, refused=QevalError(message, hint), gpus=gpus)
    if sizes is None:
        return Placement(False, 0, said, gpus=gpus)
    each = sizes.plain // gpus + sizes.block
    refused = None
    if not _holds(sizes, room):
        refused = _too_little(variant, sizes, room)
    elif not _fits(each, room.gpu, LEAST_WORK):
        refused = QevalError(
            f"{variant.model} as {variant.name} takes {size(each * ROOM + LEAST_WORK)} of each of {gpus}"
            f" GPUs, and they have {size(room.gpu)}.",
            "Ask for more with --gpus-per-variant, or leave it out: what does not fit is streamed.",
        )
    return Placement(False, each, said, refused, gpus)


def _first(sizes: Sizes, room: Room, ways: Sequence[tuple[bool, int]]) -> Placement | None:
    """The first of the ways, (streamed, bytes on the device), that leaves room to work, or to work slowly."""
    for work in (WORK, LEAST_WORK):
        for streamed, held in ways:
            if _fits(held, room.gpu, work) and (not streamed or _holds(sizes, room)):
                return Placement(streamed, held)
    return None


def _fits(held: int, gpu: int | None, work: int = WORK) -> bool:
    return gpu is None or held * ROOM + work <= gpu


def _holds(sizes: Sizes, room: Room) -> bool:
    return room.host is None or sizes.packed <= room.host


def _said(sizes: Sizes, room: Room) -> str:
    return (
        f"The weights, {size(sizes.plain)} unpacked, do not fit into {size(room.gpu)} of GPU memory with"
        " what scoring takes: they are streamed from host memory layer by layer."
    )


def _not_streamed(variant: Variant, spec: SchemeSpec, *, unpacked: bool) -> QevalError | None:
    """Why a variant cannot be streamed."""
    if not spec.streams:
        able = ", ".join(name for name, other in SCHEMES.items() if other.streams)
        return QevalError(
            f"{variant.name} cannot be streamed from host memory: its layers run only where they are loaded.",
            f"These can: {able}. Or use --placement resident.",
        )
    if variant.adapter is not None:
        return QevalError(
            "A model with an adapter is not streamed from host memory.",
            "Merge the adapter into the model's files first, or use --placement resident.",
        )
    if not unpacked:
        return QevalError(
            f"{variant.name} is streamed only with its layers unpacked, which --no-materialize forbids.",
            "Leave out --no-materialize, or use --placement resident.",
        )
    return None


def _nowhere(variant: Variant, sizes: Sizes, room: Room, reason: QevalError | None) -> QevalError:
    """The error for a variant that neither GPU nor host memory holds, with what would."""
    resident, beside = (size(held * ROOM + LEAST_WORK) for held in (sizes.plain, sizes.streamed))
    needs = (
        f"{variant.model} as {variant.name} takes {resident} of GPU memory, and there are {size(room.gpu)}"
    )
    if reason is not None:
        return QevalError(f"{needs}. {reason.message}", reason.hint)
    streamed = f"{beside} there and {size(sizes.packed)} of host memory"
    return QevalError(
        f"{needs}; streamed, it takes {streamed}, and there are {size(room.host)}.",
        _would_fit(sizes, room),
    )


def _too_little(variant: Variant, sizes: Sizes, room: Room) -> QevalError:
    """The error for a variant that is scored on a CPU, and that its memory does not hold."""
    needs = f"{variant.model} as {variant.name} takes {size(sizes.packed)} of memory"
    return QevalError(f"{needs}, and there are {size(room.host)}.", _would_fit(sizes, room))


def _would_fit(sizes: Sizes, room: Room) -> str:
    """What fits into the memory there is."""
    if room.gpu is not None and not _fits(sizes.streamed, room.gpu, LEAST_WORK):
        least = size(sizes.streamed * ROOM + LEAST_WORK)
        return f"Use a GPU, or a --gpu-memory, of at least {least}, or a model of smaller layers."
    fitting = [
        name
        for name, spec in SCHEMES.items()
        if spec.streams
        and spec.weight_bits
        and sizes.count * spec.weight_bits / 8 * SPARE <= (room.host or 0)
    ]
    schemes = f" Of it these would fit: {', '.join(fitting)}." if fitting else ""
    return f"Use a machine with {size(sizes.packed)} of memory, or a smaller model.{schemes}"
