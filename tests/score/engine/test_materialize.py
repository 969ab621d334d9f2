"""Dequantising weight-only layers once: the same numbers, or a refusal."""

import numpy as np
import pytest
from architectures import tiny_model
from packed_models import in_4_bits, in_gptq

from qeval.base.errors import QevalError
from qeval.score.engine.materialize import can_materialize, compute_in_own_dtype, materialize

pytestmark = pytest.mark.torch
TOKENS = np.random.default_rng(0).integers(3, 97, (2, 17))


def logits(model):
    import torch

    with torch.no_grad():
        return model(torch.from_numpy(TOKENS)).logits


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
