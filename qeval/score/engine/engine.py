"""The scoring engine: requests in, answers out, by the fastest path that is shown right for the model.

Four rungs: the token tree; contexts shared through the KV cache; plain batches with the head only where a
token is scored; plain batches as lm-eval runs them. A rung is used only after a few real requests, and a few
built to be difficult, came out as they do one by one.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from copy import copy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from qeval.score.clock import phase
from qeval.score.engine import attention, batches, memory, reach, selfcheck, shards, shared, tree
from qeval.score.engine.body import CausalModel, NonFiniteError, UnsupportedError, log_probs, on_device
from qeval.score.engine.requests import Answer
from qeval.score.engine.sample import Shape, choose, windows
from qeval.score.engine.shards import Pass, Scored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import torch
    from numpy.typing import NDArray

    from qeval.score.engine.attention import Layout
    from qeval.score.engine.batches import Batch
    from qeval.score.engine.requests import TokenRequest
    from qeval.store.shards import Shards

Path = Literal["tree", "kv", "head", "plain"]
PATHS: tuple[Path, ...] = ("tree", "kv", "head", "plain")


def nothing(*_: Any) -> None:
    """Told of something that nobody listens to."""


class Engine:
    """Scores requests with one model along one path.

    path: the rung in use, rung: what the self-check calls it. note: a sentence on why, for the run's record.
    failures: a sentence, without its full stop, on each faster path that failed as none should. warnings:
    sentences that belong beside the numbers. below: the rungs that are left. tolerance: the root mean square
    of what rounding explains, nats per token, None where nothing was checked; checked: how far the requests
    go that its check stands for. budget: tokens per chunk of the tree. batch_size: sequences per batch on the
    other rungs. smaller: the shards that did not fit in memory and the size, of the same kind, by which each
    is fed instead. tokens_fed: tokens that went through the model so far, without padding; tokens_padded:
    with it.

    on_pass is told how many wanted requests a pass has answered, on_taken how many another worker did,
    on_smaller the name, the new size and the requests of a shard that is fed again: nothing of it has been
    yielded before. book: where shards are shared out among workers; None: all are scored here.
    """

    def __init__(self, lm: CausalModel, path: Path, layout: Layout | None, limits: memory.Limits) -> None:
        self.lm, self.path, self.layout = lm, path, layout
        self.budget, self.batch_size = limits.budget, limits.batch_size
        self.rung = self.note = ""
        self.failures: tuple[str, ...] = ()
        self.warnings: tuple[str, ...] = ()
        self.below: tuple[str, ...] = ()
        self.tolerance: float | None = None
        self.checked = Shape()
        self.smaller: dict[str, int] = {}
        self.on_pass: Callable[[int], None] = nothing
        self.on_taken: Callable[[int], None] = nothing
        self.book: Shards | None = None
        self.on_smaller: Callable[[str, int, NDArray[np.int64]], None] = nothing
        self.tokens_fed = self.tokens_padded = 0
        self.begun = False

    def score(
        self, requests: Sequence[TokenRequest], wanted: NDArray[np.bool_] | None = None
    ) -> Iterator[tuple[int, Answer]]:
        """Yield (index, answer) of every wanted request, as shards are finished.

        All requests shape the passes, so that numbers do not depend on which of them are `wanted` (None:
        all); a pass of which nothing is wanted is skipped. Raises NonFiniteError with the index of a
        request whose logits are NaN or infinite, and QevalError where a single sequence does not fit.
        """
        if self.book is not None:
            want = np.ones(len(requests), bool) if wanted is None else np.asarray(wanted, bool)
            yield from shared.score(self, requests, want, self.book)
            return
        for index, values, greedy in self.log_probs(requests, wanted):
            if not np.isfinite(values).all():
                raise NonFiniteError(index)
            yield index, Answer(float(values.sum(dtype=np.float64)), greedy)

    def log_probs(
        self, requests: Sequence[TokenRequest], wanted: NDArray[np.bool_] | None = None
    ) -> Iterator[tuple[int, NDArray[np.float32], bool]]:
        """Like `score`, but yields each scored token's log-probability (n_scored,) in nats, unchecked."""
        want = np.ones(len(requests), bool) if wanted is None else np.asarray(wanted, bool)
        waiting: list[Scored] = []
        # A shard's answers are fetched once the next is under way, so that a GPU does not wait for Python.
        for shard in shards.cut(self.passes(requests, self.size())):
            if any(want[one.members].any() for one in shard):
                found = self.whole(requests, shard, want)
                yield from shards.fetched(waiting, want)
                waiting = found
        yield from shards.fetched(waiting, want)

    def size(self) -> int:
        """Tokens of a chunk, or sequences of a batch."""
        return self.budget if self.path == "tree" else self.batch_size

    def whole(
        self, requests: Sequence[TokenRequest], shard: Sequence[Pass], want: NDArray[np.bool_]
    ) -> list[Scored]:
        """Run a shard; where memory runs out, again as a whole at half the size. No other shard changes."""
        everyone = shards.members(shard)
        name = shards.name([requests[i] for i in everyone])
        size = min(self.smaller.get(name, self.size()), self.size())  # a faster path counts in tokens
        while True:
            whole = size == self.size()
            passes = shard if whole else self.passes([requests[i] for i in everyone], size, everyone)
            found, stuck = self._run(passes, want)
            if stuck is None:
                return found
            if stuck.alone:
                raise memory.TooLongError(stuck.tokens)
            found.clear()
            memory.free()
            size = max(1, size // 2)
            self.smaller[name] = size
            self.on_smaller(name, size, everyone)

    def _run(self, passes: Iterable[Pass], want: NDArray[np.bool_]) -> tuple[list[Scored], Pass | None]:
        """What the wanted passes found, and the one for which memory ran out."""
        found: list[Scored] = []
        for one in passes:
            wanted = int(want[one.members].sum())
            if wanted:
                try:
                    found.append(one.run())
                except (RuntimeError, MemoryError) as error:
                    if not memory.ran_out(error):
                        raise
                    return found, one
                self.on_pass(wanted)
        return found, None

    def passes(
        self, requests: Sequence[TokenRequest], size: int, names: NDArray[np.int64] | None = None
    ) -> Iterator[Pass]:
        """The forward passes over all requests, which are called by `names` (None: by their places)."""
        names = np.arange(len(requests)) if names is None else names
        if self.path == "tree":
            for members in reach.apart(self.lm.config, requests):
                yield from self._tree([requests[i] for i in members], size, names[members])
        else:
            for members in reach.apart(self.lm.config, requests):
                yield from self._batches([requests[i] for i in members], size, names[members])

    # --- the tree

    def _tree(
        self, requests: Sequence[TokenRequest], budget: int, names: NDArray[np.int64]
    ) -> Iterator[Pass]:
        """A pass for each chunk of the tree."""
        packing = self._packed(requests, budget)
        for c in range(len(packing)):
            who, tokens = packing.members(c), int(packing.sizes[c])
            alone = tokens == max(len(requests[i].tokens) - 1 for i in who)
            yield Pass(names[who], partial(self._chunk, packing, c, budget, names), tokens, alone)

    def _packed(self, requests: Sequence[TokenRequest], budget: int) -> tree.Packing:
        """The tree of requests, cut for a budget and this engine's padding."""
        assert self.layout is not None  # noqa: S101  # the tree path has one
        padded = self.layout.padded(1, budget) > 1
        return tree.pack(requests, budget, budget if padded else memory.PASS_OVERHEAD)

    def _chunk(self, packing: tree.Packing, c: int, budget: int, names: NDArray[np.int64]) -> Scored:
        """One forward pass over chunk c."""
        import torch

        assert self.layout is not None  # noqa: S101  # the tree path has one
        lm, n = self.lm, int(packing.sizes[c])
        chunk = tree.padded(packing.chunk(c), self.layout.padded(n, budget))
        with torch.no_grad(), attention.using(lm.model, self.layout.implementation), self._compiling():
            hidden = lm.hidden(
                on_device(chunk.tokens, lm.device)[None],
                position_ids=on_device(chunk.positions, lm.device)[None],
                attention_mask=self.layout.masks(chunk),
            )[0]
        scored = self._scored(chunk, lambda at: lm.logits(hidden[at.to(hidden.device)]))
        self.tokens_fed += n
        self.tokens_padded += len(chunk.tokens)
        return scored.renamed(names)

    def _compiling(self) -> AbstractContextManager[None]:
        """The phase of the first chunk of an engine that compiles anything."""
        assert self.layout is not None  # noqa: S101  # the tree path has one
        first, self.begun = not self.begun, True
        compiles = self.lm.compiled or self.layout.implementation == "flex_attention"
        return phase("compiling") if first and compiles else nullcontext()

    def _scored(self, of: tree.Chunk | Batch, logits_of: Callable[[torch.Tensor], torch.Tensor]) -> Scored:
        """The scored tokens of a chunk or batch, given its logits by row."""
        import torch

        with torch.no_grad():
            values, best = log_probs(
                logits_of, self.lm.vocabulary, self.lm.device, of.rows, of.picks, of.targets
            )
        return Scored(of.requests, of.offsets, values, best)

    # --- the rungs below

    def _batches(
        self, requests: Sequence[TokenRequest], size: int, names: NDArray[np.int64]
    ) -> Iterator[Pass]:
        """A pass for each batch."""
        make = batches.context_batches if self.path == "kv" else batches.plain_batches
        run = {"kv": self._after_context, "head": self._head_only, "plain": self._plain}[self.path]
        for batch in make(requests, size):
            call = partial(self._batch, run, batch, names)
            yield Pass(names[batch.requests], call, batch.n_tokens, len(batch.tokens) == 1)

    def _batch(self, run: Callable[[Batch], Scored], batch: Batch, names: NDArray[np.int64]) -> Scored:
        """One forward pass over a batch."""
        scored = run(batch)
        self.tokens_fed += batch.n_tokens
        self.tokens_padded += len(batch.prefix) + batch.tokens.size
        return scored.renamed(names)

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


def open_engine(
    model: Any,
    kind: Path = "tree",
    *,
    sample: Sequence[TokenRequest],
    batch_size: int | None = None,
    budget: int | None = None,
    compiled: bool = False,
    rung: str = "",
    smaller: Mapping[str, int] | None = None,
    mates: bool = False,
) -> Engine:
    """An engine on the highest rung, from `kind` downwards, whose answers are those of one-by-one scoring.

    `model` is a causal language model of transformers, in evaluation on its device. `sample` holds
    requests of the run (all of them, best); a few are scored by each rung tried. `batch_size` is used by
    the rungs below the tree; with kind="plain" batches are composed as lm-eval composes them, and
    nothing is checked. `budget` is the tokens per chunk. `compiled`: the tree's body is compiled, where its
    weights are plain. `rung` names the rung that another worker found right: none above it is tried.
    `smaller` tells of shards that are known not to fit. `mates`: see `selfcheck.climb`.
    """
    lm = CausalModel(model)
    limits = memory.limits(lm, budget, batch_size)
    paths = PATHS[PATHS.index(kind) :]
    candidates = [c for path in paths for c in _candidates(lm, path, limits, compiled=compiled)]
    candidates = _from_rung(candidates, rung)
    if kind == "plain":
        engine = candidates[0].make()
        engine.rung, engine.note = candidates[0].name, "Plain batches, as asked."
    else:
        reference, batched = (Engine(lm, "plain", None, replace(limits, batch_size=size)) for size in (1, 4))
        requests, few = choose(sample, limits.check_tokens, windows(model), memory.longest_checked(lm))
        engine = selfcheck.climb(candidates, reference, batched, requests, few, mates=mates, sample=sample)
    engine.smaller = dict(smaller or {})
    return engine


def probe(engine: Engine, requests: Sequence[TokenRequest]) -> str | None:
    """Why the engine must not score these requests, by those that go farthest; None where it may."""
    lm = engine.lm
    one = Engine(lm, "plain", None, memory.Limits(engine.budget, 1, 0))
    chosen, _ = choose(requests, 0, windows(lm.model), memory.longest_checked(lm))
    trial = copy(engine)  # nobody is told of these requests, and what does not fit of them is no shard
    trial.on_pass, trial.on_smaller, trial.smaller = nothing, nothing, dict(engine.smaller)
    reason = selfcheck.probe(trial, one, chosen, requests)
    engine.checked = trial.checked
    return reason


def _from_rung(candidates: list[selfcheck.Candidate], rung: str) -> list[selfcheck.Candidate]:
    """The candidates from the one called `rung` on; all where there is none."""
    names = [candidate.name for candidate in candidates]
    return candidates[names.index(rung) :] if rung in names else candidates


def _with_cache(lm: CausalModel, limits: memory.Limits) -> Engine:
    """An engine that shares the KV cache of a context. Raises UnsupportedError for a model without one, which
    short requests of a sample, too short to share anything, would not show."""
    import torch

    with torch.no_grad():
        lm.cache(torch.zeros((1, 2), dtype=torch.long, device=lm.device))
    return Engine(lm, "kv", None, limits)


def _candidates(
    lm: CausalModel, path: Path, limits: memory.Limits, *, compiled: bool
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
    if compiled and not getattr(lm.model, "is_quantized", False):
        name, layout = attention.layouts(lm)[0]
        make = partial(tree_with, layout, compiled=True)
        found.insert(0, selfcheck.Candidate(f"Token tree with {name}, compiled", make))
    return found
