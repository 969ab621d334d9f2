"""Shards shared out among workers: whoever takes one first scores it, and the one that leads reads it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from qeval.base.errors import QevalError
from qeval.score.engine import shards
from qeval.score.engine.body import NonFiniteError
from qeval.score.engine.requests import Answer
from qeval.store.shards import TRIES, Answered

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from qeval.score.engine.engine import Engine
    from qeval.score.engine.requests import TokenRequest
    from qeval.score.engine.shards import Pass, Scored
    from qeval.store.shards import Shards

_LOOK_SECONDS = 0.02


class GivenUpError(QevalError):
    """A shard killed too many workers. `requests` are those of it that are wanted."""

    def __init__(self, requests: NDArray[np.int64]) -> None:
        super().__init__(f"{len(requests)} requests killed {TRIES} workers and were given up.")
        self.requests = requests


class _Part(NamedTuple):
    """A shard of the list: its number and its name; `members` are its requests, `wanted` those asked for."""

    number: int
    name: str
    passes: Sequence[Pass]
    members: NDArray[np.int64]
    wanted: NDArray[np.int64]


class _Begun(NamedTuple):
    """A shard that the device is at, or has finished, and the tokens that it feeds."""

    part: _Part
    scored: list[Scored]
    tokens: int


def score(
    engine: Engine, requests: Sequence[TokenRequest], want: NDArray[np.bool_], book: Shards
) -> Iterator[tuple[int, Answer]]:
    """As Engine.score, with what others finished read from the book, and what is finished here kept there.

    Whoever helps leaves what others are at; whoever leads waits for them, and takes over what a dead worker
    left. Raises GivenUpError at the end, and QevalError where a request was answered never or twice.
    """
    counts = np.zeros(len(requests), np.int64)
    sharing = _Sharing(engine, requests, want, book)
    try:
        for index, answer in sharing.answers():
            counts[index] += 1
            yield index, answer
    finally:
        book.close()
    if sharing.lost:
        raise GivenUpError(np.concatenate([part.wanted for part in sharing.lost]))
    wrong = np.flatnonzero(want & (counts != 1))
    if len(wrong) and not book.helps:
        raise QevalError(
            f"Shards do not add up: {len(wrong)} requests were answered never or more than once.",
            f"Delete {book.folder} and run the same command again.",
        )


class _Sharing:
    """One list of requests, being shared."""

    def __init__(
        self, engine: Engine, requests: Sequence[TokenRequest], want: NDArray[np.bool_], book: Shards
    ) -> None:
        self.engine, self.requests, self.want, self.book = engine, requests, want, book
        self.lost: list[_Part] = []
        self.busy: list[_Part] = []
        self.begun: _Begun | None = None

    def answers(self) -> Iterator[tuple[int, Answer]]:
        parts = [part for part in self._parts() if len(part.wanted)]
        for part in reversed(parts) if self.book.helps else parts:
            yield from self._visit(part)
        yield from self._end()
        while self.busy and not self.book.helps:
            left, self.busy = self.busy, []
            for part in left:
                yield from self._visit(part)
                yield from self._end()
            time.sleep(_LOOK_SECONDS if self.busy else 0)

    def _parts(self) -> Iterator[_Part]:
        cut = shards.cut(self.engine.passes(self.requests, self.engine.size()))
        for number, passes in enumerate(cut):
            members = shards.members(passes)
            name = shards.name([self.requests[i] for i in members])
            yield _Part(number, name, passes, members, members[self.want[members]])

    def _visit(self, part: _Part) -> Iterator[tuple[int, Answer]]:
        """The answers of a shard that is finished, and of the one before, once this one is under way."""
        if (found := self._found(part)) is not None:
            yield from self._taken(part, found)
            return
        if not self.book.take(part.number):
            self.busy.append(part)
            return
        if (found := self._found(part)) is not None:  # finished in between
            self.book.leave(part.number)
            yield from self._taken(part, found)
            return
        suspect = self.book.is_suspect(part.number)
        if suspect:  # it is scored alone, lest what is begun beside it die, and be counted, with it
            yield from self._end()
        if not self.book.begin(part.number):
            self.lost.append(part)
            return
        before, tokens = self.begun, self.engine.tokens_fed
        try:
            scored = self.engine.whole(self.requests, part.passes, self.want)
        except Exception:
            self.book.leave(part.number)  # an error, and no death
            raise
        self.begun = _Begun(part, scored, self.engine.tokens_fed - tokens)
        if before is not None:
            yield from self._finish(before)
        if suspect:
            yield from self._end()

    def _end(self) -> Iterator[tuple[int, Answer]]:
        begun, self.begun = self.begun, None
        if begun is not None:
            yield from self._finish(begun)

    def _finish(self, begun: _Begun) -> Iterator[tuple[int, Answer]]:
        """Fetch the answers of a shard, keep them for others, and yield them."""
        number = begun.part.number
        try:
            found = [self._summed(*one) for one in shards.fetched(begun.scored, self.want)]
            if found or len(begun.part.wanted):
                self.book.write(number, self._packed(begun, found))
        finally:
            self.book.leave(number)
        yield from found

    @staticmethod
    def _summed(index: int, values: NDArray[np.float32], greedy: bool) -> tuple[int, Answer]:
        if not np.isfinite(values).all():
            raise NonFiniteError(index)
        return index, Answer(float(values.sum(dtype=np.float64)), greedy)

    def _packed(self, begun: _Begun, found: Sequence[tuple[int, Answer]]) -> Answered:
        return Answered(
            begun.part.name,
            min(self.engine.smaller.get(begun.part.name, self.engine.size()), self.engine.size()),
            begun.tokens,
            np.array([index for index, _ in found], np.int64).tobytes(),
            np.array([answer.loglikelihood for _, answer in found], np.float64).tobytes(),
            np.array([answer.greedy for _, answer in found], np.uint8).tobytes(),
        )

    def _found(self, part: _Part) -> Answered | None:
        """What the book has of a shard, if that is all that is wanted."""
        found = self.book.read(part.number, part.name)
        if found is None:
            return None
        held = np.frombuffer(found.requests, np.int64)
        return found if np.isin(part.wanted, held).all() else None

    def _taken(self, part: _Part, found: Answered) -> Iterator[tuple[int, Answer]]:
        """The answers that another worker, or an earlier one, found."""
        if self.book.helps:
            return
        if found.size < self.engine.size() and self.engine.smaller.get(part.name) != found.size:
            self.engine.smaller[part.name] = found.size
            self.engine.on_smaller(part.name, found.size, part.members)
        self.engine.tokens_fed += found.tokens
        values = np.frombuffer(found.log_likelihoods, np.float64).tolist()
        for index, value, best in zip(
            np.frombuffer(found.requests, np.int64).tolist(), values, found.greedy, strict=True
        ):
            if self.want[index]:
                self.engine.on_taken(1)
                yield index, Answer(value, bool(best))
