"""On a CUDA device: weights that are streamed give the numbers of those that lie there, in less memory."""

from __future__ import annotations

import copy
import subprocess
import sys

import numpy as np
import pytest
from architectures import tiny_model
from packed_models import in_4_bits, in_gptq
from tiny_models import save_llama

from qeval.base.records import Scheme, Variant
from qeval.score.engine import memory
from qeval.score.engine.engine import open_engine
from qeval.score.engine.materialize import materialize
from qeval.score.engine.requests import TokenRequest
from qeval.score.engine.streaming import stream, streamer_of

pytestmark = [
    pytest.mark.torch,
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
GIB = 2**30


@pytest.fixture(autouse=True)
def _device():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    torch._dynamo.reset()
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


def scored(model, requests, **asked):
    engine = open_engine(model, sample=requests, budget=256, **asked)
    found = {index: values for index, values, _ in engine.log_probs(requests)}
    return engine, [found[i] for i in range(len(requests))]


def same(ours, theirs):
    return all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_plain_weights_are_the_same(dtype, requests):
    apart = tiny_model("llama", dtype, head=64)
    whole = copy.deepcopy(apart).cuda()
    stream(apart, "cuda:0")
    assert all(block.host.is_pinned() for block in streamer_of(apart).blocks)
    assert all(tensor.is_cuda for tensor in (*apart.parameters(), *apart.buffers()))
    engine, got = scored(apart, requests)
    assert engine.rung == "Token tree with FlexAttention"
    assert same(got, scored(whole, requests)[1])


@pytest.mark.parametrize("architecture", ["mistral", "gemma3", "mixtral", "gpt2", "gpt_oss"])
def test_other_architectures_are_the_same(architecture, requests):
    import torch

    apart = tiny_model(architecture, "float32", head=64)
    whole = copy.deepcopy(apart).cuda()
    stream(apart, "cuda:0")
    tokens = torch.from_numpy(requests[-1].tokens[None].astype(np.int64)).cuda()
    with torch.no_grad():
        for _ in range(3):
            assert torch.equal(apart(tokens).logits, whole(tokens).logits)


@pytest.mark.parametrize("double", [False, True])
def test_bitsandbytes_4_bit_is_the_same(double, requests):
    apart = in_4_bits("nf4", double).half()
    for module in apart.modules():
        if hasattr(module, "compute_dtype"):
            module.compute_dtype = apart.dtype
    whole, _ = materialize(copy.deepcopy(apart).cuda())
    assert stream(apart, "cuda:0") == 3 * 7
    assert same(scored(apart, requests)[1], scored(whole, requests)[1])


@pytest.mark.parametrize("desc_act", [False, True])
def test_gptq_is_the_same(desc_act, requests):
    apart, whole = (in_gptq("torch", "float16", desc_act) for _ in range(2))
    whole, _ = materialize(whole.cuda())
    assert stream(apart, "cuda:0") == 3 * 7
    assert same(scored(apart, requests)[1], scored(whole, requests)[1])


@pytest.mark.parametrize("options", [{}, {"double_quant": True, "quant_type": "fp4"}])
def test_codes_of_bitsandbytes_are_those_of_the_device(tmp_path, options):
    import torch

    from qeval.load import model as models

    variant = Variant("bnb4", str(save_llama(tmp_path / "llama", hidden=256)), Scheme("bnb4", options))
    whole, apart = (
        models.load(variant, device="cuda:0", cache_dir=tmp_path, streamed=streamed)
        for streamed in (False, True)
    )
    assert {p.device.type for p in apart.model.parameters()} == {"cpu"}
    for ours, theirs in zip(apart.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours.data, theirs.data.cpu())
        if hasattr(ours, "quant_state"):
            assert torch.equal(ours.quant_state.absmax, theirs.quant_state.absmax.cpu())


@pytest.mark.parametrize("kind", ["fp16", "rtn", "gptq"])
def test_what_is_loaded_into_host_memory_is_the_same(tmp_path, requests, kind):
    from qeval.load import model as models

    if kind == "gptq":
        pytest.importorskip("gptqmodel")
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat and the dog ran under a tree. " * 40)
    options = {"calibration": str(text), "samples": 4, "length": 32} if kind == "gptq" else {}
    place = save_llama(tmp_path / "llama", hidden=256, vocab_size=97)
    variant = Variant(kind, str(place), Scheme(kind, options))
    loaded = models.load(variant, device="cuda:0", cache_dir=tmp_path)
    whole = loaded.model
    if kind == "gptq":
        whole, _ = materialize(whole)
    apart = models.load(variant, device="cuda:0", cache_dir=tmp_path, streamed=True).model
    stream(apart, "cuda:0")
    assert same(scored(apart, requests)[1], scored(whole, requests)[1])


@pytest.mark.slow
def test_blocks_are_compiled_one_by_one_and_right(requests):
    import torch

    apart = tiny_model("llama", "float32", head=64)
    whole = copy.deepcopy(apart).cuda()
    stream(apart, "cuda:0")
    engine, got = scored(apart, requests, compiled=True)
    assert engine.rung == "Token tree with FlexAttention, compiled"
    for ours, theirs in zip(got, scored(whole, requests)[1], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-3)
    assert len(torch._dynamo.utils.compile_times("str")) > 0


def _wide(layers=6, vocabulary=97):
    """A model whose blocks take 100 MiB each in float16, on the CPU."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=2048,
        intermediate_size=5504,
        num_hidden_layers=layers,
        num_attention_heads=16,
        vocab_size=vocabulary,
        max_position_embeddings=2048,
    )
    with torch.device("cuda"):
        model = LlamaForCausalLM(config).half()
    return model.eval().cpu()


def test_two_blocks_lie_on_the_device_and_no_more(requests):
    import torch

    model = _wide()
    weights = sum(p.nbytes for p in model.parameters())
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    stream(model, "cuda:0")
    torch.cuda.reset_peak_memory_stats()
    scored(model, requests)
    held = torch.cuda.max_memory_allocated() - before
    assert held < weights / 2
    assert held < 2.5 * weights / 6 + 2**27


def test_long_windows_take_a_slice_of_logits_beside_the_weights():
    import torch

    model = _wide(4, 32000).cuda()
    weights = sum(p.nbytes for p in model.parameters())
    rng = np.random.default_rng(0)
    windows = [TokenRequest(rng.integers(3, 97, 2000).astype(np.int32), 1999) for _ in range(16)]
    engine = open_engine(model, sample=windows[:2], budget=16384)
    memory.free()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    list(engine.score(windows))
    assert before < weights + 2**27
    assert torch.cuda.max_memory_allocated() <= weights + 1.75 * GIB  # two slices would take 2.5


def test_a_limit_holds_beside_gptqmodel_which_asks_for_segments_that_grow():
    pytest.importorskip("gptqmodel")
    code = """
import torch
from qeval.load.device import limit_memory
limit_memory("cuda:0", 2**30)
import gptqmodel
try:
    torch.empty(2**31, dtype=torch.uint8, device="cuda")
except torch.OutOfMemoryError:
    print("held")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "held"


def test_a_limit_is_read_by_the_allocator_the_budget_and_what_is_free():
    import torch

    from qeval.load.device import gpu_free, gpu_total, limit_memory
    from qeval.load.memory import free_bytes

    limit_memory("cuda:0", 2 * GIB)
    assert gpu_total("cuda:0") == pytest.approx(2 * GIB, abs=2)
    assert memory.total_memory("cuda:0") == gpu_total("cuda:0")
    assert gpu_free("cuda:0") <= 2 * GIB
    assert free_bytes("cuda:0") == gpu_free("cuda:0")
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(3 * GIB, dtype=torch.uint8, device="cuda")
    small = memory.limits_of("cuda", 2 * GIB, GIB, 2**17).budget
    assert memory.LEAST_TOKENS <= small < memory.limits_of("cuda", 80 * GIB, GIB, 2**17).budget


@pytest.mark.parametrize("spare", [2**26, 2**27, 2**28])
def test_little_memory_gives_smaller_pieces_and_never_ends_a_variant(requests, spare):
    import torch

    from qeval.load.device import limit_memory

    model = _wide(2).cuda()
    want = scored(model, requests)[1]
    memory.free()
    limit_memory("cuda:0", torch.cuda.memory_allocated() + spare)
    rng = np.random.default_rng(0)
    many = [TokenRequest(rng.integers(3, 97, 200).astype(np.int32), 1) for _ in range(200)]
    engine = open_engine(model, sample=[*requests, *many])
    found = dict(engine.score([*requests, *many]))
    got = [found[i].loglikelihood for i in range(len(requests))]
    tokens = np.array([request.n_scored for request in requests])
    assert (abs(np.array(got) - [values.sum() for values in want]) < 2e-2 * tokens).all()
