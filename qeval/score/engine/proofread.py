"""Whether a writer's tokens are as likely as it takes them to be: a few texts, scored one by one too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qeval.score.engine import memory, selfcheck
from qeval.score.engine.body import CausalModel
from qeval.score.engine.engine import Engine, Path
from qeval.score.engine.requests import TokenRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray

    from qeval.score.engine.writer import Tokens, Watch, Writer

SAMPLE = 2
"""How many prompts are tried: the shortest and the longest, which lie farthest apart in a batch."""
STEPS = 16
"""How many tokens are written of each, at most."""


@dataclass(frozen=True, eq=False)
class Draft:
    """What a writer wrote of some prompts, and the log-probabilities (float32, nats) that it saw in each
    token taken."""

    prompts: Sequence[Tokens]
    texts: list[list[int]]
    values: list[NDArray[np.float32]]


def chosen(prompts: Sequence[Tokens]) -> list[int]:
    """The places of the prompts to try, shortest first."""
    order = sorted(range(len(prompts)), key=lambda at: len(prompts[at]))
    return sorted({order[0], order[-1]})


def draft(writer: Writer, prompts: Sequence[Tokens], budget: int, watch: Watch) -> Draft:
    """What the writer makes of a few prompts, in one batch where its size allows."""
    import torch

    seen: list[list[float]] = [[] for _ in prompts]

    def see(places: list[int], logits: torch.Tensor, tokens: torch.Tensor) -> None:
        found = torch.log_softmax(logits, -1).gather(1, tokens[:, None])[:, 0].tolist()
        for place, value in zip(places, found, strict=True):
            seen[place].append(value)

    before, writer.on_token = writer.on_token, see
    try:
        texts = writer.texts(prompts, budget, watch)
    finally:
        writer.on_token = before
    values = [np.array(some[-len(text) :], np.float32) for some, text in zip(seen, texts, strict=True)]
    return Draft(prompts, texts, values)


def doubt(drafted: Draft, lm: CausalModel) -> str | None:
    """Why a writer must not be used, by a draft of it; None where each token was as likely as one-by-one
    scoring says, but for rounding."""
    path: Path = "plain" if lm.body is None else "head"  # whose logits are as few as the tokens of the texts
    one, some = (Engine(lm, path, None, memory.Limits(0, size, 0)) for size in (1, SAMPLE))
    asked = [
        TokenRequest(np.array([*prompt, *text], np.int32), len(text))
        for prompt, text in zip(drafted.prompts, drafted.texts, strict=True)
    ]
    return selfcheck.distance(drafted.values, one, some, asked)
