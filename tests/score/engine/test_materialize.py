"""Dequantising weight-only layers once: the same numbers, or a refusal."""

import numpy as np
import pytest
from architectures import tiny_model

from qeval.base.errors import QevalError
from qeval.score.engine.materialize import can_materialize, compute_in_own_dtype, materialize

pytestmark = pytest.mark.torch
TOKENS = np.random.default_rng(0).integers(3, 97, (2, 17))


def logits(model):
    import torch

    with torch.no_grad():
        return model(torch.from_numpy(TOKENS)).logits


def in_4_bits(quant_type="nf4", double=False):
    """A llama wide enough for every kernel of bitsandbytes, its linear layers in 4 bits, some square."""
    bnb = pytest.importorskip("bitsandbytes")
    import torch

    model = tiny_model("wide_llama")
    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            packed = bnb.nn.Linear4bit(
                module.in_features,
                module.out_features,
                bias=False,
                compute_dtype=module.weight.dtype,
                quant_type=quant_type,
                compress_statistics=double,
            )
            packed.weight = bnb.nn.Params4bit(
                module.weight.data, requires_grad=False, quant_type=quant_type, compress_statistics=double
            )
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, packed.to("cpu"))
    return model.eval()


@pytest.mark.parametrize(("quant_type", "double"), [("nf4", False), ("nf4", True), ("fp4", False)])
def test_bitsandbytes_4_bit_is_bit_identical(quant_type, double):
    import torch

    model = in_4_bits(quant_type, double)
    compute_in_own_dtype(model)
    before = logits(model)
    assert not torch.equal(before, logits(tiny_model("wide_llama")))
    assert can_materialize(model)
    model, report = materialize(model)
    assert report.exact
    assert report.modules == 3 * 7
    assert not any(type(m).__name__ == "Linear4bit" for m in model.modules())
    assert torch.equal(logits(model), before)


def test_a_cpu_kernel_that_rounds_to_bfloat16_is_refused():
    import torch

    model = in_4_bits()
    rounds = next(m.support_avx512bf16_for_cpu for m in model.modules() if hasattr(m, "compute_dtype"))
    if not rounds:
        pytest.skip("bitsandbytes has no bfloat16 kernel for this CPU")
    assert not can_materialize(model)
    before = logits(model)
    with pytest.raises(QevalError, match="packed for a CPU kernel"):
        materialize(model)
    assert torch.equal(logits(model), before)


def test_a_layer_that_computes_in_another_dtype_is_refused():
    import torch

    model = in_4_bits()
    compute_in_own_dtype(model)
    for module in model.modules():
        if hasattr(module, "compute_dtype"):
            module.compute_dtype = torch.bfloat16
    assert not can_materialize(model)
    before = logits(model)
    with pytest.raises(QevalError, match="bfloat16"):
        materialize(model)
    assert torch.equal(logits(model), before)


def test_too_little_memory_is_refused():
    model = in_4_bits()
    compute_in_own_dtype(model)
    assert not can_materialize(model, free_bytes=1000)
    assert can_materialize(model, free_bytes=10**7)


def test_a_model_without_quantised_layers_is_refused():
    model = tiny_model("llama")
    assert not can_materialize(model)
    with pytest.raises(QevalError, match="no weight-only"):
        materialize(model)


def test_llm_int8_is_refused():
    bnb = pytest.importorskip("bitsandbytes")
    model = in_4_bits()
    compute_in_own_dtype(model)
    old = model.model.layers[0].mlp.up_proj
    new = bnb.nn.Linear8bitLt(old.in_features, old.out_features, bias=False, has_fp16_weights=False)
    model.model.layers[0].mlp.up_proj = new
    assert not can_materialize(model)
    with pytest.raises(QevalError, match="activations"):
        materialize(model)


def in_gptq(backend, dtype, desc_act):
    """A tiny model whose linear layers are gptqmodel's, with random codes, groups shuffled if wished."""
    pytest.importorskip("gptqmodel")
    import torch
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.nn_modules.qlinear.torch_aten_kernel import TorchAtenLinear

    model = tiny_model("olmo", dtype)  # its heads share no keys, so every matrix packs in 32 columns
    kind = {"torch": TorchLinear, "aten": TorchAtenLinear}[backend]
    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, _packed(kind, module, desc_act))
    return model.eval()


def _packed(kind, linear, desc_act):
    import torch

    torch.manual_seed(linear.in_features)
    group = 32
    layer = kind(
        bits=4,
        group_size=group,
        sym=False,
        desc_act=desc_act,
        in_features=linear.in_features,
        out_features=linear.out_features,
        bias=False,
    )
    order = torch.randperm(linear.in_features) if desc_act else torch.arange(linear.in_features)
    g_idx = torch.empty(linear.in_features, dtype=torch.int32)
    g_idx[order] = (torch.arange(linear.in_features) // group).int()
    scales = torch.rand(linear.out_features, linear.in_features // group) * 0.02 + 0.01
    zeros = torch.randint(4, 12, scales.shape).float()
    layer.pack(
        torch.nn.Linear(linear.in_features, linear.out_features, bias=False).float(), scales, zeros, g_idx
    )
    layer.optimized = True  # or it compiles for half a minute
    layer.post_init()
    return layer.eval()


@pytest.mark.parametrize("desc_act", [False, True])
def test_gptq_by_its_torch_kernel_is_the_same(desc_act):
    import torch

    model = in_gptq("torch", "float16", desc_act)
    before = logits(model)
    assert can_materialize(model)
    model, report = materialize(model)
    assert report.exact
    assert torch.equal(logits(model), before)


def test_gptq_by_a_kernel_that_rounds_activations_is_refused():
    model = in_gptq("aten", "float16", desc_act=False)
    assert not can_materialize(model)
    with pytest.raises(QevalError, match="TorchAtenLinear"):
        materialize(model)
