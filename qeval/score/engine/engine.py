"""The scoring engine: requests in, answers out, by the fastest path that is shown right for the model.

Four rungs: the token tree; contexts shared through the KV cache; plain batches with the head only where a
token is scored; plain batches as lm-eval runs them. A rung is used only after a few real requests, and a few
built to be difficult, came out as they do one by one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from qeval.score.engine import attention, batches, memory, reach, selfcheck, tree
from qeval.score.engine.body import CausalModel, NonFiniteError, UnsupportedError, log_probs, on_device
from qeval.score.engine.requests import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch
    from numpy.typing import NDArray

    from qeval.score.engine.attention import Layout
    from qeval.score.engine.batches import Batch
    from qeval.score.engine.requests import TokenRequest

Path = Literal["tree", "kv", "head", "plain"]
PATHS: tuple[Path, ...] = ("tree", "kv", "head", "plain")


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


class Engine:
    """Scores requests with one model along one path.

    path: the rung in use. note: a sentence on why, for the run's record. failures: a sentence, without its
    full stop, on each faster path that failed as none should. budget: tokens per chunk of the
    tree. batch_size: sequences per batch on the other rungs. tokens_fed: tokens that went through the
    model so far, without padding; tokens_padded: with it.
    """

    def __init__(self, lm: CausalModel, path: Path, layout: Layout | None, limits: memory.Limits) -> None:
        self.lm, self.path, self.layout = lm, path, layout
        self.budget, self.batch_size = limits.budget, limits.batch_size
        self.note = ""
        self.failures: tuple[str, ...] = ()
        self.tokens_fed = self.tokens_padded = 0

    def score(
        self, requests: Sequence[TokenRequest], wanted: NDArray[np.bool_] | None = None
    ) -> Iterator[tuple[int, Answer]]:
        """Yield (index, answer) of every wanted request, as forward passes finish.

        All requests shape the passes, so that numbers do not depend on which of them are `wanted` (None:
        all); a pass of which nothing is wanted is skipped. Raises NonFiniteError with the index of a
        request whose logits are NaN or infinite.
        """
        for index, values, greedy in self.log_probs(requests, wanted):
            if not np.isfinite(values).all():
                raise NonFiniteError(index)
            yield index, Answer(float(values.sum(dtype=np.float64)), greedy)

    def log_probs(
        self, requests: Sequence[TokenRequest], wanted: NDArray[np.bool_] | None = None
    ) -> Iterator[tuple[int, NDArray[np.float32], bool]]:
        """Like `score`, but yields each scored token's log-probability (n_scored,) in nats, unchecked."""
        want = np.ones(len(requests), bool) if wanted is None else np.asarray(wanted, bool)
        waiting: Scored | None = None
        # One pass stays in flight while the next is prepared, so that a GPU does not wait for Python.
        for scored in self._passes(requests, want):
            if waiting is not None:
                yield from (answer for answer in waiting.fetch() if want[answer[0]])
            waiting = scored
        if waiting is not None:
            yield from (answer for answer in waiting.fetch() if want[answer[0]])

    def _passes(self, requests: Sequence[TokenRequest], want: NDArray[np.bool_]) -> Iterator[Scored]:
        """Run forward passes until every wanted request is scored."""
        everyone = np.arange(len(requests))
        if self.path == "tree":
            for members in reach.apart(self.lm.config, requests):
                yield from self._tree(requests, members, want)
        else:
            make = batches.context_batches if self.path == "kv" else batches.plain_batches
            run = {"kv": self._after_context, "head": self._head_only, "plain": self._plain}[self.path]
            yield from self._batched(make, run, requests, everyone, want)

    # --- the tree

    def _tree(
        self, requests: Sequence[TokenRequest], members: NDArray[np.int64], want: NDArray[np.bool_]
    ) -> Iterator[Scored]:
        """Score some of the requests by chunks; a chunk that does not fit is cut with half the budget."""
        packing = self._packed([requests[i] for i in members])
        for c in range(len(packing)):
            who = members[packing.members(c)]
            if not want[who].any():
                continue
            one_path = packing.sizes[c] == max(len(requests[i].tokens) - 1 for i in who)
            scored = None
            if one_path or packing.sizes[c] <= self.budget:
                scored = self._if_it_fits(partial(self._chunk, packing, c))
            if scored is not None:
                yield scored.renamed(members)
            elif one_path:
                raise memory.too_long(int(packing.sizes[c]))
            else:
                yield from self._tree(requests, who, want)

    def _packed(self, requests: Sequence[TokenRequest]) -> tree.Packing:
        """The tree of requests, cut for this engine's budget and padding."""
        assert self.layout is not None  # noqa: S101  # the tree path has one
        padded = self.layout.padded(1, self.budget) > 1
        return tree.pack(requests, self.budget, self.budget if padded else memory.PASS_OVERHEAD)

    def _chunk(self, packing: tree.Packing, c: int) -> Scored:
        """One forward pass over chunk c."""
        import torch

        assert self.layout is not None  # noqa: S101  # the tree path has one
        lm, n = self.lm, int(packing.sizes[c])
        chunk = tree.padded(packing.chunk(c), self.layout.padded(n, self.budget))
        with torch.no_grad(), attention.using(lm.model, self.layout.implementation):
            hidden = lm.hidden(
                on_device(chunk.tokens, lm.device)[None],
                position_ids=on_device(chunk.positions, lm.device)[None],
                attention_mask=self.layout.masks(chunk),
            )[0]
        scored = self._scored(chunk, lambda at: lm.logits(hidden[at.to(hidden.device)]))
        self.tokens_fed += n
        self.tokens_padded += len(chunk.tokens)
        return scored

    def _scored(self, of: tree.Chunk | Batch, logits_of: Callable[[torch.Tensor], torch.Tensor]) -> Scored:
        """The scored tokens of a chunk or batch, given its logits by row."""
        import torch

        with torch.no_grad():
            values, best = log_probs(
                logits_of, self.lm.vocabulary, self.lm.device, of.rows, of.picks, of.targets
            )
        return Scored(of.requests, of.offsets, values, best)

    # --- the rungs below

    def _batched(
        self,
        make: Callable[[Sequence[TokenRequest], int], Iterator[Batch]],
        run: Callable[[Batch], Scored],
        requests: Sequence[TokenRequest],
        members: NDArray[np.int64],
        want: NDArray[np.bool_],
    ) -> Iterator[Scored]:
        """Score some of the requests by batches; one that does not fit in memory is run in halves."""
        for batch in make([requests[i] for i in members], self.batch_size):
            who = members[batch.requests]
            if not want[who].any():
                continue
            scored = None
            if len(batch.tokens) <= self.batch_size:
                scored = self._if_it_fits(partial(run, batch))
            if scored is not None:
                self.tokens_fed += batch.n_tokens
                self.tokens_padded += len(batch.prefix) + batch.tokens.size
                yield scored.renamed(members)
            elif len(batch.tokens) == 1:
                raise memory.too_long(batch.n_tokens)
            else:
                yield from self._batched(make, run, requests, who, want)

    def _after_context(self, batch: Batch) -> Scored:
        """The prefix once, then its continuations over copies of its KV cache."""
        import torch

        lm, n = self.lm, len(batch.prefix)
        if n == 0:
            return self._head_only(batch)
        with torch.no_grad():
            cache = lm.cache(on_device(batch.prefix, lm.device)[None])
            cache.batch_repeat_interleave(len(batch.tokens))
            at = torch.arange(n, n + batch.tokens.shape[1], device=lm.device)
            more = {"position_ids": at[None].expand(len(batch.tokens), -1)}
            if not lm.accepts("position_ids"):
                more = {}
            hidden = lm.hidden(
                on_device(batch.tokens, lm.device), past_key_values=cache, use_cache=True, **more
            )
        return self._rows_of(batch, hidden)

    def _head_only(self, batch: Batch) -> Scored:
        """Whole sequences, the head only at scored tokens."""
        import torch

        with torch.no_grad():
            return self._rows_of(batch, self.lm.hidden(on_device(batch.tokens, self.lm.device)))

    def _rows_of(self, batch: Batch, hidden: torch.Tensor) -> Scored:
        """The scored tokens of a batch from its last hidden states (b, t, h)."""
        flat = hidden.flatten(0, 1)
        return self._scored(batch, lambda at: self.lm.logits(flat[at.to(flat.device)]))

    def _plain(self, batch: Batch) -> Scored:
        """Whole sequences through the whole model."""
        import torch

        with torch.no_grad():
            flat = self.lm.plain(on_device(batch.tokens, self.lm.device)).flatten(0, 1)
        return self._scored(batch, lambda at: flat[at.to(flat.device)])

    # --- memory

    def _if_it_fits(self, run: Callable[[], Scored]) -> Scored | None:
        """The result, or None and half the budget if memory ran out."""
        try:
            return run()
        except (RuntimeError, MemoryError) as error:
            if not memory.ran_out(error):
                raise
        memory.free()
        if self.path == "tree":
            self.budget = max(1, self.budget // 2)
        else:
            self.batch_size = max(1, self.batch_size // 2)
        return None


def open_engine(
    model: Any,
    kind: Path = "tree",
    *,
    sample: Sequence[TokenRequest],
    batch_size: int | None = None,
    budget: int | None = None,
    expected_tokens: int | None = None,
) -> Engine:
    """An engine on the highest rung, from `kind` downwards, whose answers are those of one-by-one scoring.

    `model` is a causal language model of transformers, in evaluation on its device. `sample` holds
    requests of the run (all of them, best); a few are scored by each rung tried. `batch_size` is used by
    the rungs below the tree; with kind="plain" batches are composed as lm-eval composes them, and
    nothing is checked. `budget` is the tokens per chunk. `expected_tokens`, the tokens of all requests of
    the run counted one by one, decides whether compiling pays (None: it does not); give the same number
    to a resumed run.
    """
    lm = CausalModel(model)
    limits = memory.limits(lm, budget, batch_size)
    paths = PATHS[PATHS.index(kind) :]
    candidates = [c for path in paths for c in _candidates(lm, path, limits, expected_tokens)]
    if len(candidates) == 1:
        engine = candidates[0].make()
        engine.note = "Plain batches, as asked."
        return engine
    reference, batched = (Engine(lm, "plain", None, replace(limits, batch_size=size)) for size in (1, 4))
    requests = selfcheck.choose(sample, limits.check_tokens, reach.shortest_window(lm.config))
    return selfcheck.climb(candidates, reference, batched, requests)


def _with_cache(lm: CausalModel, limits: memory.Limits) -> Engine:
    """An engine that shares the KV cache of a context. Raises UnsupportedError for a model without one, which
    short requests of a sample, too short to share anything, would not show."""
    import torch

    with torch.no_grad():
        lm.cache(torch.zeros((1, 2), dtype=torch.long, device=lm.device))
    return Engine(lm, "kv", None, limits)


def _candidates(
    lm: CausalModel, path: Path, limits: memory.Limits, expected_tokens: int | None
) -> list[selfcheck.Candidate]:
    """The ways to make a rung's engine, best first."""
    if path == "kv":
        return [selfcheck.Candidate("Shared KV cache", lambda: _with_cache(lm, limits))]
    if path != "tree":
        name = {"head": "Head only where needed", "plain": "Plain batches"}[path]
        return [selfcheck.Candidate(name, lambda: Engine(lm, path, None, limits))]

    def tree_with(layout: Callable[[], Layout], *, compiled: bool) -> Engine:
        if not lm.accepts("position_ids", "attention_mask"):
            raise UnsupportedError("its forward takes no position_ids or no attention_mask")
        lm.compile(compiled)
        return Engine(lm, "tree", layout(), limits)

    found = [
        selfcheck.Candidate(f"Token tree with {name}", partial(tree_with, layout, compiled=False))
        for name, layout in attention.layouts(lm)
    ]
    if memory.compiling_pays(lm, expected_tokens):
        name, layout = attention.layouts(lm)[0]
        compiled = partial(tree_with, layout, compiled=True)
        found.insert(0, selfcheck.Candidate(f"Token tree with {name}, compiled", compiled))
    return found
