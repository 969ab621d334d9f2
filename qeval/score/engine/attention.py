"""How attention sees the tree: a dense mask, tiles of queries for a CPU, blocks for FlexAttention on CUDA.

Node i may see node j exactly when `j <= i < end[j]`; where a model's layers look back only so far, the
two positions decide as well. All three layouts say the same thing and differ in speed: the mask costs
every pair of nodes, tiles and blocks only those pairs that can see each other.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from qeval.score.engine.body import UnsupportedError, put

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch
    from numpy.typing import NDArray

    from qeval.score.engine.body import CausalModel
    from qeval.score.engine.requests import TokenRequest
    from qeval.score.engine.tree import Chunk

TILE = 128
"""Queries that share one list of keys: long enough for fast matrix products, short enough to waste little."""
BLOCK = 128
"""FlexAttention's block of queries and of keys."""


@dataclass(frozen=True)
class Reach:
    """How far back a layer looks: `window` tokens (itself included), or to the start of its block of `block`
    tokens; None for without limit."""

    window: int | None = None
    block: int | None = None

    def sees(self, query: Any, key: Any) -> Any:
        """Whether positions are near enough, for arrays or tensors that broadcast; True for no limit."""
        near: Any = True
        if self.window is not None:
            near = query - key < self.window
        if self.block is not None:
            near = near & (query // self.block == key // self.block)
        return near


class Layout(Protocol):
    """A way to hand the tree's mask to a model. `implementation` is the transformers attention it needs,
    None for whatever the model was loaded with."""

    @property
    def implementation(self) -> str | None:
        """See above."""
        ...

    def padded(self, n: int, budget: int) -> int:
        """The length to which a chunk of n nodes is padded, where chunks are meant to hold `budget`."""
        ...

    def masks(self, chunk: Chunk) -> Any:
        """The `attention_mask` argument for a chunk: one mask, or a dict of them by layer type."""
        ...


def reaches(config: Any) -> dict[str, Reach]:
    """How far back each layer type of a model looks, by its transformers configuration.

    Raises UnsupportedError for layers that are no attention.
    """
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if not kinds:
        return {"full_attention": Reach(window=window)}
    known = {
        "full_attention": Reach(),
        "sliding_attention": Reach(window=window),
        "chunked_attention": Reach(block=getattr(config, "attention_chunk_size", None)),
    }
    strange = sorted(set(kinds) - set(known))
    if strange:
        raise UnsupportedError(f"it has layers of the kind {strange[0]}")
    return {kind: known[kind] for kind in sorted(set(kinds))}


def shortest_window(config: Any) -> int | None:
    """The fewest tokens that some layer looks back over, None where all layers see everything."""
    try:
        limits = [r.window or r.block for r in reaches(config).values()]
    except UnsupportedError:
        return None
    return min((x for x in limits if x is not None), default=None)


def apart(config: Any, requests: Sequence[TokenRequest]) -> list[NDArray[np.int64]]:
    """Indices of requests that may share a chunk: all of them, but for models with LongRoPE.

    Those turn to other frequencies for the whole pass once a position lies beyond the original length,
    so that sequences within and beyond it must not meet.
    """
    parameters = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kind = parameters.get("rope_type", parameters.get("type", ""))
    original = getattr(config, "original_max_position_embeddings", None) or parameters.get(
        "original_max_position_embeddings"
    )
    everyone = np.arange(len(requests))
    if kind != "longrope" or original is None:
        return [everyone]
    beyond = np.array([len(r.tokens) - 1 > original for r in requests], bool)
    return [part for part in (everyone[~beyond], everyone[beyond]) if len(part)]


def layouts(lm: CausalModel) -> list[tuple[str, Callable[[], Layout]]]:
    """What to call the layouts for a model on its device, and how to make them, fastest first."""
    config, device, dtype = lm.config, lm.device, lm.dtype
    boolean = getattr(config, "_attn_implementation", "") == "sdpa"
    fast: dict[str, tuple[str, Callable[[], Layout]]] = {
        "cuda": (Flex.name, lambda: Flex(reaches(config), device)),
        "cpu": (Tiles.name, lambda: Tiles(reaches(config), device, dtype)),
    }
    slow: tuple[str, Callable[[], Layout]] = (
        Dense.name,
        lambda: Dense(reaches(config), device, dtype, boolean=boolean),
    )
    return [fast[device.type], slow] if device.type in fast else [slow]


def by_layer(reach: dict[str, Reach], make: Callable[[Reach], Any]) -> Any:
    """One mask where all layers look equally far, else a dict of masks by layer type."""
    masks = {kind: make(r) for kind, r in reach.items()}
    return masks if len(masks) > 1 else next(iter(masks.values()))


class Dense:
    """A 4-D mask: boolean for sdpa, additive for attention written out in full."""

    name = "a dense mask"
    implementation = None

    def __init__(
        self, reach: dict[str, Reach], device: torch.device, dtype: torch.dtype, *, boolean: bool
    ) -> None:
        self.reach, self.device, self.dtype, self.boolean = reach, device, dtype, boolean

    def padded(self, n: int, budget: int) -> int:  # noqa: ARG002  # the other layouts need it
        """No padding."""
        return n

    def masks(self, chunk: Chunk) -> Any:
        """Tensors (1, 1, n, n)."""
        return by_layer(self.reach, lambda reach: self._mask(chunk, reach))

    def _mask(self, chunk: Chunk, reach: Reach) -> torch.Tensor:
        import torch

        node = torch.arange(len(chunk.tokens), device=self.device)
        end, at = put(chunk.end, self.device), put(chunk.positions, self.device)
        seen = (node <= node[:, None]) & (node[:, None] < end) & reach.sees(at[:, None], at)
        return (seen if self.boolean else _additive(seen, self.dtype))[None, None]


def _additive(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """0 where seen, the lowest number of the dtype elsewhere."""
    import torch

    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(
        ~seen, torch.finfo(dtype).min
    )


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
        mask = _additive(torch.from_numpy(seen).to(self.device), self.dtype)
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
    out = [_attend(grouped[:, :, t.begin : t.end], key[0], value[0], t, scaling, softcap) for t in tiles]
    return torch.cat(out, 2).flatten(0, 1).transpose(0, 1)[None].contiguous(), None


def _attend(
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
            buffer.copy_(put(array, self.device))
        return by_layer(self.reach, lambda reach: self._block_mask(chunk, reach))

    def _block_mask(self, chunk: Chunk, reach: Reach) -> Any:
        from torch.nn.attention.flex_attention import BlockMask

        n = len(chunk.tokens)
        partial, full = blocks(chunk, reach)
        tables = (*_ordered(partial), *_ordered(full))
        return BlockMask.from_kv_blocks(
            *(put(table, self.device).int()[None, None] for table in tables),
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
    """The tree's mask in the form that FlexAttention compiles."""
    if reach == Reach():
        return lambda _b, _h, q, kv: (kv <= q) & (q < end[kv])

    def sees(_b: Any, _h: Any, q: Any, kv: Any) -> Any:
        return (kv <= q) & (q < end[kv]) & reach.sees(positions[q], positions[kv])

    return sees


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


def pad(chunk: Chunk, length: int) -> Chunk:
    """The chunk with nodes that see only themselves appended until it has `length` of them."""
    from dataclasses import replace

    extra = length - len(chunk.tokens)
    if extra <= 0:
        return chunk
    fresh = np.arange(len(chunk.tokens) + 1, length + 1, dtype=np.int32)
    zeros = np.zeros(extra, np.int32)
    return replace(
        chunk,
        tokens=np.concatenate([chunk.tokens, zeros]),
        positions=np.concatenate([chunk.positions, zeros]),
        end=np.concatenate([chunk.end, fresh]),
    )


@contextmanager
def using(model: Any, implementation: str | None) -> Iterator[None]:
    """While open, the model attends by this transformers implementation; None leaves it as it is.

    Raises UnsupportedError for a model that cannot be switched.
    """
    before = getattr(model.config, "_attn_implementation", None)
    if implementation is None or implementation == before:
        yield
        return
    try:
        _switch(model, implementation)
        yield
    finally:
        model.set_attn_implementation(before)


def _switch(model: Any, implementation: str) -> None:
    """Change how a model attends."""
    if not getattr(model, "_supports_attention_backend", False):
        raise UnsupportedError("its attention cannot be exchanged")
    try:
        model.set_attn_implementation(implementation)
    except (ValueError, ImportError) as error:
        raise UnsupportedError(f"it has no {implementation}") from error
