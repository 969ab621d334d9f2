"""Some random documents scored by lm-eval's own code too, to check the engine; nothing is stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from qeval.score.engine.requests import Answer

if TYPE_CHECKING:
    from qeval.score.harness.prepared import PreparedTask

Ask = Callable[["PreparedTask", Sequence[int]], Sequence[Answer]]
"""lm-eval's answers to some questions of a task, by their positions."""


def chosen_documents(parts: Sequence[PreparedTask], count: int, seed: int) -> list[tuple[PreparedTask, int]]:
    """At most `count` documents, drawn by the seed: (task, position); none of generated texts, or of framed
    perplexities, which lm-eval does not know."""
    import numpy as np

    places = [(part, at) for part in parts if not (part.generates or part.frame) for at in range(part.n)]
    draw = np.random.default_rng(seed).permutation(len(places))[:count]
    return [places[i] for i in draw]


def difference_in_words(
    chosen: Sequence[tuple[PreparedTask, int]], answers: Mapping[str, Sequence[Answer]], ask: Ask
) -> str:
    """How far our `answers` (by task) to the chosen documents are from lm-eval's, in a sentence."""
    parts = list({id(part): part for part, _ in chosen}.values())
    found = [
        pair
        for part in parts
        for pair in _both(part, {at for other, at in chosen if other is part}, answers[part.task.name], ask)
    ]
    largest = max(abs(ours.loglikelihood - theirs.loglikelihood) / n for ours, theirs, n in found)
    greedy = sum(ours.greedy != theirs.greedy for ours, theirs, _ in found)
    return (
        f"Verified {len(chosen)} documents ({len(found)} log-likelihoods) with lm-eval: the largest "
        f"difference is {largest:.1e} nat per scored token, {greedy} greedy flags differ."
    )


def lengths_in_words(chosen: Sequence[tuple[PreparedTask, int]], own: int) -> list[str]:
    """A sentence where lm-eval by itself would let the model see sequences of another length, `own`."""
    given = chosen[0][0].max_length
    if given == own:
        return []
    told = (
        f"lm-eval by itself would let this checkpoint see {own} tokens at a time; it was asked with {given}"
    )
    return [f"{told}, the unquantised model's length, as all variants are."]


def _both(
    part: PreparedTask, documents: set[int], answers: Sequence[Answer], ask: Ask
) -> list[tuple[Answer, Answer, int]]:
    """Our answer, lm-eval's, and the number of scored tokens, of every question of some documents.

    The windows of a rolling question count together: lm-eval may lay them otherwise.
    """
    wanted = [at for at, owner in enumerate(part.content.owner) if int(owner) in documents]
    spans = part.content.spans
    places = [range(int(spans[at]), int(spans[at + 1])) for at in wanted]
    ours = [
        Answer(
            sum(answers[place].loglikelihood for place in some), all(answers[place].greedy for place in some)
        )
        for some in places
    ]
    lengths = [sum(part.requests[place].n_scored for place in some) for some in places]
    return list(zip(ours, ask(part, wanted), lengths, strict=True))
