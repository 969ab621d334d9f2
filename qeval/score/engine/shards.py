"""Shards: the forward passes over a list of requests, in fixed runs that stand or fall together.

What a pass holds follows from the requests and the size it is cut for, and the shard is a run of passes,
so who computes it and what was computed before change nothing. No token is fed for the sake of a shard.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import torch
    from numpy.typing import NDArray

    from qeval.score.engine.requests import TokenRequest

PASSES = 4
"""Passes of a shard: a second or two of a large GPU's time."""


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """What one forward pass found, perhaps still being computed on the device.

    requests: (m,), offsets: (m + 1,) as in `tree.Chunk`; log_probs: (s,) float32; greedy: (s,) bool.
    """

    requests: NDArray[np.int64]
    offsets: NDArray[np.int64]
    log_probs: torch.Tensor
    greedy: torch.Tensor

    def renamed(self, members: NDArray[np.int64]) -> Scored:
        """The same, with request k called members[k]."""
        return Scored(members[self.requests], self.offsets, self.log_probs, self.greedy)

    def fetch(self) -> Iterator[tuple[int, NDArray[np.float32], bool]]:
        """Each request's index, log-probabilities of its scored tokens, and whether all were most likely."""
        values, best = self.log_probs.cpu().numpy(), self.greedy.cpu().numpy()
        for k, index in enumerate(self.requests.tolist()):
            part = slice(self.offsets[k], self.offsets[k + 1])
            yield index, values[part], bool(best[part].all())


@dataclass(frozen=True, slots=True, eq=False)
class Pass:
    """One forward pass. members: (m,) int64, the requests it answers. run: computes it. tokens: how many it
    feeds. alone: whether it is a single sequence, so that no smaller pass would do."""

    members: NDArray[np.int64]
    run: Callable[[], Scored]
    tokens: int
    alone: bool


def cut(passes: Iterable[Pass], count: int = PASSES) -> Iterator[list[Pass]]:
    """The passes in runs of `count`, the last of what is left."""
    left = iter(passes)
    while shard := list(islice(left, count)):
        yield shard


def members(shard: Sequence[Pass]) -> NDArray[np.int64]:
    """The requests of a shard, (m,) int64, ascending."""
    found: NDArray[np.int64] = np.unique(np.concatenate([one.members for one in shard]))
    return found


def name(requests: Sequence[TokenRequest]) -> str:
    """A hash of what a shard asks, whatever the order: 16 hex digits."""
    total = hashlib.sha256()
    for text in sorted(b"%d " % one.n_scored + one.tokens.astype(">u4").tobytes() for one in requests):
        total.update(b"%d " % len(text) + text)
    return total.hexdigest()[:16]


def fetched(
    finished: Sequence[Scored], want: NDArray[np.bool_]
) -> Iterator[tuple[int, NDArray[np.float32], bool]]:
    """The wanted answers of passes."""
    for scored in finished:
        yield from (answer for answer in scored.fetch() if want[answer[0]])
