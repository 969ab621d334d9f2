"""Weights that lie in host memory and reach the device block by block, each just before it is used.

A device holds two blocks as they are stored: while one computes, the next is copied beside it. Packed layers
are unpacked once their bytes are there, by the very code that unpacks them ahead of scoring, so that the
numbers are those of a model that is held whole.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any

from qeval.base.errors import QevalError
from qeval.score.engine import hosting
from qeval.score.engine.materialize import Layer, packed_layers, plain_for, prove, settled_dtype

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

ALIGN = 256
"""The boundary, in bytes, at which a tensor begins in a slot, as where torch itself allocates."""
SMALL = 1024
"""Tensors of a packed layer of fewer bytes stay on the device: tables of codes, nested scales."""
RESIDENT = "Use --placement resident, on a device that holds the whole model."
_MATRIX = 2
_NAME = "streamed_by_qeval"


def streamer_of(model: Any) -> Streamer | None:
    """What feeds a model its blocks; None for one that is held whole."""
    found: Streamer | None = getattr(model, _NAME, None)
    return found


def stream(model: Any, device: str) -> int:
    """Have a model that lies in host memory compute on `device`, in place; returns how many packed layers it
    has, which from now on are unpacked whenever they are reached.

    Embeddings, final norm, head, and what several blocks share move to the device for good. Raises QevalError
    for a model whose blocks are in no one list, or whose packed layers cannot be unpacked.
    """
    import torch

    place, dtype = torch.device(device), settled_dtype(model)
    layers = list(packed_layers(model, dtype))
    name, blocks = blocks_of(model)
    twins = [(plain_for(model, layer, hosting.nowhere(layer.shape, dtype, place)), layer) for layer in layers]
    taken = _Taken(model, blocks, place)
    made = [
        taken.block(block, [pair for pair in twins if pair[1].name.startswith(f"{name}.{i}.")])
        for i, block in enumerate(blocks)
    ]
    hosting.move(model, place)
    for twin, layer in twins:
        if not layer.name.startswith(f"{name}."):
            hosting.move(layer.module, place)
            twin.weight.data = layer.weight()
    model.is_quantized = False  # what transformers looks at to refuse changes of a model
    streamer = Streamer(blocks, made, place)
    streamer.prove(dtype)
    setattr(model, _NAME, streamer)
    check(model, place)
    return len(layers)


def blocks_of(model: Any) -> tuple[str, list[Any]]:
    """The name and the members of the list of modules that holds most of a model."""
    from torch import nn

    lists = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module)
    }
    if not lists:
        raise QevalError(f"{type(model).__name__} has no list of blocks that could be streamed.", RESIDENT)
    name = max(lists, key=lambda place: sum(p.numel() for p in lists[place].parameters()))
    return name, list(lists[name])


@dataclass(frozen=True, eq=False)
class Part:
    """A tensor of a block: the attribute of `holder` that it is, and where in the block's memory it lies."""

    holder: Any
    attribute: str
    offset: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def within(self, memory: torch.Tensor) -> torch.Tensor:
        """The tensor in this copy of the block's memory, (bytes,)."""
        import torch

        end = self.offset + math.prod(self.shape) * self.dtype.itemsize
        flat = memory[self.offset : end].view(self.dtype)
        return torch.as_strided(flat, self.shape, self.stride)

    def forget(self, device: torch.device) -> None:
        """Let nobody compute with it where it was."""
        own = self.attribute == "data"  # a parameter's, whose shape is looked at
        setattr(self.holder, self.attribute, hosting.nowhere(self.shape, self.dtype, device) if own else None)


@dataclass(frozen=True, eq=False)
class Block:
    """A block of a model: its bytes in host memory, its tensors within, and its packed layers with the plain
    ones in their places."""

    host: torch.Tensor
    parts: Sequence[Part]
    unpacked: Sequence[tuple[Any, Layer]]

    def bind(self, memory: torch.Tensor) -> None:
        """Let the block compute with the bytes in `memory`."""
        for part in self.parts:
            setattr(part.holder, part.attribute, part.within(memory))
        for twin, layer in self.unpacked:
            twin.weight.data = layer.weight()

    def release(self, device: torch.device) -> None:
        """Let go of unpacked weights, and have nobody compute with those that lie in a slot."""
        for part in self.parts:
            part.forget(device)
        for twin, layer in self.unpacked:
            twin.weight.data = hosting.nowhere(layer.shape, twin.weight.dtype, device)


