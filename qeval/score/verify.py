"""Some random documents scored by lm-eval's own code too, to check the engine before anything is stored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from qeval.base.errors import QevalError
from qeval.base.messages import REFUTED
from qeval.score.engine.requests import Answer
from qeval.score.engine.selfcheck import TIMES_LARGEST

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qeval.score.harness.prepared import PreparedTask

Ask = Callable[["PreparedTask", Sequence[int]], Sequence[Answer]]
"""lm-eval's answers to some questions of a task, by their positions."""


class Proof:
    """Which documents lm-eval scores too, and what it found: ours, lm-eval's and the number of scored tokens
    of each request."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed
        self.documents: dict[str, set[int]] = {}
        self.found: list[tuple[Answer, Answer, int]] = []
        self.proved = 0
        self.given = 0

    def choose(self, parts: Sequence[PreparedTask]) -> None:
        """Draw `count` documents of every row of the suite, where a group is one row; none of generated
        texts, or of framed perplexities, which lm-eval does not know."""
        rows: dict[str, list[PreparedTask]] = defaultdict(list)
        for part in parts:
            if not (part.generates or part.frame):
                rows[part.task.group or part.task.name].append(part)
        for number, members in enumerate(rows.values()):
            places = [(part.task.name, at) for part in members for at in range(part.n)]
            draw = np.random.default_rng([self.seed, number]).permutation(len(places))[: self.count]
            for name, at in (places[i] for i in draw):
                self.documents.setdefault(name, set()).add(at)

    def concerns(self, part: PreparedTask) -> bool:
        """Whether documents of a task were drawn."""
        return bool(self.documents.get(part.task.name))

    def hold(self, part: PreparedTask, answers: Sequence[Answer], ask: Ask, tolerance: float) -> None:
        """Compare our answers to a task with lm-eval's. Raises QevalError where a request differs by more, in
        nats a scored token, than rounding explains: `TIMES_LARGEST` times `tolerance`."""
        found = _both(part, self.documents[part.task.name], answers, ask)
        apart, most = _apart(found), TIMES_LARGEST * tolerance
        if not np.isfinite(apart).all() or apart.max(initial=0.0) > most:
            raise QevalError(
                f"{REFUTED} for {part.task.name}: they differ by up to"
                f" {apart.max():.1e} nat per scored token, where rounding explains {most:.1e}.",
                "Score with --engine lm-eval, which is that code.",
            )
        self.found += found
        self.given = part.max_length
        self.proved += len(self.documents[part.task.name])

    def in_words(self) -> str:
        """How far lm-eval's numbers were, in a sentence."""
        greedy = sum(ours.greedy != theirs.greedy for ours, theirs, _ in self.found)
        return (
            f"Verified {self.proved} documents ({len(self.found)} log-likelihoods) with lm-eval: the largest"
            f" difference is {_apart(self.found).max():.1e} nat per scored token, {greedy} greedy flags"
            " differ."
        )

    def lengths_in_words(self, own: int) -> list[str]:
        """A sentence where lm-eval by itself would let the model see sequences of another length, `own`."""
        if self.given == own:
            return []
        told = f"lm-eval by itself would let this checkpoint see {own} tokens at a time; it was asked with"
        return [f"{told} {self.given}, the unquantised model's length, as all variants are."]


def _apart(found: Sequence[tuple[Answer, Answer, int]]) -> NDArray[np.float64]:
    """Differences of log-likelihoods, nats a scored token."""
    return np.array([abs(ours.loglikelihood - theirs.loglikelihood) / n for ours, theirs, n in found])


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
