"""A compiled body: one code for all blocks of a kind, and for nothing but the tree."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from architectures import VOCABULARY, tiny_model

from qeval.score.engine.body import CausalModel
from qeval.score.engine.engine import open_engine
from qeval.score.engine.requests import TokenRequest

pytestmark = pytest.mark.torch


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Any:
    """torch.compile without its back end, which wants a C++ compiler here, and the counts of its tracing."""
    import torch
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    return counters


def test_blocks_of_a_kind_are_compiled_once(traced: Any) -> None:
    import torch

    lm = CausalModel(tiny_model("llama"))
    tokens = torch.arange(1, 41)[None] % VOCABULARY
    with torch.no_grad():
        plain = lm.hidden(tokens)
        lm.compile(True)
        compiled = [lm.hidden(tokens) for _ in range(2)]
    assert len(lm.compiled) == lm.config.num_hidden_layers > 1
    assert traced["stats"]["unique_graphs"] == 1
    for hidden in compiled:
        torch.testing.assert_close(hidden, plain, atol=1e-5, rtol=1e-5)


def test_what_is_not_asked_of_the_tree_is_not_compiled(traced: Any) -> None:
    """Reference, batches and lm-eval's own code run the model as it is: each of their shapes would be
    compiled anew."""
    import torch

    lm = CausalModel(tiny_model("llama"))
    lm.compile(True)
    with torch.no_grad():
        lm.plain(torch.ones((1, 5), dtype=torch.long))
    assert traced["stats"]["unique_graphs"] == 0


def test_a_compiled_engine_is_checked_and_scores(traced: Any) -> None:
    rng = np.random.default_rng(0)
    requests = [TokenRequest(rng.integers(1, VOCABULARY, 30).astype(np.int32), 5) for _ in range(6)]
    model = tiny_model("llama")
    compiled = open_engine(model, sample=requests, budget=64, compiled=True)
    assert compiled.rung == "Token tree with tiles, compiled"
    got = [answer.loglikelihood for _, answer in sorted(compiled.score(requests))]
    plain = open_engine(model, "plain", sample=requests, batch_size=1)
    want = [answer.loglikelihood for _, answer in sorted(plain.score(requests))]
    np.testing.assert_allclose(got, want, atol=1e-4)
    assert traced["stats"]["unique_graphs"] >= 1
