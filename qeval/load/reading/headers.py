"""What a checkpoint's safetensors files hold: the tensors, their types and shapes, and their bits."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from qeval.base.errors import QevalError
from qeval.load.reading.failures import explain
from qeval.load.source import Source, locate, read_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_NOT_WEIGHTS = {"bias", "weight_shape", "input_scale", "activation_scale"}
"""Tensors of a layer that do not serve to unpack its weight, or that the configuration tells as well."""
_PACKED = ("_blocks", "_scales")
"""The ends of names in checkpoints that pack a parameter, not a module's weight (gpt-oss)."""


class Stored(NamedTuple):
    """A tensor in a file: its type's name there (F16, I32, F8_E4M3 ...) and its shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def width(self) -> int:
        """Bits of one of its numbers."""
        found = re.match(r"[A-Z]+(\d+)", self.dtype)
        return int(found[1]) if found else 8  # BOOL

    @property
    def bits(self) -> int:
        """Bits that the tensor takes."""
        return self.width * math.prod(self.shape)


class Tensors:
    """The tensors of a checkpoint's safetensors files, read one by one; files stay open as long as `stack`.

    `files` maps the name of a tensor to its file. Raises QevalError where a file is missing or damaged.
    """

    def __init__(self, source: Source, stack: ExitStack) -> None:
        self.source, self._stack = source, stack
        self._opened: dict[str, Any] = {}
        index, single = read_json(source, INDEX), single_file(source) or SINGLE
        self.files: dict[str, str] = (
            dict.fromkeys(self._handle(single).keys(), single) if index is None else dict(index["weight_map"])
        )

    def _handle(self, file: str) -> Any:
        from safetensors import safe_open

        if file not in self._opened:
            place = locate(self.source, file)
            if place is None:
                raise QevalError(f"{self.source.path} has no file {file}.", "Download the checkpoint again.")
            try:
                self._opened[file] = self._stack.enter_context(safe_open(place, "pt"))
            except Exception as error:
                raise explain(error, self.source, "cpu") from error
        return self._opened[file]

    def read(self, name: str) -> Any:
        """One tensor."""
        return self._handle(self.files[name]).get_tensor(name)

    def stored(self, name: str) -> Stored:
        """What a tensor is, read without its numbers."""
        found = self._handle(self.files[name]).get_slice(name)
        return Stored(found.get_dtype(), tuple(found.get_shape()))


def single_file(source: Source) -> str:
    """The one safetensors file of a checkpoint, under the name that auto-gptq gave it where it has no usual
    one; empty where there is none."""
    if locate(source, SINGLE) is not None:
        return SINGLE
    settings = read_json(source, "quantize_config.json")
    if settings is None:
        return ""
    told = settings.get("model_file_base_name")
    if told and locate(source, f"{told}.safetensors") is not None:
        return f"{told}.safetensors"
    found = list(Path(source.place).glob("*.safetensors")) if source.local else []
    return found[0].name if len(found) == 1 else ""


def holds_safetensors(source: Source) -> bool:
    """Whether a checkpoint's weights are in safetensors files."""
    return locate(source, INDEX) is not None or bool(single_file(source))


def stored_tensors(source: Source) -> dict[str, Stored]:
    """Every tensor of a checkpoint by name; empty where it has no safetensors files."""
    if not holds_safetensors(source):
        return {}
    with ExitStack() as stack:
        tensors = Tensors(source, stack)
        return {name: tensors.stored(name) for name in tensors.files}


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
