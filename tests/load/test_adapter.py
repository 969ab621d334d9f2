"""Adapters: every trained tensor is used or refused by name, and what acts is what is told."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_models import edit_json, save_llama, save_tokenizer

from qeval.base.errors import QevalError
from qeval.base.records import Scheme, Variant
from qeval.load import model as models

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore"),  # peft's own, about what is refused here
]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("models") / "llama")


def base(llama: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(llama, dtype="float32")


def trained(model: Any, place: Path, config: Any) -> Path:
    """An adapter whose every number was moved by training, saved as peft does."""
    import torch
    from peft import get_peft_model

    torch.manual_seed(0)
    wrapped = get_peft_model(model, config)
    for tensor in wrapped.parameters():
        if tensor.requires_grad:
            tensor.data += 0.3 * torch.randn_like(tensor)
    wrapped.save_pretrained(place)
    return place


def lora(llama: Path, place: Path, **changes: Any) -> Path:
    from peft import LoraConfig

    targets = changes.pop("target_modules", ["q_proj", "down_proj"])
    return trained(
        base(llama), place, LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM", **changes)
    )


def load(llama: Path, adapter: Path | str | None, tmp_path: Path, scheme: str = "fp32") -> models.Loaded:
    variant = Variant("v", str(llama), Scheme(scheme), adapter=str(adapter) if adapter else None)
    return models.load(variant, device="cpu", cache_dir=tmp_path / "cache")


def logits(loaded: models.Loaded) -> Any:
    import torch

    with torch.no_grad():
        return loaded.model(torch.arange(3, 23)[None]).logits


def rewrite(adapter: Path, change: Any) -> None:
    """Change the tensors of an adapter's file: `change` takes and returns them by name."""
    from safetensors.torch import load_file, save_file

    file = adapter / "adapter_model.safetensors"
    save_file(change(load_file(file)), file, {"format": "pt"})


def elsewhere(names: Any) -> Any:
    return lambda tensors: {
        name.replace("layers.", "blocks.") if names(name) else name: tensor
        for name, tensor in tensors.items()
    }


@pytest.mark.parametrize("merged", ["", "merged:"])
@pytest.mark.parametrize(
    ("which", "count"), [(lambda _: True, 8), (lambda name: ".layers.1." in name, 4)], ids=["all", "half"]
)
def test_keys_without_a_place_are_refused_by_the_first_name(
    llama: Path, tmp_path: Path, merged: str, which: Any, count: int
) -> None:
    adapter = lora(llama, tmp_path / "adapter")
    rewrite(adapter, elsewhere(which))
    with pytest.raises(QevalError) as caught:
        load(llama, f"{merged}{adapter}", tmp_path)
    assert f"has {count} tensors that fit no layer of this model (the first: " in caught.value.message
    assert ".blocks." in caught.value.message


def test_layers_beyond_the_model_are_refused(llama: Path, tmp_path: Path) -> None:
    adapter = lora(save_llama(tmp_path / "deep", num_hidden_layers=4), tmp_path / "adapter")
    with pytest.raises(QevalError, match=r"8 tensors that fit no layer .*layers\.2\."):
        load(llama, adapter, tmp_path)


@pytest.mark.parametrize("initialised", [True, False])
def test_tensors_that_the_file_does_not_hold_are_never_made_up(
    llama: Path, tmp_path: Path, initialised: bool
) -> None:
    adapter = lora(llama, tmp_path / "adapter")
    edit_json(adapter / "adapter_config.json", init_lora_weights=initialised)
    load(llama, adapter, tmp_path)
    rewrite(adapter, lambda tensors: {name: part for name, part in tensors.items() if ".layers.0." in name})
    with pytest.raises(QevalError, match=r"4 tensors too few: .*layers\.1\.mlp\.down_proj\.lora_A"):
        load(llama, adapter, tmp_path)


@pytest.mark.parametrize("kind", ["PromptTuningConfig", "PrefixTuningConfig", "PromptEncoderConfig"])
def test_trained_prompts_are_refused_in_a_sentence(llama: Path, tmp_path: Path, kind: str) -> None:
    import peft

    config = getattr(peft, kind)(task_type="CAUSAL_LM", num_virtual_tokens=4)
    adapter = trained(base(llama), tmp_path / "adapter", config)
    with pytest.raises(QevalError, match="tuning: it puts trained states before every text"):
        load(llama, adapter, tmp_path)


