"""Passes over a stream: the states that enter a model's head, window by window, and the numbers of two
models' states side by side, a few rows at a time."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np

from qeval.base.errors import QevalError
from qeval.base.fidelity import Positions, Stream
from qeval.score.engine import memory
from qeval.score.engine.body import CausalModel, on_device
from qeval.score.fidelity.divergence import Compared, compare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch

ELEMENTS = {"cuda": 2**25, "cpu": 2**22}
"""Logits of each side that are held at once."""
MOST_WINDOWS = 64
_TYPES = {"top_p": np.int32, "top_q": np.int32, "rank": np.int32, "ordered": np.bool_}


def usual_batch(lm: CausalModel, stream: Stream) -> int:
    """How many windows are fed at once: as many as a chunk of the token tree has room for."""
    longest = int((stream.ends - stream.starts).max())
    return int(np.clip(memory.limits(lm).budget // longest, 1, MOST_WINDOWS))


class Feed:
    """Feeds the windows of a stream, `batch` at once, and gives what belongs to their scored positions. Where
    memory runs out the batch is halved; it stays so."""

    def __init__(self, lm: CausalModel, stream: Stream, batch: int, *, plain: bool = False) -> None:
        self.lm, self.stream, self.batch, self.plain = lm, stream, batch, plain

    def rows(self) -> Iterator[tuple[int, torch.Tensor]]:
        """(the first window of a batch, (n, h) states of its scored positions); of a `plain` feed (n, v)
        logits by the model's own forward pass."""
        at = 0
        while at < len(self.stream):
            count = min(self.batch, len(self.stream) - at)
            try:
                found = self._fed(at, count)
            except (RuntimeError, MemoryError) as error:
                if not memory.ran_out(error):
                    raise
                if count == 1:
                    raise memory.TooLongError(len(self.stream.window(at))) from error
                found = None
            if found is None:
                self.batch = max(1, count // 2)
                memory.free()
                continue
            yield at, found
            at += count

    def _fed(self, at: int, count: int) -> torch.Tensor:
        import torch

        windows = [self.stream.window(number)[:-1] for number in range(at, at + count)]
        tokens = np.zeros((count, max(map(len, windows))), np.int64)
        for row, window in zip(tokens, windows, strict=True):
            row[: len(window)] = window
        with torch.no_grad():
            fed = on_device(tokens, self.lm.device)
            out = self.lm.plain(fed) if self.plain else self.lm.hidden(fed)
        first = self.stream.first[at : at + count].tolist()
        parts = [
            out[row, start - 1 : len(window)]
            for row, (start, window) in enumerate(zip(first, windows, strict=True))
        ]
        return torch.cat(parts)


def compared(
    stream: Stream,
    first: Callable[[int, int], torch.Tensor],
    second: Iterator[tuple[int, torch.Tensor]],
    heads: tuple[Callable[[torch.Tensor], torch.Tensor], Callable[[torch.Tensor], torch.Tensor]],
    vocabulary: int,
    *,
    clamp: bool = False,
    told: Callable[[int], None] = lambda _: None,
) -> Positions:
    """The positions of a stream: `first` gives the baseline's states from one position to another, `second`
    the variant's batch by batch, `heads` turn either into logits, of which `vocabulary` columns count. `told`
    hears how many windows are done. Raises QevalError where a number is not finite."""
    import torch

    targets = stream.tokens[stream.scored()]
    parts: list[Compared] = []
    at = 0
    for window, states in second:
        step = max(1, ELEMENTS.get(states.device.type, 2**24) // vocabulary)
        for some in states.split(step):
            logits_p, logits_q = (
                head(part)[:, :vocabulary]
                for head, part in zip(heads, (first(at, at + len(some)), some), strict=True)
            )
            wanted = on_device(targets[at : at + len(some)], states.device)
            with torch.no_grad():
                parts.append(compare(logits_p.to(states.device), logits_q, wanted, clamp=clamp))
            at += len(some)
        told(window)
    return _collected(parts, stream)


def _collected(parts: list[Compared], stream: Stream) -> Positions:
    import torch

    columns = {}
    for one in fields(Positions):
        values = torch.cat([getattr(part, one.name) for part in parts]).cpu().numpy()
        columns[one.name] = values.astype(_TYPES.get(one.name, np.float32))
        if not np.isfinite(values).all():
            place = int(np.flatnonzero(~np.isfinite(values))[0])
            window = int(np.searchsorted(np.cumsum(stream.counts), place, side="right"))
            raise QevalError(
                f"The logits are not finite at position {place} of the stream, in window {window}.",
                "Load the model in bfloat16 or float32, or look for damaged weights.",
            )
    return Positions(**columns)
