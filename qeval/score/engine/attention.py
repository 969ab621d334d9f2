"""How attention sees the tree: a dense mask, tiles of queries for a CPU, blocks for FlexAttention on CUDA.

Node i may see node j exactly when `j <= i < end[j]`; where a model's layers look back only so far, the
two positions decide as well. All three layouts say the same thing and differ in speed: the mask costs
every pair of nodes, tiles and blocks only those pairs that can see each other.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from qeval.score.engine.body import UnsupportedError
from qeval.score.engine.dense import Dense
from qeval.score.engine.flex import Flex
from qeval.score.engine.reach import reaches
from qeval.score.engine.tiles import Tiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qeval.score.engine.body import CausalModel
    from qeval.score.engine.tree import Chunk


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