def test_ia3_acts_and_is_counted(llama: Path, tmp_path: Path) -> None:
    from peft import IA3Config

    config = IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"])
    adapter = trained(base(llama), tmp_path / "adapter", config)
    found = load(llama, adapter, tmp_path)
    assert not logits(found).equal(logits(load(llama, None, tmp_path)))
    assert f"The adapter {adapter} is beside the weights, unmerged (4 layers)." in found.provenance.notes
    assert found.provenance.warnings == ()


def test_an_adapter_that_was_not_trained_is_a_warning(llama: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    adapter = tmp_path / "adapter"
    get_peft_model(base(llama), LoraConfig(r=4, target_modules=["q_proj"])).save_pretrained(adapter)
    (told,) = load(llama, adapter, tmp_path).provenance.warnings
    assert told.startswith(f"The adapter {adapter} changes no logit of a probe")


def with_new_tokens(llama: Path, place: Path, how: str) -> tuple[Path, Any]:
    """An adapter trained on a model with six tokens more, and the logits that it gave then."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoTokenizer

    model = base(llama)
    tokenizer = AutoTokenizer.from_pretrained(llama)
    new = [f"<new{at}>" for at in range(47)]
    tokenizer.add_tokens(new)
    model.resize_token_embeddings(70)
    whole = ["embed_tokens", "lm_head"] if how == "modules_to_save" else None
    torch.manual_seed(0)
    wrapped = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=whole)).eval()
    for tensor in wrapped.parameters():
        if tensor.requires_grad:
            tensor.data += 0.3 * torch.randn_like(tensor)
    wrapped.save_pretrained(place)
    tokenizer.save_pretrained(place)
    with torch.no_grad():
        return place, wrapped(torch.arange(50, 70)[None]).logits


@pytest.mark.parametrize("merged", ["", "merged:"])
@pytest.mark.parametrize("how", ["modules_to_save", "resized"])
def test_adapters_that_bring_new_tokens_answer_as_they_were_trained(
    llama: Path, tmp_path: Path, how: str, merged: str
) -> None:
    import torch

    adapter, expected = with_new_tokens(llama, tmp_path / "adapter", how)
    found = load(llama, f"{merged}{adapter}", tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(
            found.model(torch.arange(50, 70)[None]).logits, expected, rtol=1e-4, atol=1e-4
        )
    assert f"The adapter {adapter} brings 6 tokens of its own." in found.provenance.notes
    assert f"The tokenizer is that of {adapter}, which adds 47 tokens." in found.provenance.notes
    variant = Variant("v", str(llama), Scheme("fp32"), adapter=f"{merged}{adapter}")
    asked, _ = models.load_tokenizer(variant, cache_dir=tmp_path)
    assert len(asked) == len(found.tokenizer) == 70
    assert asked("the <new46>")["input_ids"][-1] == 69


def test_new_tokens_without_weights_to_answer_them_are_refused(llama: Path, tmp_path: Path) -> None:
    adapter, _ = with_new_tokens(llama, tmp_path / "adapter", "modules_to_save")
    rewrite(adapter, lambda tensors: {name: part for name, part in tensors.items() if "lm_head" not in name})
    with pytest.raises(QevalError, match=r"brings 6 tokens more .* no weights for answering them"):
        load(llama, adapter, tmp_path)


def test_a_tokenizer_beside_an_adapter_that_adds_nothing_is_not_used(llama: Path, tmp_path: Path) -> None:
    adapter = lora(llama, tmp_path / "adapter")
    save_tokenizer(adapter, bos_token="the")
    loaded = load(llama, adapter, tmp_path)
    assert loaded.tokenizer.bos_token == "<s>"
    assert not any("tokenizer is that of" in note for note in loaded.provenance.notes)


def test_linear_layers_are_those_of_the_model(llama: Path, tmp_path: Path) -> None:
    adapter, _ = with_new_tokens(llama, tmp_path / "adapter", "modules_to_save")
    plain = load(llama, None, tmp_path).provenance.linears
    assert load(llama, adapter, tmp_path).provenance.linears == plain
    shutil.rmtree(adapter)
