"""The tree as blocks for FlexAttention on CUDA: only blocks that hold a visible pair are multiplied."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from qeval.score.engine.body import on_device
from qeval.score.engine.reach import Reach, by_layer

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from qeval.score.engine.tree import Chunk

BLOCK = 128
"""FlexAttention's block of queries and of keys."""


class Flex:
    """FlexAttention with one mask function per reach, which reads `end` and the positions from buffers.

    Chunks are padded to the budget, so everything compiles once; a new mask function would compile anew.
    A longer chunk is padded to the next doubling, with buffers of its own.
    """

    name = "FlexAttention"
    implementation = "flex_attention"

    def __init__(self, reach: dict[str, Reach], device: torch.device) -> None:
        self.reach, self.device = reach, device
        self.buffers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self.functions: dict[tuple[int, Reach], Any] = {}

    def padded(self, n: int, budget: int) -> int:
        """The budget in whole blocks, doubled until it holds n."""
        length = -(-budget // BLOCK) * BLOCK
        while length < n:
            length *= 2
        return length

    def masks(self, chunk: Chunk) -> Any:
        """BlockMasks of a padded chunk."""
        import torch

        n = len(chunk.tokens)
        if n not in self.buffers:
            self.buffers[n] = (
                torch.empty(n, dtype=torch.int32, device=self.device),
                torch.empty(n, dtype=torch.int32, device=self.device),
            )
        for buffer, array in zip(self.buffers[n], (chunk.end, chunk.positions), strict=True):
            buffer.copy_(on_device(array, self.device))
        return by_layer(self.reach, lambda reach: self._block_mask(chunk, reach))

    def _block_mask(self, chunk: Chunk, reach: Reach) -> Any:
        from torch.nn.attention.flex_attention import BlockMask

        n = len(chunk.tokens)
        partial, full = blocks(chunk, reach)
        tables = (*_ordered(partial), *_ordered(full))
        return BlockMask.from_kv_blocks(
            *(on_device(table, self.device).int()[None, None] for table in tables),
            BLOCK_SIZE=BLOCK,
            mask_mod=self._function(n, reach),
            seq_lengths=(n, n),
        )

    def _function(self, n: int, reach: Reach) -> Any:
        """The mask function of chunks of n nodes, made once."""
        if (n, reach) not in self.functions:
            self.functions[n, reach] = _mask_function(*self.buffers[n], reach)
        return self.functions[n, reach]


def _mask_function(end: torch.Tensor, positions: torch.Tensor, reach: Reach) -> Any:
    """The tree's mask in the form that FlexAttention compiles; its attribute `on` gives the same mask, as it
    is now, for another device."""

    def tree(_b: Any, _h: Any, q: Any, kv: Any) -> Any:
        return (kv <= q) & (q < end[kv])

    def within(_b: Any, _h: Any, q: Any, kv: Any) -> Any:
        return (kv <= q) & (q < end[kv]) & reach.sees(positions[q], positions[kv])

    sees: Any = tree if reach == Reach() else within
    sees.on = partial(_elsewhere, {}, (end, positions), reach)
    return sees


def _elsewhere(
    known: dict[torch.device, Any],
    buffers: tuple[torch.Tensor, torch.Tensor],
    reach: Reach,
    place: torch.device,
) -> Any:
    """The mask function of a device, made once, with what the `buffers` of the first one hold now."""
    import torch

    if place not in known:
        end, positions = (torch.empty_like(one, device=place) for one in buffers)
        known[place] = ((end, positions), _mask_function(end, positions, reach))
    copies, function = known[place]
    for copy, buffer in zip(copies, buffers, strict=True):
        copy.copy_(buffer)
    return function


def blocks(chunk: Chunk, reach: Reach) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which blocks of (queries, keys) hold some visible pair but need the mask, and which are all visible.

    Both (n / BLOCK, n / BLOCK). Near a window's edge a block may be called partial though it is empty or
    full, which costs time only.
    """
    end, at = chunk.end.reshape(-1, BLOCK), chunk.positions.reshape(-1, BLOCK)
    begin = np.arange(len(end)) * BLOCK
    diagonal = np.eye(len(end), dtype=bool)
    some = (begin[:, None] > begin) & (end.max(1) > begin[:, None])
    full = some & (end.min(1) >= begin[:, None] + BLOCK)
    if reach.window is not None:
        some &= at.min(1)[:, None] - at.max(1) < reach.window
        full &= at.max(1)[:, None] - at.min(1) < reach.window
    if reach.block is not None:
        full &= at.max(1)[:, None] // reach.block == at.min(1) // reach.block
    full &= some
    return (some & ~full) | diagonal, full


def _ordered(table: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Per row of blocks the number of chosen columns, (b,), and the columns, chosen ones first, (b, b)."""
    return table.sum(1), np.argsort(~table, axis=1, kind="stable")
