"""What transformers keeps in float32 stays so, whatever is loaded and calculated in, and is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_models import save_tokenizer

from qeval.base.records import Scheme, Variant
from qeval.load import model as models

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
SIZES = {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.2,
}


@pytest.fixture(scope="module")
def ernie(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mixture of experts whose router is float32 in its file, as that of Ernie 4.5 is."""
    import torch
    from transformers import Ernie4_5_MoeConfig, Ernie4_5_MoeForCausalLM

    torch.manual_seed(0)
    config = Ernie4_5_MoeConfig(
        **SIZES,
        moe_intermediate_size=64,
        moe_num_experts=4,
        moe_k=2,
        moe_layer_start_index=0,
        moe_num_shared_experts=1,
    )
    place = tmp_path_factory.mktemp("models") / "ernie"
    model = Ernie4_5_MoeForCausalLM(config)
    for name, tensor in model.named_parameters():
        if "gate.weight" in name:
            torch.nn.init.normal_(tensor, std=0.2)
        else:
            tensor.data = tensor.data.half()
    model.save_pretrained(place)
    save_tokenizer(place)
    return place


def load(place: Path, scheme: str, tmp_path: Path, **settings: Any) -> models.Loaded:
    return models.load(
        Variant("v", str(place), Scheme(scheme)), device="cpu", cache_dir=tmp_path / "cache", **settings
    )


@pytest.mark.parametrize(
    ("scheme", "dtype"), [("fp16", "fp16"), ("bf16", "bf16"), ("bnb4", "bf16"), ("rtn", "fp16")]
)
def test_a_router_stays_in_float32_and_is_told(ernie: Path, tmp_path: Path, scheme: str, dtype: str) -> None:
    import torch
    from safetensors.torch import load_file

    loaded = load(ernie, scheme, tmp_path, dtype=dtype)
    stored = load_file(ernie / "model.safetensors")
    routers = {
        name: tensor for name, tensor in loaded.model.named_parameters() if name.endswith("gate.weight")
    }
    assert len(routers) == 2
    for name, tensor in routers.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, stored[name].float())
    assert loaded.model.get_input_embeddings().weight.dtype == getattr(
        torch, {"fp16": "float16", "bf16": "bfloat16"}[dtype]
    )
    told = [note for note in loaded.provenance.notes if "keeps" in note]
    assert len(told) == 1
    assert "model.layers.*.mlp.gate.weight" in told[0]


def test_kept_weights_count_as_they_are_held(ernie: Path, tmp_path: Path) -> None:
    loaded = load(ernie, "fp16", tmp_path, dtype="fp16")
    assert loaded.provenance.weight_bytes == sum(
        tensor.numel() * tensor.dtype.itemsize
        for tensor in (*loaded.model.parameters(), *loaded.model.buffers())
    ) - sum(2 * tensor.numel() for tensor in loaded.model.buffers() if tensor.dtype.itemsize == 4)
    assert loaded.provenance.weight_bytes == load(ernie, "fp16", tmp_path).provenance.weight_bytes


def test_an_ordinary_model_keeps_nothing(tmp_path: Path) -> None:
    from tiny_models import save_llama

    loaded = load(save_llama(tmp_path / "llama"), "fp16", tmp_path, dtype="fp16")
    assert not any("keeps" in note for note in loaded.provenance.notes)
