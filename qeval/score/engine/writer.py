"""Writes texts token by token, the likeliest each time: what prompts share is read once, and a text that has
come to its end leaves its batch.

The rows of a batch are aligned at their ends, and what they share is laid out in each row's cache as if the
row had been read whole. So a place differs from a position by nothing but the padding in front, as it does
where transformers generates, and windows and biases of attention come out alike.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from qeval.score.engine import memory, reach
from qeval.score.engine.body import UnsupportedError

if TYPE_CHECKING:
    import torch

Tokens = Sequence[int]
Watcher = Callable[[Sequence[int], Sequence[Tokens]], Sequence[bool]]
"""Whether texts of a batch have ended, by the places of their prompts in it and what is written of each."""
Watch = Callable[[Sequence[Tokens]], Watcher]
"""A watcher of a new batch, by its prompts."""


def _nothing(*_: Any) -> None:
    """Told of something that nobody listens to."""


class Writer:
    """Writes with one model of transformers, in batches of at most `size` texts.

    `size` is halved where memory runs out, and `on_token` told of every step: the places of texts among all,
    the logits (n, v) that follow them and the tokens (n,) taken; a batch that did not fit is told of again.
    Raises UnsupportedError for a model
    whose cache is not keys and values alone, of all tokens or of a window.
    """

    def __init__(self, model: Any, size: int) -> None:
        self.model, self.size = model, size
        self.on_token: Callable[[list[int], torch.Tensor, torch.Tensor], None] = _nothing
        self.device = next(model.parameters()).device
        self.config = model.config.get_text_config(decoder=True)
        self.ends = _ends(model.generation_config)
        self.shared: tuple[int, ...] = ()
        # Keys and values of what is shared, (1, heads, p, width) each, by layer; None while a batch has them.
        self._read: list[tuple[Any, Any] | None] = []
        takes = inspect.signature(model.forward).parameters
        if not {"input_ids", "attention_mask", "past_key_values", "use_cache"} <= set(takes):
            raise UnsupportedError("its forward takes no attention_mask or no past_key_values")
        self._takes = takes
        if reach.chosen(self.config) is not None:
            raise UnsupportedError("its attention chooses the tokens that it looks at")
        self._refuse_other_caches()

    def _refuse_other_caches(self) -> None:
        import torch
        from transformers import cache_utils

        plain = (cache_utils.DynamicLayer, cache_utils.DynamicSlidingWindowLayer)
        tokens = torch.zeros((1, 2), dtype=torch.long, device=self.device)
        with torch.no_grad():
            cache = getattr(self.model(input_ids=tokens, use_cache=True), "past_key_values", None)
        for some in (cache, self._new_cache()):
            layers = getattr(some, "layers", ())
            if type(some) is not cache_utils.DynamicCache or any(type(x) not in plain for x in layers):
                raise UnsupportedError("its cache is not keys and values alone")

    def reaches(self, length: int) -> bool:
        """Whether positions mean the same in texts of this length as in shorter ones (LongRoPE's do not)."""
        return reach.one_rope(self.config, length)

    def share(self, tokens: Tokens) -> None:
        """Read what the next prompts have in common, once; nothing where it is empty."""
        import torch
        from transformers import DynamicCache

        self.shared, self._read = tuple(tokens), []
        if not self.shared:
            return
        cache = DynamicCache()  # which keeps all tokens, whatever windows the model has
        fed = torch.tensor([self.shared], device=self.device)
        self._logits(fed, torch.ones_like(fed), cache)
        self._read = [(layer.keys, layer.values) for layer in cache.layers]

    def texts(self, prompts: Sequence[Tokens], budget: int, watch: Watch) -> list[list[int]]:
        """The tokens that follow each prompt: at most `budget`, at least one, an end token included.

        Longest first, as lm-eval. Raises QevalError where memory does not hold a single text.
        """
        found: list[list[int]] = [[] for _ in prompts]
        waiting = sorted(range(len(prompts)), key=lambda at: -len(prompts[at]))
        while waiting:
            batch = waiting[: self.size]
            texts = self._fitting(batch, [prompts[at] for at in batch], budget, watch)
            if texts is None:
                if len(batch) == 1:
                    raise memory.TooLongError(len(prompts[batch[0]]) + budget)
                self.size = (len(batch) + 1) // 2
                continue
            for at, text in zip(batch, texts, strict=True):
                found[at] = text
            waiting = waiting[len(batch) :]
        return found

    def _fitting(
        self, names: Sequence[int], prompts: Sequence[Tokens], budget: int, watch: Watch
    ) -> list[list[int]] | None:
        """The texts of a batch; None where memory ran out."""
        try:
            return self._batch(names, prompts, budget, watch(prompts))
        except (RuntimeError, MemoryError) as error:
            if not memory.ran_out(error):
                raise
        memory.free()
        self.share(self.shared)  # of which the batch may have held the only copy
        return None

    def _batch(
        self, names: Sequence[int], prompts: Sequence[Tokens], budget: int, ended: Watcher
    ) -> list[list[int]]:
        import torch

        texts: list[list[int]] = [[] for _ in prompts]
        rows = list(range(len(prompts)))
        feed, mask, cache = self._laid_out(prompts)
        while True:
            logits = self._logits(feed, mask, cache).float()
            best = logits.argmax(-1)
            self.on_token([names[row] for row in rows], logits, best)
            for row, token in zip(rows, best.tolist(), strict=True):
                texts[row].append(token)
            going = list(self._going(rows, texts, budget, ended))
            if not going:
                self._leave(cache, None, first=rows[0] == 0)
                return texts
            if len(going) < len(rows):
                kept = torch.tensor(going)
                self._leave(cache, kept, first=rows[0] == 0 < going[0])
                mask, best, rows = mask[kept], best[kept], [rows[at] for at in going]
            mask = torch.cat([mask, mask.new_ones((len(rows), 1))], 1)
            feed = best[:, None]

    def _going(
        self, rows: Sequence[int], texts: Sequence[list[int]], budget: int, ended: Watcher
    ) -> Iterator[int]:
        """The places, among `rows`, of texts that have not come to their end."""
        written = [texts[row] for row in rows]
        for at, (text, stopped) in enumerate(zip(written, ended(rows, written), strict=True)):
            if not (stopped or text[-1] in self.ends or len(text) >= budget):
                yield at

    def _laid_out(self, prompts: Sequence[Tokens]) -> tuple[torch.Tensor, torch.Tensor, Any]:
        """What is still to be fed of prompts, (n, t), the mask of all their places, and the cache before."""
        import torch

        shared, longest = self.shared, max(map(len, prompts))
        if any(tuple(prompt[: len(shared)]) != shared or len(prompt) <= len(shared) for prompt in prompts):
            raise ValueError("a prompt does not go on from what is shared")
        pads = torch.tensor([longest - len(prompt) for prompt in prompts])
        tokens = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
        mask = (torch.arange(longest) >= pads[:, None]).long().to(self.device)
        places = (torch.arange(len(shared)) - pads[:, None]).clamp(min=0)  # (n, p): of what is shared, by row
        cache = self._new_cache()
        for at, read in enumerate(self._read):
            if read is not None and read[0] is not None:
                cache.update(_by_row(read[0], places), _by_row(read[1], places), at)
                if not cache.layers[
                    at
                ].is_sliding:  # no second copy: the first row, the longest, has no padding
                    self._read[at] = None
        return tokens[:, len(shared) :].to(self.device), mask, cache

    def _leave(self, cache: Any, kept: torch.Tensor | None, *, first: bool) -> None:
        """Keep some rows of a cache, or none. What is shared is copied before it goes with the `first`."""
        for at, layer in enumerate(cache.layers):
            if first and at < len(self._read) and self._read[at] is None:
                part = slice(len(self.shared))
                self._read[at] = (layer.keys[:1, :, part].clone(), layer.values[:1, :, part].clone())
            if kept is None:
                layer.keys = layer.values = None
            else:
                layer.batch_select_indices(kept)

    def _new_cache(self) -> Any:
        from transformers import DynamicCache

        return DynamicCache(config=self.config)

    def _logits(self, feed: torch.Tensor, mask: torch.Tensor, cache: Any) -> torch.Tensor:
        """The logits (n, v) behind the last of some tokens (n, t), which are the last places of a mask."""
        import torch

        more: dict[str, Any] = {}
        if "position_ids" in self._takes:
            more["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)[:, -feed.shape[1] :]
        if "logits_to_keep" in self._takes:
            more["logits_to_keep"] = 1
        with torch.no_grad():
            out = self.model(
                input_ids=feed, attention_mask=mask, past_key_values=cache, use_cache=True, **more
            )
        logits: torch.Tensor = out.logits[:, -1]
        return logits


def in_common(prompts: Sequence[list[int]]) -> list[int]:
    """The tokens that all of some prompts begin with, at least one being left of each."""
    first, last = min(prompts), max(prompts)
    most = min(map(len, prompts)) - 1
    length = next((at for at in range(most) if first[at] != last[at]), most)
    return first[:length]


def _by_row(kept: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """(n, heads, p, width) of what is kept (1, heads, q, width), by the places (n, p) of each row in it."""
    flat = kept[0].index_select(1, places.flatten().to(kept.device))
    return flat.unflatten(1, tuple(places.shape)).transpose(0, 1)


def _ends(config: Any) -> frozenset[int]:
    """The tokens that end a text."""
    found = config.eos_token_id
    return frozenset(found if isinstance(found, list) else [] if found is None else [found])
