"""The baseline's head inputs: made once for a protocol, proved on the first window, stored, and opened
again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qeval.base import numbers
from qeval.base.errors import QevalError
from qeval.base.fidelity import Stream
from qeval.base.files import write_atomic
from qeval.score.engine.body import CausalModel, on_device
from qeval.score.engine.memory import longest_checked
from qeval.score.fidelity.divergence import compare
from qeval.score.fidelity.heads import WEIGHT, Head, Replayed, head_of
from qeval.score.fidelity.passes import Feed, usual_batch
from qeval.store import inputs
from qeval.store.inputs import Kept
from qeval.store.positions import stream_to_parquet

if TYPE_CHECKING:
    import torch

_ROWS = 64
"""Rows of logits that a proof holds at once beside the model's own."""


@dataclass(frozen=True)
class Place:
    """Where inputs are kept: the cache and the most bytes there, the entry's key, and how many tokens the
    tokenizer knows: logits beyond them are padded rows."""

    cache_dir: Path
    limit: int
    key: str
    known: int


def fitting(stream: Stream, width: int, size: int, limit: int) -> Stream:
    """As much of a stream as a limit has room for, in whole windows: `size` bytes a number, `width` a state.

    Raises QevalError where that is not one window.
    """
    ends = np.cumsum(stream.counts) * width * size
    count = int(np.searchsorted(ends, limit, side="right"))
    if count == 0:
        raise QevalError(
            f"--fidelity-cache-limit allows {numbers.in_bytes(limit)}, and one window takes"
            f" {numbers.in_bytes(int(ends[0]))}.",
            "Allow more, or choose a protocol with shorter windows.",
        )
    return stream.beginning(count)


def make(lm: CausalModel, stream: Stream, place: Place, told: Callable[[int], None]) -> Kept:
    """Store what enters the head of the baseline, after it was proved on the first window that the stored
    head makes the model's own logits of it. Raises QevalError where it does not, and where there is no
    room."""
    head = head_of(lm)
    vocabulary = min(head.tensors[WEIGHT].shape[0], lm.vocabulary, place.known)
    replayed = Replayed(head, lm)
    checked = proved(lm, stream, replayed.logits, vocabulary)
    batch = usual_batch(lm, stream)
    inputs.make_room(place.cache_dir, size_of(stream, head, lm), place.limit)

    def build(folder: Path) -> Kept:
        dtype, width, fed, begin = _write_states(lm, stream, batch, folder / inputs.STATES, told)
        _write_head(head, folder / inputs.HEAD)
        write_atomic(folder / inputs.STREAM, stream_to_parquet(stream))
        return Kept(
            key=place.key,
            stream=stream.sha256,
            positions=stream.n,
            windows=len(stream),
            width=width,
            dtype=dtype,
            batch=fed,
            vocabulary=vocabulary,
            cut=lm.vocabulary - vocabulary,
            checked=checked,
            proof=_likely(replayed, begin, stream, vocabulary),
            architecture=head.architecture,
            config=head.config,
        )

    return inputs.keep(place.cache_dir, place.key, build)


def size_of(stream: Stream, head: Head, lm: CausalModel) -> int:
    """The bytes that an entry takes, nearly."""
    weights = sum(tensor.numel() * tensor.element_size() for tensor in head.tensors.values())
    width = head.tensors[WEIGHT].shape[1]
    return int(stream.n * width * lm.dtype.itemsize + weights + 8 * len(stream.tokens))


