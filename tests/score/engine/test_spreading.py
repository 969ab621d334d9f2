"""A model whose blocks are moved to several devices gives the numbers of one that lies on one."""

from __future__ import annotations

import copy
import gc
import weakref

import numpy as np
import pytest
from architectures import tiny_model
from packed_models import in_4_bits, in_gptq

from qeval.base.errors import QevalError
from qeval.score.engine import spreading
from qeval.score.engine.body import CausalModel
from qeval.score.engine.engine import open_engine
from qeval.score.engine.materialize import compute_in_own_dtype, materialize
from qeval.score.engine.spreading import homes_of, spread, spread_of

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
GPUS = ["cuda:0", "cuda:1"]


@pytest.fixture
def two_gpus():
    import torch

    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")


def scored(model, requests, **asked):
    engine = open_engine(model, sample=requests, budget=256, **asked)
    found = {index: values for index, values, _ in engine.log_probs(requests)}
    return engine, [found[i] for i in range(len(requests))]


def same(ours, theirs):
    return all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_devices_hold_about_as_much_and_runs_of_blocks() -> None:
    assert homes_of([10] * 8, 0, 2) == [0] * 4 + [1] * 4
    assert homes_of([10] * 8, 20, 2) == [0] * 3 + [1] * 5
    assert homes_of([10] * 80, 21, 4) == [0] * 18 + [1] * 21 + [2] * 20 + [3] * 21
    assert homes_of([1], 100, 4) == [3]
    assert homes_of([10, 10], 0, 1) == [0, 0]


def test_bytes_are_counted_once_for_each_tensor() -> None:
    import torch

    model = tiny_model("llama")
    whole = sum(p.nbytes for p in model.parameters()) + sum(b.nbytes for b in model.buffers())
    assert spreading._bytes(model) == whole
    model.model.layers[0].also = model.model.layers[0].mlp
    model.model.layers[1].mlp.up_proj.weight = torch.nn.Parameter(
        model.model.layers[1].mlp.gate_proj.weight.data
    )
    twice = model.model.layers[1].mlp.gate_proj.weight.nbytes
    assert spreading._bytes(model) == whole - twice


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gpt2", "mixtral", "gpt_neox"])
def test_hooks_change_no_number(architecture, requests):
    whole = tiny_model(architecture)
    apart = copy.deepcopy(whole)
    assert spread(apart, ["cpu", "cpu"]) == 0
    engine, want = scored(whole, requests)
    again, got = scored(apart, requests)
    assert again.rung == engine.rung
    assert same(got, want)


def test_packed_layers_are_unpacked_where_they_lie(requests):
    for make in (in_4_bits, lambda: in_gptq("torch", "float32", True)):
        model, apart = make(), make()
        compute_in_own_dtype(model), compute_in_own_dtype(apart)
        whole, report = materialize(model)
        assert spread(apart, ["cpu", "cpu"]) == report.modules
        assert same(scored(apart, requests)[1], scored(whole, requests)[1])


@pytest.mark.parametrize("make", [in_4_bits, lambda: in_gptq("torch", "float32", True)])
def test_packed_weights_are_let_go_of_block_by_block(make, monkeypatch):
    """Of what has come to a device, nothing packed is left when the next block comes: moving may make anew
    what it moves, so that a weight is looked for from there on."""
    model = make()
    compute_in_own_dtype(model)
    came, left, move = [], [], spreading.hosting.move

    def seen(module, home):
        left.append(sum(one() is not None for one in came))
        move(module, home)
        came.extend(_packed(module) if len(left) <= len(model.model.layers) else [])

    monkeypatch.setattr(spreading.hosting, "move", seen)
    gc.disable()
    try:
        count = spread(model, ["cpu", "cpu"])
    finally:
        gc.enable()
    assert count == len(came) > 0
    assert left == [0] * (len(model.model.layers) + 1)


def test_a_resident_models_packed_weights_are_let_go_of():
    model = in_4_bits()
    compute_in_own_dtype(model)
    packed = _packed(model)
    gc.disable()
    try:
        materialize(model)
        assert [one() for one in packed] == [None] * len(packed)
    finally:
        gc.enable()


def _packed(model):
    """Weak references to the packed weight of every such layer."""
    layers = [m for m in model.modules() if type(m).__name__ == "Linear4bit" or hasattr(m, "qweight")]
    assert layers
    return [weakref.ref(layer.qweight if hasattr(layer, "qweight") else layer.weight) for layer in layers]


