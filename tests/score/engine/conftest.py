"""Requests such as a task makes, for the tests of the engine."""

import numpy as np
import pytest
from architectures import VOCABULARY

from qeval.score.engine.requests import TokenRequest


@pytest.fixture
def requests():
    """Questions with four choices each after common examples, a duplicate, and one long text."""
    rng = np.random.default_rng(1)
    shots = rng.integers(3, VOCABULARY, 20)
    made = []
    for _ in range(6):
        context = np.concatenate([shots, rng.integers(3, VOCABULARY, rng.integers(3, 12))])
        for _ in range(4):
            n = int(rng.integers(1, 5))
            tokens = np.concatenate([context, rng.integers(3, VOCABULARY, n)]).astype(np.int32)
            made.append(TokenRequest(tokens, n))
    made.append(TokenRequest(made[0].tokens.copy(), made[0].n_scored))
    made.append(TokenRequest(rng.integers(3, VOCABULARY, 90).astype(np.int32), 89))
    return made
