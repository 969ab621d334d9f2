"""When a text that is being written has come to its end: a stop string ends an answer, but no thinking.

lm-eval's own criteria stop at a string wherever it stands, so that a blank line in the thinking ends a text
before its answer begins; and they stop a batch only once every text has met the very same string.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qeval.score.harness.thinking import Thinking

_MORE = 2
"""Tokens looked back beyond a string's own, as in lm-eval: a model may split it otherwise."""


class Stops:
    """Which texts of one batch have come to an end; a criterion of transformers' `generate` too.

    `prompts` are the tokens that the n texts follow, for `generate` all of one length; `stops` the strings
    that end an answer.
    """

    def __init__(
        self, thinking: Thinking, tokenizer: Any, prompts: Sequence[Sequence[int]], stops: Sequence[str]
    ) -> None:
        self.thinking, self.tokenizer, self.stops = thinking, tokenizer, stops
        self.length = len(prompts[0])
        self.begins = [begin for begin, _ in thinking.pairs]
        words = [*stops, *thinking.ends, *self.begins]
        self.back = _MORE + max(len(tokenizer.encode(text, add_special_tokens=False)) for text in words)
        ahead = tokenizer.batch_decode([list(prompt[-self.back :]) for prompt in prompts])
        self.open = [thinking.begun(text) for text in ahead]
        self.done = [False] * len(self.open)
        self.start = [0] * len(self.open)  # the first token of each answer, as far as it is known

    def __call__(self, tokens: Any, scores: Any, **_: Any) -> Any:
        """(n,) bool: whether each text has ended, after `tokens`, (n, any length), of prompt and text."""
        import torch

        del scores
        written = tokens[:, self.length :].tolist()
        return torch.tensor(self.ended(range(len(written)), written), device=tokens.device)

    def ended(self, rows: Sequence[int], written: Sequence[Sequence[int]]) -> list[bool]:
        """Whether the texts at `rows` of the batch have ended, after what is `written` of each: one token
        more than when it was asked for before."""
        last = [
            list(some[max(len(some) - self.back, self.start[row]) :])
            for row, some in zip(rows, written, strict=True)
        ]
        for row, text, some in zip(rows, self.tokenizer.batch_decode(last), written, strict=True):
            if not self.done[row]:
                self.done[row] = self._ends(row, text, len(some))
        return [self.done[row] for row in rows]

    def _ends(self, row: int, text: str, size: int) -> bool:
        """Whether `text`, what one looks back on of the `size` tokens so far, brings the end."""
        after, begin = (max(map(text.rfind, marks)) for marks in (self.thinking.ends, self.begins))
        if max(after, begin) >= 0:
            self.open[row] = begin > after
        if self.open[row]:
            return False
        if after >= 0 or (self.start[row] and not text.strip()):
            self.start[row] = size  # white space behind the thinking is no part of the answer
            return False
        if size - self.back <= self.start[row] > 0:
            text = text.lstrip()
        return any(stop in text for stop in self.stops)
