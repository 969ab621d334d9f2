"""On a CUDA device: FlexAttention, the dense mask and plain batches agree, compiled or not."""

from types import SimpleNamespace

import numpy as np
import pytest
from architectures import tiny_model

from qeval.score.engine.dense import Dense
from qeval.score.engine.engine import Engine, open_engine
from qeval.score.engine.reach import reaches

pytestmark = [pytest.mark.torch, pytest.mark.gpu]
FLEX = ["llama", "mistral", "qwen3", "gemma2", "gemma3", "phi3", "gpt_neox", "opt"]
HALF = [(name, "float16") for name in FLEX]
# Mixtral's router flips between experts by float16's rounding, so that two right paths may differ.
# transformers 5.17 runs Gemma 2 by sdpa, without its soft cap, which FlexAttention applies: in float32 the
# self-check sees it, and takes a mask.
FULL = [(name, "float32") for name in [*FLEX, "mixtral"] if name != "gemma2"]


@pytest.fixture(autouse=True)
def _device():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    torch._dynamo.reset()  # each test is a process of its own where models are scored


def sums(engine, requests):
    found = dict(engine.score(requests))
    return np.array([found[i].loglikelihood for i in range(len(requests))])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:TensorFloat32")  # the compiler's advice, which as an error ends compiling
def test_a_compiled_body_is_right(requests):
    import torch

    torch._dynamo.reset()  # a worker has one model; here others came before, whose code would be tried first
    model = tiny_model("llama", "float32", head=64).cuda()
    engine = open_engine(model, sample=requests, budget=256, compiled=True)
    assert "compiled" in engine.note.partition("(")[0], engine.note
    plain = open_engine(model, "plain", sample=requests, batch_size=1)
    assert sums(engine, requests) == pytest.approx(sums(plain, requests), abs=1e-3)


@pytest.mark.parametrize(("architecture", "dtype"), HALF + FULL)
def test_flex_attention_is_right(architecture, dtype, requests):
    model = tiny_model(architecture, dtype, head=64).cuda()
    engine = open_engine(model, sample=requests, budget=256)
    assert engine.note.startswith("Token tree with FlexAttention:")
    plain = open_engine(model, "plain", sample=requests, batch_size=1)
    tokens = np.array([r.n_scored for r in requests])
    tolerance = 1e-4 if dtype == "float32" else 2e-2
    assert (abs(sums(engine, requests) - sums(plain, requests)) < tolerance * tokens).all()


def test_gemma_2_in_float32_is_right_by_whatever_path(requests):
    model = tiny_model("gemma2", "float32", head=64).cuda()
    engine = open_engine(model, sample=requests, budget=256)
    assert engine.note.startswith("Token tree with ")
    plain = open_engine(model, "plain", sample=requests, batch_size=1)
    tokens = np.array([r.n_scored for r in requests])
    assert (abs(sums(engine, requests) - sums(plain, requests)) < 1e-4 * tokens).all()


def test_memory_that_runs_out_is_survived(requests):
    import torch

    model = tiny_model("llama", "float32", head=64).cuda()
    engine = open_engine(model, sample=requests, budget=256)
    want = sums(engine, requests)
    limits = SimpleNamespace(budget=2**17, batch_size=16)
    reach = reaches(engine.lm.config)
    greedy = Engine(engine.lm, "tree", Dense(reach, engine.lm.device, torch.float32, boolean=True), limits)
    free, total = torch.cuda.mem_get_info()
    rng = np.random.default_rng(0)
    many = [type(requests[0])(rng.integers(3, 97, 100).astype(np.int32), 1) for _ in range(2000)]
    used = total - free
    torch.cuda.set_per_process_memory_fraction(min(1.0, (used + 2**31) / total))
    try:
        got = sums(greedy, [*requests, *many])[: len(requests)]
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert greedy.budget == limits.budget
    assert all(size < limits.budget for size in greedy.smaller.values())
    assert greedy.smaller
    assert got == pytest.approx(want, abs=1e-3)
