"""Which requests of a run are scored by each path first: those at which a path could go wrong. Pure numpy.

A wrong mask or a lost position shows in one of a few shapes: the shortest request and the longest, one that
is longer than a window that the model may have, a long context that is shared, or one that many share.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qeval.score.engine.requests import TokenRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

_WINDOWS = ("window", "chunk_size", "local_attention")
"""What the names of windows hold in the configurations of transformers."""


@dataclass(frozen=True)
class Shape:
    """How far requests go: the longest one, the longest context that several share, and how many share one.

    Lengths in tokens; a context ends where scoring begins.
    """

    longest: int = 0
    shared: int = 0
    branches: int = 1

    def within(self, other: Shape) -> bool:
        """Whether nothing goes further than in the other."""
        return (
            self.longest <= other.longest and self.shared <= other.shared and self.branches <= other.branches
        )

    def and_(self, other: Shape) -> Shape:
        """The farthest of both."""
        return Shape(
            max(self.longest, other.longest),
            max(self.shared, other.shared),
            max(self.branches, other.branches),
        )


def shape(requests: Sequence[TokenRequest], longest: int | None = None) -> Shape:
    """The shape of requests, of those of at most `longest` tokens alone where that is given."""
    kept = [one for one in requests if longest is None or len(one.tokens) <= longest]
    groups = [group for group in _groups(kept) if len(group) > 1]
    return Shape(
        max((len(one.tokens) for one in kept), default=0),
        max((_context(kept[group[0]]) for group in groups), default=0),
        max(map(len, groups), default=1),
    )


def proved(checked: Sequence[TokenRequest], sample: Sequence[TokenRequest]) -> Shape:
    """How far the requests of a sample go for which those stand that were `checked`: several that share a
    context stand for all that share it, however many they are; `choose` takes a few."""
    stand = [group for group in _groups(checked) if len(group) > 1]
    contexts = {checked[group[0]].tokens[: _context(checked[group[0]])].tobytes() for group in stand}
    lengths = {_context(checked[group[0]]) for group in stand}
    sharing = (one.tokens[: _context(one)].tobytes() for one in sample if _context(one) in lengths)
    most = max(Counter(context for context in sharing if context in contexts).values(), default=1)
    return shape(checked).and_(Shape(branches=most))


def windows(model: Any) -> list[int]:
    """How far back some layer may look, in tokens, as the configuration's numbers and square buffers tell."""
    config = getattr(model, "config", None)
    if config is not None and hasattr(config, "get_text_config"):
        config = config.get_text_config()
    found = {
        value
        for name, value in getattr(config, "__dict__", {}).items()
        if any(word in name for word in _WINDOWS) and isinstance(value, int) and value > 1
    }
    for _, buffer in model.named_buffers():
        if buffer.ndim > 1 and buffer.shape[-1] == buffer.shape[-2] and buffer.shape[-1] > 1:
            found.add(int(buffer.shape[-1]))
    return sorted(found)


def choose(
    sample: Sequence[TokenRequest], most_tokens: int, beyond: Iterable[int] = (), longest: int | None = None
) -> tuple[list[TokenRequest], int]:
    """The requests to check by, and how many of them, the first ones, make a small sample.

    The small sample holds neighbours of middling length (the choices of a question, most likely) and the
    shortest request, of at most `most_tokens` together, and some built to be difficult. Then come, whatever
    their length: two of the longest shared context and three of the most shared one; the shortest request
    beyond each of the windows `beyond`; the longest of all of at most `longest` tokens.
    """
    if not len(sample):
        return [], 0
    lengths = np.array([len(r.tokens) for r in sample])
    small = _small(lengths, most_tokens)
    real = [sample[i] for i in small]
    few = [*real, *_difficult(real[0].tokens)]
    far = [i for i in _far(sample, lengths, beyond, longest) if i not in small]
    return [*few, *(sample[i] for i in dict.fromkeys(far))], len(few)


def _small(lengths: NDArray[np.int64], most_tokens: int) -> list[int]:
    short = np.flatnonzero(lengths <= max(most_tokens // 4, int(lengths.min())))
    middle = int(short[np.argsort(lengths[short], kind="stable")[len(short) // 2]])
    chosen: list[int] = []
    for i in (middle, middle - 1, middle + 1, middle + 2, int(lengths.argmin())):
        if 0 <= i < len(lengths) and i not in chosen and lengths[[*chosen, i]].sum() <= most_tokens:
            chosen.append(i)
    return chosen or [middle]


def _far(
    sample: Sequence[TokenRequest], lengths: NDArray[np.int64], beyond: Iterable[int], longest: int | None
) -> Iterator[int]:
    """The places of the requests that go farthest in some way."""
    allowed = np.flatnonzero(lengths <= longest) if longest is not None else np.arange(len(sample))
    near = [sample[int(i)] for i in allowed]
    shared = [group for group in _groups(near) if len(group) > 1]
    if shared:
        for i in (
            *max(shared, key=lambda group: (_context(near[group[0]]), len(group)))[:2],
            *max(shared, key=lambda group: (len(group), _context(near[group[0]])))[:3],
        ):
            yield int(allowed[i])
    for window in beyond:
        past = allowed[lengths[allowed] > window + 1]
        if len(past):
            yield int(past[lengths[past].argmin()])
    if len(allowed):
        yield int(allowed[lengths[allowed].argmax()])


def _groups(requests: Sequence[TokenRequest]) -> list[list[int]]:
    """The places of the requests that share a context, by context."""
    found: dict[bytes, list[int]] = defaultdict(list)
    for i, one in enumerate(requests):
        found[one.tokens[: _context(one)].tobytes()].append(i)
    return [group for context, group in found.items() if context]


def _context(request: TokenRequest) -> int:
    """The tokens before the first that is scored."""
    return len(request.tokens) - request.n_scored


def _difficult(tokens: NDArray[np.int32]) -> Iterator[TokenRequest]:
    """Requests that branch at several depths, with every token scored, made of a real sequence."""
    stem = np.resize(tokens, 40).astype(np.int32)
    tail = stem[::-1]
    for depth in (1, 9, 17, 33):
        for n in (7, 3):
            branch = np.concatenate([stem[:depth], tail[depth % 5 : depth % 5 + n]])
            yield TokenRequest(branch, len(branch) - 1)
    yield TokenRequest(stem, len(stem) - 1)
