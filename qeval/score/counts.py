"""Counting what a job's questions have a model calculate, before there is one: no torch, no weights."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from qeval.base.packing import Packing
from qeval.base.work import Counted, Work
from qeval.score.engine import batches, memory, sample, tree
from qeval.score.engine.tiles import TILE
from qeval.score.verify import Proof

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qeval.score.engine.requests import TokenRequest
    from qeval.score.harness.prepared import PreparedTask

MAX_GEN_TOKS = 256
"""The longest text of a task that sets no length, as in lm-eval."""


def counted(
    prepared: Sequence[PreparedTask],
    packing: Packing,
    *,
    wanted: Collection[str] | None = None,
    verify: Proof | None = None,
    vocabulary: int = 1,
) -> Counted:
    """What the tasks have a model calculate that is fed by `packing`; of the `wanted` leaf tasks alone (None:
    of all), though all of a unit shape its chunks. `verify` knows the documents that lm-eval scores too."""
    rows = {}
    for name, unit in groupby(prepared, key=lambda part: part.task.group or part.task.name):
        parts = list(unit)
        some = [wanted is None or part.task.name in wanted for part in parts]
        if any(some):
            rows[name] = _unit(parts, some, packing)
    asked = [request for part in prepared if not part.generates for request in part.requests]
    checked, few = _checked(asked, on_gpu=not packing.threads, vocabulary=vocabulary)
    verified = [part for part in prepared if verify is not None and verify.concerns(part)]
    proofs = [verify.documents[part.task.name] for part in verified] if verify is not None else []
    given = [one for part, some in zip(verified, proofs, strict=True) for one in _of_documents(part, some)]
    batched, tree_ = _batched(checked[:few], packing.batch_size), _packed(checked, packing)
    return Counted(rows, one_by_one(checked), one_by_one(given), batched, tree_)


def _unit(parts: Sequence[PreparedTask], wanted: Sequence[bool], packing: Packing) -> Work:
    """Tasks that are packed together; where only some are wanted, their share of the requests."""
    packed = [part for part in parts if not part.generates]
    requests = [request for part in packed for request in part.requests]
    found = _packed(requests, packing)
    if not all(wanted):
        kept = {part.task.name for part, want in zip(parts, wanted, strict=True) if want}
        few = sum(len(part.requests) for part in packed if part.task.name in kept)
        found = _share(found, few / max(len(requests), 1))
    for part, want in zip(parts, wanted, strict=True):
        if part.generates and want:
            found = found.and_(_written(part))
    return found


def _share(work: Work, share: float) -> Work:
    names = ("requests", "tokens", "fed", "seen", "scored")
    return Work(**{name: round(share * getattr(work, name)) for name in names})


def _packed(requests: Sequence[TokenRequest], packing: Packing) -> Work:
    """The token tree of requests in chunks. On a GPU each chunk is filled up to the budget."""
    if not requests:
        return Work()
    on_gpu = not packing.threads
    overhead = packing.budget if on_gpu else memory.PASS_OVERHEAD
    laid = tree.pack(requests, packing.budget, overhead)
    lengths = np.array([len(requests[i].tokens) - 1 for i in laid.order], np.int64)
    shared = laid.shared.copy()
    shared[laid.cuts[:-1]] = 0
    scored = np.array([requests[i].n_scored for i in laid.order], np.int64)
    fed = int(np.maximum(laid.sizes, packing.budget).sum()) if on_gpu else int(laid.sizes.sum())
    return Work(
        requests=len(requests),
        tokens=sum(len(request.tokens) for request in requests),
        fed=fed,
        seen=int(_pairs(lengths).sum() - _pairs(shared).sum())
        if on_gpu
        else _tiled(lengths - shared, shared, laid.sizes),
        scored=int(np.minimum(scored, lengths - shared).sum()),
    )


def _tiled(new: NDArray[np.int64], shared: NDArray[np.int64], sizes: NDArray[np.int64]) -> int:
    """Pairs of tokens that a CPU's tiles multiply: each of a tile's with all before its first and with the
    tile's own. `new` are the tokens that each request adds to those that it has `shared` of its chunk."""
    starts, ends = np.cumsum(new) - new, np.cumsum(sizes)
    tiles = [np.arange(end - size, end, TILE) for end, size in zip(ends, sizes, strict=True)]
    begins = np.concatenate(tiles)
    queries = np.concatenate([np.minimum(TILE, end - some) for end, some in zip(ends, tiles, strict=True)])
    owners = np.searchsorted(starts, begins, side="right") - 1
    depths = shared[owners] + begins - starts[owners]
    return int((queries * (depths + queries)).sum())


def _batched(requests: Sequence[TokenRequest], size: int) -> Work:
    """Requests in plain batches, filled up to the longest, the head at every place; a request each."""
    found = Work()
    for batch in batches.plain_batches(requests, size):
        rows, length = batch.tokens.shape
        fed = rows * length
        found = found.and_(Work(1, fed, fed, rows * int(_pairs(np.array(length))), fed))
    return found


def _pairs(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pairs of tokens in sequences of such lengths of which the later one sees the earlier, or itself."""
    return lengths * (lengths + 1) // 2


def one_by_one(requests: Iterable[TokenRequest]) -> Work:
    """Requests without the tree, equal beginnings once, the head at every token: as lm-eval feeds them."""
    fed = {request.tokens[:-1].tobytes(): len(request.tokens) - 1 for request in requests}
    lengths = np.array(list(fed.values()), np.int64)
    total = int(lengths.sum()) if len(lengths) else 0
    return Work(len(fed), total, total, int(_pairs(lengths).sum()) if len(lengths) else 0, total)


def _checked(
    requests: Sequence[TokenRequest], *, on_gpu: bool, vocabulary: int
) -> tuple[list[TokenRequest], int]:
    """The requests that the engine is checked by, but for windows that only a loaded model tells, and how
    many of them, the first ones, are scored in batches too."""
    limits = memory.limits_of("cuda" if on_gpu else "cpu", 0, 0, 1)
    longest = memory.LOGITS_BYTES // (4 * max(vocabulary, 1))
    return sample.choose(requests, limits.check_tokens, (), longest)


def _of_documents(part: PreparedTask, documents: Collection[int]) -> Iterable[TokenRequest]:
    spans = part.content.spans
    for at, owner in enumerate(part.content.owner):
        if int(owner) in documents:
            yield from part.requests[int(spans[at]) : int(spans[at + 1])]


def _written(part: PreparedTask) -> Work:
    """Texts that are written, at most: their prompts are taken for a fourth of their characters."""
    prompts, written = 0, 0
    for context, options, *_ in part.content.arguments():
        prompts += len(context) // 4
        written += _most(options, part.options)
    times = part.texts
    return Work(part.n, prompts, prompts, 0, 0, written * times)


def _most(options: Any, asked: Mapping[str, Any]) -> int:
    """The most tokens of a text."""
    told = options.get("max_gen_toks") if isinstance(options, Mapping) else None
    return int(asked.get("max_gen_toks") or told or MAX_GEN_TOKS)
