"""Requests as rectangular batches, for the engine's rungs below the tree. Pure numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from qeval.score.engine.requests import TokenRequest

Row = tuple[bytes, list[int]]  # the fed tokens as big-endian bytes, and the requests that share them


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Rows for one forward pass, right-padded with token 0, after a prefix that all of them share.

    prefix: (p,) int32, p = 0 where nothing is shared. tokens: (b, t) int32. n_tokens: real tokens fed,
    prefix included, padding not. rows: (r,) int64, indices into the flattened (b * t) places that are
    scored. `requests`, `offsets`, `picks` and `targets` are as in `qeval.score.engine.tree.Chunk`.
    """

    prefix: NDArray[np.int32]
    tokens: NDArray[np.int32]
    n_tokens: int
    rows: NDArray[np.int64]
    requests: NDArray[np.int64]
    offsets: NDArray[np.int64]
    picks: NDArray[np.int64]
    targets: NDArray[np.int32]


def plain_batches(requests: Sequence[TokenRequest], size: int) -> Iterator[Batch]:
    """Batches of at most `size` whole sequences, longest first: the composition of lm-eval's HFLM.

    Requests that feed the same tokens share a row, as there.
    """
    rows = _rows([(i, r.tokens[:-1]) for i, r in enumerate(requests)])
    for begin in range(0, len(rows), size):
        yield _batch(requests, rows[begin : begin + size], b"")


def context_batches(requests: Sequence[TokenRequest], size: int) -> Iterator[Batch]:
    """Batches of at most `size` continuations of one context, whose tokens but the last are the prefix.

    A context with a single continuation gains nothing from being a prefix: those come first, as plain
    batches.
    """
    groups: dict[bytes, list[int]] = {}
    for i, r in enumerate(requests):
        groups.setdefault(_key(r.tokens[: len(r.tokens) - 1 - r.n_scored]), []).append(i)
    shared = {prefix: _rows(_ends(requests, members)) for prefix, members in sorted(groups.items())}
    alone = [i for prefix, rows in shared.items() if len(rows) == 1 or not prefix for i in groups[prefix]]
    yield from _renumbered(requests, sorted(alone), size)
    for prefix, rows in shared.items():
        if len(rows) > 1 and prefix:
            for begin in range(0, len(rows), size):
                yield _batch(requests, rows[begin : begin + size], prefix)


def _ends(requests: Sequence[TokenRequest], members: list[int]) -> list[tuple[int, NDArray[np.int32]]]:
    """What follows the prefix in each member: the context's last token and the continuation but its last."""
    return [(i, requests[i].tokens[-1 - requests[i].n_scored : -1]) for i in members]


def _renumbered(requests: Sequence[TokenRequest], chosen: list[int], size: int) -> Iterator[Batch]:
    """Plain batches of some of the requests, whose indices stay those of the whole list."""
    rows = _rows([(i, requests[i].tokens[:-1]) for i in chosen])
    for begin in range(0, len(rows), size):
        yield _batch(requests, rows[begin : begin + size], b"")


def _key(tokens: NDArray[np.int32]) -> bytes:
    """Bytes that sort like the tokens."""
    return tokens.astype(">u4").tobytes()


def _rows(fed: list[tuple[int, NDArray[np.int32]]]) -> list[Row]:
    """Distinct fed sequences, longest first, each with the indices that share it."""
    shared: dict[bytes, list[int]] = {}
    for i, tokens in fed:
        shared.setdefault(_key(tokens), []).append(i)
    return sorted(shared.items(), key=lambda row: (-len(row[0]), row[0]))


def _batch(requests: Sequence[TokenRequest], rows: list[Row], prefix: bytes) -> Batch:
    """The rows as one rectangle."""
    fed = [np.frombuffer(key, ">u4").astype(np.int32) for key, _ in rows]
    width = max(len(f) for f in fed)
    tokens = np.zeros((len(fed), width), np.int32)
    for b, f in enumerate(fed):
        tokens[b, : len(f)] = f
    stops = [b * width + len(f) for b, f in enumerate(fed)]
    members = [(i, stop) for stop, (_, who) in zip(stops, rows, strict=True) for i in who]
    scored = [requests[i].n_scored for i, _ in members]
    places = np.concatenate([np.arange(stop - n, stop) for (_, stop), n in zip(members, scored, strict=True)])
    picked, picks = np.unique(places, return_inverse=True)
    return Batch(
        prefix=np.frombuffer(prefix, ">u4").astype(np.int32),
        tokens=tokens,
        n_tokens=len(prefix) // 4 + sum(len(f) for f in fed),
        rows=picked,
        requests=np.array([i for i, _ in members], np.int64),
        offsets=np.concatenate([[0], np.cumsum(scored)]),
        picks=picks.astype(np.int64),
        targets=np.concatenate(
            [requests[i].tokens[-n:] for (i, _), n in zip(members, scored, strict=True)]
        ).astype(np.int32),
    )
