"""The passages of a stream on which a variant went furthest from the baseline, with their text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qeval.base.fidelity import Passage, Positions, Stream

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOKENS = 16
"""Scored positions of a passage, at most."""
SHOWN = 10
_BEFORE = 48
"""Tokens before a passage that are shown with it."""


def worst(stream: Stream, positions: Positions, tokenizer: Any) -> tuple[Passage, ...]:
    """The passages with the greatest mean divergence: windows cut into runs of TOKENS positions."""
    found = []
    for window, low, high in _runs(stream):
        found.append((float(positions.kl[low:high].mean(dtype=np.float64)), window, low, high))
    found.sort(key=lambda one: (-one[0], one[2]))
    begins = np.concatenate([[0], np.cumsum(stream.counts)])
    made = []
    for kl, window, low, high in found[:SHOWN]:
        place = int(stream.first[window]) + low - int(begins[window])
        tokens = stream.window(window)
        made.append(
            Passage(
                window=window,
                place=place,
                kl=kl,
                n=high - low,
                text=_text(tokenizer, tokens[place : place + high - low]),
                before=_text(tokenizer, tokens[max(0, place - _BEFORE) : place]),
            )
        )
    return tuple(made)


def _runs(stream: Stream) -> list[tuple[int, int, int]]:
    """(window, from, to) of each run of positions."""
    runs, at = [], 0
    for window, count in enumerate(stream.counts.tolist()):
        runs += [
            (window, at + low, at + min(low + TOKENS, count))
            for low in range(0, count, TOKENS)
            if count - low >= TOKENS // 2 or count < TOKENS
        ]
        at += count
    return runs


def _text(tokenizer: Any, tokens: NDArray[np.int32]) -> str:
    return str(tokenizer.decode(tokens.tolist(), skip_special_tokens=False)) if len(tokens) else ""