def proved(
    lm: CausalModel, stream: Stream, logits_of: Callable[[torch.Tensor], torch.Tensor], vocabulary: int
) -> float:
    """The mean divergence, over the first window, of the logits that a head makes of the states that enter it
    from the model's own. Raises QevalError where it is more than rounding explains."""
    import torch

    tokens = stream.window(0)[:-1][: max(2, longest_checked(lm))]
    fed = on_device(tokens[None].astype(np.int64), lm.device)
    total = torch.zeros((), dtype=torch.float64, device=lm.device)
    with torch.no_grad():
        own, states = lm.plain(fed)[0], lm.hidden(fed)[0]
        for logits, some in zip(own.split(_ROWS), states.split(_ROWS), strict=True):
            made = logits_of(some.to(lm.device))[:, :vocabulary]
            target = torch.zeros(len(made), dtype=torch.int64, device=made.device)
            total += compare(logits[:, :vocabulary].to(made.device), made, target).kl.sum()
    mean = float(total) / len(tokens)
    allowed = 1e-9 + (8 * torch.finfo(own.dtype).eps) ** 2
    if not mean <= allowed:
        raise QevalError(
            f"The head of {type(lm.model).__name__}, by itself, does not make the model's own logits of the"
            f" states that enter it: they are {mean:.3g} nats apart.",
            "Fidelity cannot be measured for this model; leave out --fidelity.",
        )
    return mean


def _write_states(
    lm: CausalModel, stream: Stream, batch: int, file: Path, told: Callable[[int], None]
) -> tuple[str, int, int, torch.Tensor]:
    """Write the states as they come; their type and width, the batch that they were fed in at last, and the
    first states."""
    import torch

    feed, dtype, width, begin = Feed(lm, stream, batch), "", 0, torch.empty(0)
    with file.open("wb") as out:
        for window, states in feed.rows():
            dtype, width = str(states.dtype).removeprefix("torch."), int(states.shape[1])
            out.write(states.contiguous().cpu().view(torch.uint8).numpy())
            begin = states[:_ROWS].clone() if window == 0 else begin
            told(window)
    return dtype, width, feed.batch, begin


def _likely(head: Replayed, states: torch.Tensor, stream: Stream, vocabulary: int) -> tuple[float, ...]:
    """The log-probabilities of the first scored tokens, by a replayed head."""
    import torch

    targets = on_device(stream.tokens[stream.scored()[: len(states)]], states.device)
    with torch.no_grad():
        logits = head.logits(states)[:, :vocabulary]
        return tuple(compare(logits, logits, targets).log_p.tolist())


def _write_head(head: Head, file: Path) -> None:
    from safetensors.torch import save_file

    seen: dict[str, Any] = {name: tensor.detach().cpu().contiguous() for name, tensor in head.tensors.items()}
    save_file({name: tensor.clone() for name, tensor in seen.items()}, file)


class Opened:
    """Stored head inputs, ready to be replayed on a model's device."""

    def __init__(self, cache_dir: Path, kept: Kept, lm: CausalModel) -> None:
        import torch
        from safetensors.torch import load_file

        folder = inputs.folder_of(cache_dir, kept.key)
        self.kept, self.device = kept, lm.device
        dtype = getattr(torch, kept.dtype)
        flat = torch.from_file(
            str(folder / inputs.STATES), shared=False, size=kept.positions * kept.width, dtype=dtype
        )
        self.all = flat.view(kept.positions, kept.width)
        head = Head(load_file(folder / inputs.HEAD), kept.architecture, kept.config)
        self.head = Replayed(head, lm)
        self.stream = inputs.stream_of(cache_dir, kept)
        self._check()

    def _check(self) -> None:
        """Raise QevalError where the first positions are not what they were where the inputs were made."""
        import torch

        found = _likely(
            self.head, self.states(0, min(_ROWS, len(self.all))), self.stream, self.kept.vocabulary
        )
        apart = max(abs(one - two) for one, two in zip(found, self.kept.proof, strict=True))
        if not apart <= _ROWS * torch.finfo(self.all.dtype).eps:
            raise QevalError(
                f"The baseline's head, replayed here, gives its tokens other probabilities ({apart:.3g} nats)"
                " than where its inputs were stored.",
                "Run the same command on one kind of device.",
            )

    def states(self, low: int, high: int) -> torch.Tensor:
        """The states of positions from `low` to `high`, on the device."""
        return self.all[low:high].to(self.device)

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """The baseline's logits."""
        import torch

        with torch.no_grad():
            return self.head.logits(states)


def beginning(stream: Stream, tokens: int) -> Stream:
    """The first windows of a stream that hold no more than so many tokens, one at least."""
    count = int(np.searchsorted(stream.ends, tokens, side="right"))
    return replace(stream.beginning(max(1, count)), available=stream.available)
