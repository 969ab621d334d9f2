"""Tensors without a place in the model: what does not matter is told in one note, the rest is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_models import edit_json, save_llama

from qeval.base.errors import QevalError
from qeval.base.records import Scheme, Variant
from qeval.load import model as models

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
BIAS = "model.layers.{}.self_attn.q_proj.bias"


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return save_llama(tmp_path / "llama")


def load(place: Path, **settings: Any) -> models.Loaded:
    variant = Variant("v", str(place), Scheme("fp16"))
    return models.load(variant, device="cpu", cache_dir=place.parent / "cache", **settings)


def rewrite(place: Path, more: dict[str, Any], *, without: str = "", as_bin: bool = False) -> None:
    """Add tensors to a model's file, and leave one out."""
    import torch
    from safetensors.torch import load_file, save_file

    file = place / "model.safetensors"
    tensors = {name: tensor for name, tensor in load_file(file).items() if name != without}
    if as_bin:
        file.unlink()
        torch.save(tensors | more, place / "pytorch_model.bin")
    else:
        save_file(tensors | more, file, {"format": "pt"})


def biases() -> dict[str, Any]:
    import torch

    return {BIAS.format(at): torch.randn(64).half() * 3 for at in range(2)}


@pytest.mark.parametrize("as_bin", [False, True])
def test_biases_without_a_place_are_refused_by_the_first_name(llama: Path, as_bin: bool) -> None:
    rewrite(llama, biases(), as_bin=as_bin)
    with pytest.raises(QevalError) as caught:
        load(llama)
    assert "holds 2 tensors that LlamaForCausalLM has no place for (the first: " in caught.value.message
    assert BIAS.format(0) in caught.value.message
    assert caught.value.hint.endswith("--allow-unused 'model.layers.*.self_attn.q_proj.bias'.")


def test_what_is_allowed_by_name_is_left_out_and_a_warning(llama: Path) -> None:
    import torch

    rewrite(llama, biases())
    found = load(llama, allow_unused=("model.layers.*.self_attn.q_proj.bias",)).provenance
    (told,) = found.warnings
    assert told == (
        f"{llama} holds 2 tensors that the model has no place for: 2 left out as --allow-unused says"
        f" ({BIAS.format(0)}): this is not the model that was saved."
    )
    rewrite(llama, {"model.other.weight": torch.ones(3)})
    with pytest.raises(QevalError, match=r"1 tensor that .* \(the first: model.other.weight\)"):
        load(llama, allow_unused=("*.bias",))


@pytest.mark.parametrize("as_bin", [False, True])
def test_what_no_answer_depends_on_is_told_in_one_note(llama: Path, as_bin: bool) -> None:
    import torch
    from safetensors.torch import load_file

    embeddings = load_file(llama / "model.safetensors")["model.embed_tokens.weight"]
    rewrite(
        llama,
        {
            BIAS.format(0): torch.zeros(64),
            BIAS.format(1): torch.zeros(64),
            "model.layers.0.self_attn.rotary_emb.inv_freq": torch.randn(16),
            "model.embedding_copy.weight": embeddings.clone(),
            "model.layers.0.self_attn.k_scale": torch.ones(1),
            "vision_tower.layers.0.weight": torch.ones(4),
            "mtp.fc.weight": torch.ones(4),
        },
        as_bin=as_bin,
    )
    found = load(llama).provenance
    assert found.warnings == ()
    (told,) = (note for note in found.notes if "no place for" in note)
    assert "holds 7 tensors" in told
    assert "1 named by transformers as not needed (model.layers.0.self_attn.rotary_emb.inv_freq)" in told
    assert f"2 nothing but zeros ({BIAS.format(0)})" in told
    assert "1 copies of the embeddings (model.embedding_copy.weight)" in told
    assert "1 scales of a key-value cache (model.layers.0.self_attn.k_scale)" in told
    assert "2 parts that a language model does not use (mtp.fc.weight)" in told


def test_blocks_that_predict_further_ahead_are_told(llama: Path) -> None:
    import torch

    rewrite(llama, {"model.layers.2.eh_proj.weight": torch.ones(4)})
    with pytest.raises(QevalError, match=r"model\.layers\.2\.eh_proj"):
        load(llama)
    edit_json(llama / "config.json", num_nextn_predict_layers=1)
    assert any("1 parts that a language model does not use" in note for note in load(llama).provenance.notes)


def test_an_ordinary_model_has_nothing_to_tell(llama: Path) -> None:
    assert not any("no place for" in note for note in load(llama).provenance.notes)


def test_a_missing_tensor_is_refused_though_transformers_excuses_it(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlamaForCausalLM

    monkeypatch.setattr(LlamaForCausalLM, "_keys_to_ignore_on_load_missing", {"o_proj", "norm.weight"})
    rewrite(llama, {}, without="model.layers.1.self_attn.o_proj.weight")
    with pytest.raises(QevalError, match=r"no values to 1 tensors .*layers\.1\.self_attn\.o_proj\.weight"):
        load(llama)


def test_a_tensor_that_is_made_up_as_a_constant_is_excused(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlamaForCausalLM

    monkeypatch.setattr(LlamaForCausalLM, "_keys_to_ignore_on_load_missing", {"norm.weight"})
    rewrite(llama, {}, without="model.norm.weight")
    load(llama)


@pytest.mark.parametrize("name", ["model.layers.0.attn.bias", "model.layers.0.attention.bias"])
def test_a_trained_bias_by_the_name_of_a_mask_is_refused(llama: Path, name: str) -> None:
    import torch

    rewrite(llama, {name: torch.randn(64) * 3})
    with pytest.raises(QevalError, match=f"the first: {name}"):
        load(llama)


def test_a_mask_is_left_out(llama: Path) -> None:
    import torch

    mask = torch.ones(8, 8).tril().bool()[None, None]
    rewrite(llama, {"model.layers.0.attn.bias": mask, "model.layers.0.attn.masked_bias": torch.tensor(-1e4)})
    assert any("2 buffers that are calculated" in note for note in load(llama).provenance.notes)


def test_no_more_blocks_predict_further_than_the_configuration_says(tmp_path: Path) -> None:
    place = save_llama(tmp_path / "llama", num_hidden_layers=4)
    edit_json(place / "config.json", num_hidden_layers=2, num_nextn_predict_layers=1)
    with pytest.raises(QevalError, match=r"holds 9 tensors .*the first: model.layers.3"):
        load(place)
    edit_json(place / "config.json", num_nextn_predict_layers=2)
    assert any("18 parts that" in note for note in load(place).provenance.notes)


@pytest.mark.parametrize("dtype", ["int8", "float8_e4m3fn"])
def test_quantised_weights_that_nothing_explains_are_refused(llama: Path, dtype: str) -> None:
    import torch

    name = "model.layers.0.self_attn.q_proj.weight"
    rewrite(llama, {name: torch.ones(64, 64).to(getattr(torch, dtype))})
    with pytest.raises(QevalError, match=f"{name} of .* is stored as .*no quantization_config"):
        load(llama)