class _Taken:
    """Takes the weights of a model's blocks out of it, one block after the other."""

    def __init__(self, model: Any, blocks: Sequence[Any], device: torch.device) -> None:
        self.device = device
        inside = {module for block in blocks for module in block.modules()}
        rest = (module for module in model.modules() if module not in inside)
        count = Counter(id(p) for block in blocks for p in {id(p): p for p in block.parameters()}.values())
        count.update({id(p) for module in rest for p in module.parameters(recurse=False)})
        self.shared = {one for one, times in count.items() if times > 1}

    def block(self, module: Any, unpacked: Sequence[tuple[Any, Layer]]) -> Block:
        """A block's weights gathered in one piece of host memory, and let go of where they were."""
        parts, size = [], 0
        for holder, name in [*self._plain(module, unpacked), *self._packed(unpacked)]:
            tensor = getattr(holder, name)
            stride = hosting.dense_stride(tensor)
            parts.append(Part(holder, name, size, tensor.dtype, tuple(tensor.shape), stride))
            size += -(-tensor.numel() * tensor.element_size() // ALIGN) * ALIGN
        host = hosting.memory(size)
        for part in parts:
            part.within(host).copy_(getattr(part.holder, part.attribute))
            part.forget(self.device)
        hosting.pin(host, self.device)
        return Block(host, parts, unpacked)

    def _plain(self, module: Any, unpacked: Sequence[tuple[Any, Layer]]) -> list[tuple[Any, str]]:
        """Matrices, and stacks of them; vectors are so small that they move to the device for good."""
        twins = {id(twin.weight) for twin, _ in unpacked}
        left_out = self.shared | twins
        return [(p, "data") for p in module.parameters() if p.dim() >= _MATRIX and id(p) not in left_out]

    def _packed(self, unpacked: Sequence[tuple[Any, Layer]]) -> list[tuple[Any, str]]:
        found = []
        for _, layer in unpacked:
            for holder, name, tensor in [*hosting.tensors(layer.module)]:
                if tensor.numel() * tensor.element_size() < SMALL:
                    setattr(holder, name, tensor.to(self.device))
                else:
                    found.append((holder, name))
        return found


class Slot:
    """Room for one block on the device. `ready` and `free` are events of the device, None on a CPU: the copy
    into it has ended; the last computation with it has."""

    def __init__(self, size: int, device: torch.device) -> None:
        import torch

        self.memory = torch.empty(size, dtype=torch.uint8, device=device)
        self.block: int | None = None
        self.ready: Any = None
        self.free: Any = hosting.now(device)


class Streamer:
    """Feeds the blocks of a model through two slots; it hangs on the blocks' forward passes."""

    def __init__(self, modules: Sequence[Any], blocks: Sequence[Block], device: torch.device) -> None:
        self.modules, self.blocks, self.device = modules, blocks, device
        size = max(len(block.host) for block in blocks)
        self.slots = [Slot(size, device) for _ in range(2)]
        self.copies = hosting.stream(device)
        self.bound: tuple[Block, Slot] | None = None
        for i, module in enumerate(modules):
            module.register_forward_pre_hook(partial(self._enter, i))
            module.register_forward_hook(self._leave, always_call=True)

    @property
    def size(self) -> int:
        """The bytes that lie in host memory."""
        return sum(len(block.host) for block in self.blocks)

    def compiled(self) -> list[tuple[Any, str, Any]]:
        """Each block with the attribute that is to hold its compiled code."""
        return compiled(self.modules)

    def prove(self, dtype: torch.dtype) -> None:
        """Have a layer of each kind show, on the device, that it multiplies by its unpacked weight. Raises
        QevalError where one does not."""
        seen: set[Any] = set()
        for i, block in enumerate(self.blocks):
            new = {layer.kind: layer for _, layer in block.unpacked if layer.kind not in seen}
            if new:
                self._enter(i)
                prove(list(new.values()), dtype)
                self._leave()
                seen |= set(new)

    def _enter(self, i: int, *_: Any) -> None:
        """Before block i computes: its weights are there, and those of the next are on their way."""
        self._leave()
        slot = self._fetched(i)
        self.bound = (self.blocks[i], slot)
        self._fetched((i + 1) % len(self.blocks))
        hosting.wait(slot.ready, self.device)
        self.blocks[i].bind(slot.memory)

    def _leave(self, *_: Any) -> None:
        """Once a block has computed, or has failed to: its slot may be filled anew."""
        if self.bound is not None:
            block, slot = self.bound
            block.release(self.device)
            slot.free = hosting.now(self.device)
            self.bound = None

    def _fetched(self, i: int) -> Slot:
        """The slot of block i, whose copy has been asked for at least."""
        found = next((slot for slot in self.slots if slot.block == i), None)
        if found is None:
            taken = self.bound[1] if self.bound else None
            found = next(slot for slot in self.slots if slot is not taken)
            host = self.blocks[i].host
            found.ready = hosting.copy(host, found.memory[: len(host)], self.copies, found.free)
            found.block = i
        return found


def compiled(modules: Sequence[Any]) -> list[tuple[Any, str, Any]]:
    """Each of these blocks with the attribute that is to hold its compiled code, which all that are alike
    share: that of its forward alone, for the hooks that place weights or inputs are no part of it."""
    import torch

    made: dict[type, Any] = {}
    for module in modules:
        kind = type(module)
        made.setdefault(kind, torch.compile(kind.forward, dynamic=False))
    return [(module, "forward", MethodType(made[type(module)], module)) for module in modules]


def check(model: Any, device: torch.device) -> None:
    """Raise QevalError where weights are read outside of the blocks that hold them."""
    import torch

    with torch.no_grad():
        out = model(torch.zeros((1, 3), dtype=torch.int64, device=device))
    logits = out.logits if hasattr(out, "logits") else out[0]
    if not torch.isfinite(logits).all():
        raise QevalError(
            f"{type(model).__name__} gives no finite logits once its blocks are placed one by one: it reads"
            " their weights outside of them, or overflows in this dtype.",
            RESIDENT,
        )