def test_what_blocks_are_given_goes_to_their_devices() -> None:
    import torch

    model = tiny_model("llama")
    spread(model, ["cpu", "cpu"])
    found = spread_of(model)
    assert found is not None
    found.homes[:] = [torch.device("cpu"), torch.device("meta")]
    mask, text = torch.ones(2, 2), "text"
    moved = found._there((mask, {"a": mask}, [mask], text, None), torch.device("meta"))
    assert [moved[0].device.type, moved[1]["a"].device.type, moved[2][0].device.type] == ["meta"] * 3
    assert moved[3:] == (text, None)
    given = (mask, text)
    assert found._there(given, torch.device("meta")) is found._there(given, torch.device("meta"))
    args, rest = found._enter(
        torch.device("meta"),
        model.model.layers[1],
        (mask,),
        {"past_key_values": (mask,), "attention_mask": mask},
    )
    assert args[0].device.type == rest["attention_mask"].device.type == "meta"
    assert rest["past_key_values"][0] is mask
    assert found._leave(torch.device("cpu"), None, (), (mask,))[0].device.type == "cpu"
    assert not found.moved


def test_blocks_that_share_weights_are_refused() -> None:
    model = tiny_model("llama")
    model.model.layers[1].mlp = model.model.layers[0].mlp
    with pytest.raises(QevalError, match="share weights") as caught:
        spread(model, ["cpu", "cpu"])
    assert "--gpus-per-variant" in caught.value.hint


def test_a_mask_of_flex_attention_follows_with_what_it_reads() -> None:
    import torch

    from qeval.score.engine.flex import _mask_function
    from qeval.score.engine.reach import Reach

    end, positions = torch.tensor([3, 2, 3]), torch.tensor([0, 1, 1])
    for reach in (Reach(), Reach(window=1)):
        sees = _mask_function(end, positions, reach)
        there = sees.on(torch.device("cpu"))
        assert there is sees.on(torch.device("cpu"))
        assert there is not sees

        def table(function):
            pairs = [(torch.tensor(q), torch.tensor(kv)) for q in range(3) for kv in range(3)]
            return [bool(function(None, None, q, kv)) for q, kv in pairs]

        assert table(there) == table(sees)
        end[1] = 3
        assert table(sees.on(torch.device("cpu"))) == table(sees)
        end[1] = 2


@pytest.mark.gpu
@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("architecture", ["llama", "gemma2", "mistral"])
def test_two_gpus_give_the_numbers_of_one(architecture, dtype, compiled, requests):
    import torch

    torch._dynamo.reset()
    apart = tiny_model(architecture, dtype, head=64)
    whole = copy.deepcopy(apart).cuda()
    spread(apart, GPUS)
    assert {p.device.index for p in apart.parameters()} == {0, 1}
    engine, want = scored(whole, requests, compiled=compiled)
    again, got = scored(apart, requests, compiled=compiled)
    assert again.rung == engine.rung
    if compiled:
        assert all(np.allclose(a, b, atol=1e-2) for a, b in zip(got, want, strict=True))
    else:
        assert same(got, want)


@pytest.mark.gpu
@pytest.mark.usefixtures("two_gpus")
def test_packed_layers_on_two_gpus(requests):
    for make in (in_4_bits, lambda: in_gptq("torch", "float32", True)):
        whole, report = materialize(make().cuda())
        apart = make()
        assert spread(apart, GPUS) == report.modules
        assert same(scored(apart, requests)[1], scored(whole, requests)[1])


@pytest.mark.gpu
@pytest.mark.usefixtures("two_gpus")
def test_a_cache_stays_where_its_blocks_are():
    apart = tiny_model("llama", "float32", head=64)
    whole = copy.deepcopy(apart).cuda()
    spread(apart, GPUS)
    import torch

    tokens = torch.arange(3, 20, device="cuda:0")[None]
    for model in (whole, apart):
        lm = CausalModel(model)
        with torch.no_grad():
            found = lm.plain(tokens)
            cache = lm.cache(tokens[:, :9])
            rest = model(input_ids=tokens[:, 9:], past_key_values=cache, use_cache=True).logits
        assert torch.allclose(found[:, 9:], rest, atol=1e-4)
