"""The tree as one dense mask: every pair of nodes is multiplied, and what must not be seen is masked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qeval.score.engine.body import on_device
from qeval.score.engine.reach import by_layer

if TYPE_CHECKING:
    import torch

    from qeval.score.engine.reach import Reach
    from qeval.score.engine.tree import Chunk


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
        end, at = on_device(chunk.end, self.device), on_device(chunk.positions, self.device)
        seen = (node <= node[:, None]) & (node[:, None] < end) & reach.sees(at[:, None], at)
        return (seen if self.boolean else additive(seen, self.dtype))[None, None]


def additive(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """0 where seen, the lowest number of the dtype elsewhere."""
    import torch

    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(
        ~seen, torch.finfo(dtype).min
    )
