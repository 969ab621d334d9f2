"""A model whose blocks lie on several GPUs, one after the other: for what one of them does not hold.

The first GPU has the embeddings, the final norm and the head too. What a block is given follows it to its
GPU, and the last one's output comes back; so the model's own code, and the engine, see one device.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

from qeval.base.errors import QevalError
from qeval.score.engine import hosting, streaming
from qeval.score.engine.materialize import Layer, packed_layers, prove, settled_dtype, unpack

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import torch

_NAME = "spread_by_qeval"
_NOT_MOVED = ("past_key_values", "past_key_value", "cache_params")
"""Caches: they keep what each block gave them where it was."""


def spread_of(model: Any) -> Spread | None:
    """What moves a model's activations from GPU to GPU; None for one that lies on one device."""
    found: Spread | None = getattr(model, _NAME, None)
    return found


def spread(model: Any, devices: Sequence[str]) -> int:
    """Move a model that lies in host memory to several devices, in place, a run of blocks each, its packed
    layers unpacked there; returns how many there were.

    Raises QevalError for a model whose blocks are in no one list or share weights, or whose packed layers
    cannot be unpacked.
    """
    import torch

    places = [torch.device(device) for device in devices]
    dtype = settled_dtype(model)
    name, blocks = streaming.blocks_of(model)
    _refuse_shared(model, blocks)
    of_block, others, count = _by_block(packed_layers(model, dtype), name, len(blocks))
    sizes = [_bytes(block) + _unpacked(own, dtype) for block, own in zip(blocks, of_block, strict=True)]
    rest = _bytes(model) - sum(map(_bytes, blocks))
    homes = [places[i] for i in homes_of(sizes, rest, len(places))]
    seen: set[Any] = set()
    for block, own, home in zip(blocks, of_block, homes, strict=True):
        hosting.move(block, home)
        prove([layer for layer in own if layer.kind not in seen], dtype)
        seen |= {layer.kind for layer in own}
        unpack(model, own)
    hosting.move(model, places[0])
    unpack(model, others)
    model.is_quantized = False  # what transformers looks at to refuse changes of a model
    setattr(model, _NAME, Spread(blocks, homes, places[0]))
    streaming.check(model, places[0])
    return count


def _by_block(layers: Iterable[Layer], name: str, blocks: int) -> tuple[list[list[Layer]], list[Layer], int]:
    """The packed layers of each of so many blocks of the list `name`, those outside it, and their count."""
    found: list[list[Layer]] = [[] for _ in range(blocks)]
    others: list[Layer] = []
    for layer in layers:
        path = layer.name.removeprefix(f"{name}.")
        (others if path == layer.name else found[int(path.partition(".")[0])]).append(layer)
    return found, others, len(others) + sum(map(len, found))


def homes_of(blocks: Sequence[int], rest: int, devices: int) -> list[int]:
    """The device of each block, by their bytes and those of the `rest`, which the first device holds: runs of
    blocks, so that all devices hold about as much."""
    total, before, found = max(1, rest + sum(blocks)), rest, []
    for size in blocks:
        found.append(min(devices - 1, int((before + size / 2) * devices / total)))
        before += size
    return found


def _unpacked(layers: Sequence[Layer], dtype: torch.dtype) -> int:
    """The bytes that packed layers will take."""
    return sum(layer.shape[0] * layer.shape[1] for layer in layers) * int(dtype.itemsize)


def _bytes(module: Any) -> int:
    """The bytes of a module's tensors, as they are stored."""
    return sum({t.data_ptr(): t.numel() * t.element_size() for _, _, t in hosting.tensors(module)}.values())


def _refuse_shared(model: Any, blocks: Sequence[Any]) -> None:
    """Raise QevalError where several blocks, which may be apart, share a weight."""
    count = Counter(one for block in blocks for one in {id(p) for p in block.parameters()})
    if any(times > 1 for times in count.values()):
        raise QevalError(
            f"Blocks of {type(model).__name__} share weights, and so cannot lie on several GPUs.",
            "Leave out --gpus-per-variant: what does not fit on one GPU is streamed.",
        )


class Spread:
    """Hangs on the blocks' forward passes and moves what they are given to where they are.

    What all blocks are given alike, masks above all, is moved once a pass.
    """

    def __init__(self, blocks: Sequence[Any], homes: Sequence[torch.device], first: torch.device) -> None:
        self.blocks, self.homes = list(blocks), list(homes)
        self.moved: dict[tuple[int, torch.device], tuple[Any, Any]] = {}
        for block, home in zip(self.blocks, self.homes, strict=True):
            block.register_forward_pre_hook(partial(self._enter, home), with_kwargs=True)
        self.blocks[-1].register_forward_hook(partial(self._leave, first))

    def compiled(self) -> list[tuple[Any, str, Any]]:
        """Each block with the attribute that is to hold its compiled code."""
        return streaming.compiled(self.blocks)

    def _enter(self, home: torch.device, module: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        if module is self.blocks[0]:
            self.moved.clear()
        kept = {name: value for name, value in kwargs.items() if name in _NOT_MOVED}
        rest = {name: self._there(value, home) for name, value in kwargs.items() if name not in kept}
        return tuple(_to(value, home) for value in args), rest | kept

    def _leave(self, first: torch.device, _module: Any, _args: Any, out: Any) -> Any:
        self.moved.clear()
        return _to(out, first)

    def _there(self, value: Any, home: torch.device) -> Any:
        """A value on a device; the original is held with it, or its id might come again."""
        if (id(value), home) not in self.moved:
            self.moved[id(value), home] = (value, _to(value, home))
        return self.moved[id(value), home][1]


def _to(value: Any, device: torch.device) -> Any:
    """A tensor, a mask, or a collection of such, on a device; anything else as it is."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):
        return type(value)(_to(one, device) for one in value)
    if isinstance(value, dict):
        return {name: _to(one, device) for name, one in value.items()}
    if type(value).__name__ == "BlockMask":
        there = value.to(device)
        there.mask_mod = value.mask_mod.on(device)
        return there
    return value
