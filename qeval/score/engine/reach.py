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


def by_layer(reach: dict[str, Reach], make: Callable[[Reach], Any]) -> Any:
    """One mask where all layers look equally far, else a dict of masks by layer type."""
    masks = {kind: make(r) for kind, r in reach.items()}
    return masks if len(masks) > 1 else next(iter(masks.values()))
