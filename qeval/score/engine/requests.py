"""What a scoring engine is asked and what it answers; plain data, no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class TokenRequest:
    """How likely is the end of a token sequence, given its beginning?

    `tokens`: (t,) int32, context then continuation, already cut to the model's length by lm-eval's
    rules: tokens[:-1] is fed, so t - 1 is at most the model's length. The last `n_scored` tokens are
    scored, 1 <= n_scored <= t - 1: there is always at least one token of context.
    """

    tokens: NDArray[np.int32]
    n_scored: int


@dataclass(frozen=True, slots=True)
class Answer:
    """`loglikelihood`: the sum over the scored tokens in nats, float32 log-softmax and sum. `greedy`:
    whether each scored token was the most likely one."""

    loglikelihood: float
    greedy: bool
