"""Weights that reach the device block by block give the numbers of a model that is held whole, bit by bit."""

import copy

import numpy as np
import pytest
from architectures import configurations, tiny_model
from packed_models import in_4_bits, in_gptq

from qeval.base.errors import QevalError
from qeval.score.engine.body import CausalModel
from qeval.score.engine.engine import open_engine
from qeval.score.engine.materialize import compute_in_own_dtype, materialize
from qeval.score.engine.streaming import stream, streamer_of

pytestmark = pytest.mark.torch
TOKENS = np.random.default_rng(0).integers(3, 97, (2, 17))
ARCHITECTURES = [
    *("llama", "mistral", "qwen3", "gemma2", "gemma3", "phi3_longrope", "gpt2", "gpt_neox", "opt", "falcon"),
    *("mixtral", "granite", "gpt_oss", "bloom", "mpt", "gpt_neo", "mamba"),
]


def logits(model):
    import torch

    with torch.no_grad():
        return model(torch.from_numpy(TOKENS)).logits


def scored(model, requests, **asked):
    engine = open_engine(model, sample=requests, budget=256, **asked)
    found = {index: values for index, values, _ in engine.log_probs(requests)}
    return engine, [found[i] for i in range(len(requests))]


def same(ours, theirs):
    return all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_plain_weights_are_the_same(architecture, requests):
    import torch

    whole = tiny_model(architecture)
    apart = copy.deepcopy(whole)
    assert stream(apart, "cpu") == 0
    assert torch.equal(logits(apart), logits(whole))
    engine, want = scored(whole, requests)
    streamed, got = scored(apart, requests)
    assert streamed.rung == engine.rung
    assert same(got, want)


def test_no_matrix_of_a_block_stays_behind():
    model = tiny_model("llama")
    layers = model.model.layers
    sizes = [sum(p.nbytes for p in layer.parameters() if p.dim() > 1) for layer in layers]
    held = layers[1].mlp.up_proj.weight
    stream(model, "cpu")
    streamer = streamer_of(model)
    assert len(streamer.slots) == 2
    assert all(len(slot.memory) <= max(sizes) + 256 * 7 for slot in streamer.slots)
    assert streamer.size >= sum(sizes)
    assert held is layers[1].mlp.up_proj.weight
    assert held.shape == (64, 32)
    assert held.untyped_storage().nbytes() == held.element_size()
    assert held.isnan().all()


@pytest.mark.parametrize(("quant_type", "double"), [("nf4", False), ("nf4", True), ("fp4", False)])
def test_bitsandbytes_4_bit_is_the_same(quant_type, double, requests):
    import torch

    model, apart = (in_4_bits(quant_type, double) for _ in range(2))
    assert compute_in_own_dtype(model) == compute_in_own_dtype(apart)
    native = logits(model)
    whole, report = materialize(model)
    assert stream(apart, "cpu") == report.modules == 3 * 7
    assert torch.equal(logits(apart), native)
    assert same(scored(apart, requests)[1], scored(whole, requests)[1])


@pytest.mark.parametrize("desc_act", [False, True])
def test_gptq_is_the_same(desc_act):
    import torch

    model, apart = (in_gptq("torch", "float16", desc_act) for _ in range(2))
    whole, report = materialize(model)
    assert stream(apart, "cpu") == report.modules
    assert torch.equal(logits(apart), logits(whole))


def test_a_packed_layer_that_does_other_arithmetic_is_refused():
    with pytest.raises(QevalError, match="TorchAtenLinear"):
        stream(in_gptq("aten", "float16", desc_act=False), "cpu")


def test_tied_embeddings_stay_tied():
    import torch
    from transformers import AutoModelForCausalLM

    config = configurations()["qwen2"]
    config.tie_word_embeddings = True
    torch.manual_seed(0)
    whole = AutoModelForCausalLM.from_config(config).eval()
    apart = copy.deepcopy(whole)
    stream(apart, "cpu")
    assert apart.lm_head.weight is apart.model.embed_tokens.weight
    assert torch.equal(logits(apart), logits(whole))


