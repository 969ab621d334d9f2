"""What a checkpoint's safetensors files hold, read from their headers: types, shapes, bits per weight."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from qeval.load.source import Source, locate, read_json

_BITS = {"F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16}
"""Bits of a number by its type's name in a header; the types not listed take 8."""
_NOT_WEIGHTS = {"bias", "weight_shape", "input_scale", "activation_scale"}
"""Tensors of a layer that do not serve to unpack its weight, or that the configuration tells as well."""
_PACKED = ("_blocks", "_scales")
"""The ends of names in checkpoints that pack a parameter, not a module's weight (gpt-oss)."""


class Stored(NamedTuple):
    """A tensor in a file: its type's name there (F16, I32, F8_E4M3 ...) and its shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def bits(self) -> int:
        """Bits that the tensor takes."""
        return _BITS.get(self.dtype, 8) * math.prod(self.shape)


def stored_tensors(source: Source) -> dict[str, Stored]:
    """Every tensor of a checkpoint by name; empty where it has no safetensors files."""
    return {name: stored for file in _weight_files(source) for name, stored in _header(file).items()}


def bits_per_weight(tensors: Mapping[str, Stored], weights: Mapping[str, int]) -> float | None:
    """Bits of a weight in the files, with scales, zeros and codebooks, those in modules within a layer too.

    `weights` maps the name of a layer (of a parameter, where names end in _blocks and _scales) to its number
    of weights. None where there are none or a layer has no tensors of its name.
    """
    bits = dict.fromkeys(weights, 0)
    for name, stored in tensors.items():
        owner = next((owner for owner in _owners(name) if owner in bits), None)
        if owner is not None and name.rpartition(".")[2] not in _NOT_WEIGHTS:
            bits[owner] += stored.bits
    count = sum(weights.values())
    return sum(bits.values()) / count if count and all(bits.values()) else None


def owner_of(name: str) -> str:
    """The layer that a tensor belongs to, or the parameter that it packs."""
    for end in _PACKED:
        if name.endswith(end):
            return name.removesuffix(end)
    return name.rpartition(".")[0]


def _owners(name: str) -> Iterator[str]:
    """The layer that a tensor belongs to, and the modules around it, from the inmost."""
    owner = owner_of(name)
    while owner:
        yield owner
        owner = owner.rpartition(".")[0]


def _weight_files(source: Source) -> Iterator[Path]:
    index = read_json(source, "model.safetensors.index.json") or {}
    names = set(index.get("weight_map", {}).values()) or {"model.safetensors"}
    for name in sorted(names):
        file = locate(source, name)
        if file is not None:
            yield file


def _header(file: Path) -> dict[str, Stored]:
    """The table at the start of a safetensors file: its length in 8 bytes, then JSON."""
    with file.open("rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        table = json.loads(opened.read(length))
    return {
        name: Stored(str(entry["dtype"]), tuple(entry["shape"]))
        for name, entry in table.items()
        if name != "__metadata__"
    }
