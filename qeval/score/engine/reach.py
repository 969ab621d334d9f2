"""How far back the layers of a model look, and which requests may share a chunk because of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qeval.score.engine.body import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from qeval.score.engine.requests import TokenRequest


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


def reaches(config: Any) -> dict[str, Reach]:
    """How far back each layer type of a model looks, by its transformers configuration.

    Raises UnsupportedError for layers that are no attention, and for those that choose what they look at:
    where a pass is longer than what they choose, they may not choose a request's own tokens.
    """
    if chosen(config) is not None:
        raise UnsupportedError("its attention chooses the tokens that it looks at")
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


_CHOSEN = ("index_topk", "indexer_budget", "keep_window_size")
"""Names of how many tokens attention chooses to look at, in the configurations of transformers."""


def chosen(config: Any) -> int | None:
    """How many tokens the layers of a model look at, at most, where they choose them by scores of their own;
    None where they look at all that is near enough."""
    found = [getattr(config, name, None) for name in _CHOSEN]
    blocks, block = getattr(config, "index_topk_blocks", None), getattr(config, "index_block_size", None)
    found.append(blocks * block if blocks and block else None)
    return min((count for count in found if count), default=None)


def apart(config: Any, requests: Sequence[TokenRequest]) -> list[NDArray[np.int64]]:
    """Indices of requests that may share a pass: all of them, but for two kinds of models.

    Where attention chooses the tokens that it looks at, the choice between scores that are equal, or nearly,
    depends on what else is in the pass (measured: up to 0.02 nat a token while the self-check passed).
    So each request that is longer than what is chosen goes alone. LongRoPE turns to other frequencies
    for the whole pass once a position lies beyond the original length, so that sequences within and
    beyond it must not meet.
    """
    lengths = np.array([len(r.tokens) - 1 for r in requests], np.int64)
    most = chosen(config)
    alone = lengths > most if most is not None else np.zeros(len(requests), bool)
    together = [part[~alone[part]] for part in _by_rope(config, lengths)]
    return [part for part in together if len(part)] + list(np.flatnonzero(alone)[:, None])


def _by_rope(config: Any, lengths: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Indices of sequences of these lengths, parted at the original length of LongRoPE."""
    parameters = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kind = parameters.get("rope_type", parameters.get("type", ""))
    original = getattr(config, "original_max_position_embeddings", None) or parameters.get(
        "original_max_position_embeddings"
    )
    everyone = np.arange(len(lengths))
    if kind != "longrope" or original is None:
        return [everyone]
    return [everyone[lengths <= original], everyone[lengths > original]]


def one_rope(config: Any, length: int) -> bool:
    """Whether sequences of up to `length` tokens are all turned by the same frequencies."""
    parts = _by_rope(config, np.array([1, length]))
    return sum(len(part) > 0 for part in parts) == 1 and not _grows(config)


def _grows(config: Any) -> bool:
    """Whether the frequencies follow the longest position of each pass."""
    parameters = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    return "dynamic" in {parameters.get("rope_type"), parameters.get("type")}


def by_layer(reach: dict[str, Reach], make: Callable[[Reach], Any]) -> Any:
    """One mask where all layers look equally far, else a dict of masks by layer type."""
    masks = {kind: make(r) for kind, r in reach.items()}
    return masks if len(masks) > 1 else next(iter(masks.values()))