def test_what_blocks_share_stays_where_it_is():
    import torch

    whole = tiny_model("llama")
    layers = whole.model.layers
    layers[2].mlp.up_proj.weight = layers[0].mlp.up_proj.weight
    apart = copy.deepcopy(whole)
    stream(apart, "cpu")
    shared = apart.model.layers[0].mlp.up_proj.weight
    assert shared is apart.model.layers[2].mlp.up_proj.weight
    assert not shared.isnan().any()
    assert torch.equal(logits(apart), logits(whole))


def test_buffers_that_change_while_computing_are_the_same():
    """LongRoPE exchanges its frequencies with the length of a sequence."""
    import torch

    whole = tiny_model("phi3_longrope")
    apart = copy.deepcopy(whole)
    stream(apart, "cpu")
    for length in (90, 20, 90):
        tokens = torch.arange(length)[None] % 90 + 3
        with torch.no_grad():
            assert torch.equal(apart(tokens).logits, whole(tokens).logits)


def test_weights_in_another_order_of_memory_keep_it():
    import torch

    whole = tiny_model("llama")
    for layer in whole.model.layers:
        weight = layer.mlp.up_proj.weight
        weight.data = weight.data.t().contiguous().t()
    apart = copy.deepcopy(whole)
    strides = []
    stream(apart, "cpu")
    apart.model.layers[1].mlp.register_forward_pre_hook(
        lambda mlp, _: strides.append(mlp.up_proj.weight.stride())
    )
    assert torch.equal(logits(apart), logits(whole))
    assert set(strides) == {(1, 64)}


def test_generated_texts_are_the_same():
    import torch

    whole = tiny_model("llama")
    apart = copy.deepcopy(whole)
    stream(apart, "cpu")
    asked = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    tokens = torch.from_numpy(TOKENS)
    assert torch.equal(apart.generate(tokens, **asked), whole.generate(tokens, **asked))


def test_a_pass_that_fails_in_the_middle_leaves_nothing_bound(monkeypatch):
    import torch

    whole = tiny_model("llama")
    apart = copy.deepcopy(whole)
    stream(apart, "cpu")

    def fails(*_args, **_more):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with monkeypatch.context() as patch:
        patch.setattr(apart.model.layers[1].mlp, "forward", fails)
        with pytest.raises(torch.OutOfMemoryError):
            logits(apart)
    assert streamer_of(apart).bound is None
    assert apart.model.layers[1].mlp.up_proj.weight.isnan().all()
    assert torch.equal(logits(apart), logits(whole))


def test_weights_that_are_read_outside_of_their_block_are_refused():
    model = tiny_model("llama")
    stolen = model.model.layers[1].self_attn.q_proj
    model.model.norm.register_forward_hook(lambda _m, _a, out: stolen(out).sum() * 0 + out)
    with pytest.raises(QevalError, match="outside of them"):
        stream(model, "cpu")


def test_a_model_without_a_list_of_blocks_is_refused():
    import torch

    class Flat(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embeddings = torch.nn.Embedding(8, 4)

        def get_input_embeddings(self):
            return self.embeddings

    with pytest.raises(QevalError, match="no list of blocks") as refused:
        stream(Flat(), "cpu")
    assert "--placement resident" in refused.value.hint


def test_blocks_that_are_alike_are_compiled_once(monkeypatch):
    """By torch's own tracing, without the C++ compiler of inductor."""
    import torch
    from torch._dynamo.testing import CompileCounter

    counter, compile_ = CompileCounter(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda body, **more: compile_(body, backend=counter, **more))
    torch._dynamo.reset()
    whole = tiny_model("llama")
    apart = copy.deepcopy(whole)
    stream(apart, "cpu")
    lm, tokens = CausalModel(apart), torch.from_numpy(TOKENS)
    lm.compile(wanted=True)
    with torch.no_grad():
        for _ in range(2):
            assert torch.equal(lm.hidden(tokens), whole.model(tokens)[0])
    assert counter.frame_count == 1
    lm.compile(wanted=False)
    with torch.no_grad():
        lm.hidden(tokens[:, :9])
    assert counter.frame_count == 1
