"""The tree as tiles of queries for a CPU: only what a tile can see is multiplied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qeval.score.engine.body import UnsupportedError
from qeval.score.engine.dense import additive
from qeval.score.engine.reach import by_layer

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from qeval.score.engine.reach import Reach
    from qeval.score.engine.tree import Chunk

TILE = 128
"""Queries that share one list of keys: long enough for fast matrix products, short enough to waste little."""


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """Queries [begin, end) and what they may see: `keys` (k,) nodes in order, `mask` (q, k) additive."""

    begin: int
    end: int
    keys: torch.Tensor
    mask: torch.Tensor


class Tiles:
    """Attention tile by tile: a run of nodes sees its first node's ancestors and itself, and nothing else.

    That is the whole saving: a tile of q nodes at depth d multiplies q * (d + q) pairs, where the dense
    mask has it multiply q times all nodes of the chunk. Transformers lets a function be registered as
    an attention implementation; the tiles travel to it on the mask, which is otherwise empty.
    """

    name = "tiles"
    implementation = "qeval_tiles"

    def __init__(self, reach: dict[str, Reach], device: torch.device, dtype: torch.dtype) -> None:
        from transformers import AttentionInterface

        self.reach, self.device, self.dtype = reach, device, dtype
        AttentionInterface.register(self.implementation, tiled_attention)

    def padded(self, n: int, budget: int) -> int:  # noqa: ARG002  # the other layouts need it
        """No padding."""
        return n

    def masks(self, chunk: Chunk) -> Any:
        """Empty tensors (1, 1, 1, 1) that carry the tiles."""
        return by_layer(self.reach, lambda reach: self._carrier(chunk, reach))

    def _carrier(self, chunk: Chunk, reach: Reach) -> Any:
        import torch

        carrier: Any = torch.ones((1, 1, 1, 1), dtype=torch.bool, device=self.device)
        carrier.qeval_tiles = [self._tile(chunk, reach, a) for a in range(0, len(chunk.tokens), TILE)]
        return carrier

    def _tile(self, chunk: Chunk, reach: Reach, begin: int) -> Tile:
        import torch

        stop = min(begin + TILE, len(chunk.tokens))
        keys, seen = tile(chunk, reach, begin, stop)
        mask = additive(torch.from_numpy(seen).to(self.device), self.dtype)
        return Tile(begin, stop, torch.from_numpy(keys).to(self.device), mask)


def tile(chunk: Chunk, reach: Reach, begin: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The nodes (k,) that nodes [begin, stop) can see, and the mask between them, (stop - begin, k)."""
    keys = np.concatenate([np.flatnonzero(chunk.end[:begin] > begin), np.arange(begin, stop)])
    if reach.window is not None:
        # What the tile's shallowest node cannot look back to, no node of the tile can.
        near = chunk.positions[begin:stop].min() - chunk.positions[keys] < reach.window
        keys = keys[near | (keys >= begin)]
    query = np.arange(begin, stop)[:, None]
    seen = (keys <= query) & (query < chunk.end[keys])
    return keys, seen & reach.sees(chunk.positions[begin:stop, None], chunk.positions[keys])


def tiled_attention(
    _module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Attention (1, n, heads, d) of query (1, heads, n, d) and key, value (1, kv_heads, n, d), by tiles.

    Signature and shapes are those of transformers' attention functions.
    """
    import torch

    tiles = getattr(attention_mask, "qeval_tiles", None)
    if tiles is None or len(query) != 1 or any(more.get(x) is not None for x in ("s_aux", "position_bias")):
        raise UnsupportedError("its attention does something that tiles cannot")
    kv = key.shape[1]
    grouped = query[0].unflatten(0, (kv, -1))  # (kv_heads, heads per kv head, n, d)
    out = [attend(grouped[:, :, t.begin : t.end], key[0], value[0], t, scaling, softcap) for t in tiles]
    return torch.cat(out, 2).flatten(0, 1).transpose(0, 1)[None].contiguous(), None


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    t: Tile,
    scaling: float | None,
    softcap: float | None,
) -> torch.Tensor:
    """One tile: query (g, m, q, d), key and value (g, n, d) -> (g, m, q, d)."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    shape = (query.shape[0], query.shape[1], -1, -1)
    k = key.index_select(1, t.keys)[:, None].expand(shape)
    v = value.index_select(1, t.keys)[:, None].expand(shape)
    if softcap is None:
        return scaled_dot_product_attention(query, k, v, attn_mask=t.mask[None, None], scale=scaling)
    scores = query @ k.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = torch.tanh(scores / softcap) * softcap + t.mask
    return torch.softmax(scores, -1, dtype=torch.float32).to(v.dtype) @ v
