"""Each scheme that runs on a CPU: the loaded modules are what was asked, and the weights differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_models import LINEARS, save_llama

from qeval.base.errors import QevalError
from qeval.base.records import Scheme, Variant
from qeval.load import model as models
from qeval.load.reading.proof import quantised_modules
from qeval.load.resolve import identity
from qeval.load.schemes import parse_schemes

pytestmark = [
    pytest.mark.torch,
    # the libraries' own, about each other
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("models") / "llama")


def load(model: Path, text: str, tmp_path: Path, **settings: Any) -> models.Loaded:
    ((_, scheme),) = parse_schemes(text)
    return models.load(Variant("v", str(model), scheme), device="cpu", cache_dir=tmp_path, **settings)


def logits(loaded: models.Loaded) -> Any:
    import torch

    with torch.no_grad():
        return loaded.model(torch.arange(20)[None] % 24).logits.float()


def distance(loaded: models.Loaded, llama: Path, tmp_path: Path) -> float:
    """How far the logits are from those of the unquantised model, relative to their spread."""
    plain = logits(load(llama, "fp16", tmp_path))
    return float((logits(loaded) - plain).norm() / plain.norm())


@pytest.mark.parametrize(
    ("text", "kind", "bits", "settings"),
    [
        ("bnb4", "Linear4bit", 4 + 32 / 64, {"bnb_4bit_quant_type": "nf4"}),
        ("bnb4[quant_type=fp4]", "Linear4bit", 4 + 32 / 64, {"bnb_4bit_quant_type": "fp4"}),
        ("bnb8", "Linear8bitLt", None, {"load_in_8bit": True, "llm_int8_threshold": 6.0}),
        ("bnb8[threshold=0]", "Linear8bitLt", None, {"llm_int8_threshold": 0.0}),
        ("rtn[bits=3,group_size=32]", "RoundedLinear", 3 + 19 / 32, {"bits": 3, "group_size": 32}),
        ("rtn[bits=5,group_size=64,symmetric=true]", "RoundedLinear", 5 + 16 / 64, {"symmetric": True}),
    ],
)
def test_every_linear_layer_but_the_head_is_what_was_asked(
    llama: Path, tmp_path: Path, text: str, kind: str, bits: float | None, settings: dict[str, Any]
) -> None:
    loaded = load(llama, text, tmp_path)
    found = loaded.provenance
    assert found.modules == {kind: LINEARS}
    assert found.linears == LINEARS + 1
    assert settings.items() <= found.quantization.items()
    assert found.dtype == "float16 weights, float32 compute"
    if bits is not None:
        assert found.bits_per_weight == pytest.approx(bits)
    assert 1e-4 < distance(loaded, llama, tmp_path) < 1


@pytest.mark.parametrize(
    ("package", "text", "kind", "bits", "settings"),
    [
        ("hqq", "hqq", "HQQLinear", 4 + 64 / 64, {"bits": 4, "group_size": 64, "axis": 1}),
        ("hqq", "hqq[bits=8,group_size=32]", "HQQLinear", 8 + 64 / 32, {"bits": 8}),
        ("torchao", "torchao", "Linear[Int8Tensor]", None, {"quant_method": "torchao"}),
        ("torchao", "torchao[weights=float8]", "Linear[Float8Tensor]", None, {"quant_method": "torchao"}),
        ("optimum.quanto", "quanto", "QLinear", None, {"weights": "int8"}),
    ],
)
def test_schemes_of_other_packages(
    llama: Path,
    tmp_path: Path,
    package: str,
    text: str,
    kind: str,
    bits: float | None,
    settings: dict[str, Any],
) -> None:
    pytest.importorskip(package)
    loaded = load(llama, text, tmp_path)
    found = loaded.provenance
    assert found.modules == {kind: LINEARS}
    assert found.linears == LINEARS + 1
    assert settings.items() <= found.quantization.items()
    assert found.bits_per_weight is not None
    assert found.bits_per_weight == pytest.approx(bits) if bits else 8 < found.bits_per_weight < 10
    assert 1e-4 < distance(loaded, llama, tmp_path) < 1


def test_8_bits_are_8_bits_and_a_scale_for_each_row(llama: Path, tmp_path: Path) -> None:
    found = load(llama, "bnb8", tmp_path).provenance
    weights = 2 * (64 * 64 * 2 + 64 * 32 * 2 + 64 * 128 * 3)
    rows = 2 * (64 + 32 + 32 + 64 + 128 + 128 + 64)
    assert found.bits_per_weight == pytest.approx((8 * weights + 32 * rows) / weights)


def test_simulated_weights_weigh_what_plain_ones_do(llama: Path, tmp_path: Path) -> None:
    plain, rounded = (load(llama, text, tmp_path).provenance for text in ("fp16", "rtn"))
    assert rounded.weight_bytes == plain.weight_bytes


def test_double_quantisation_saves_what_it_promises(tmp_path: Path) -> None:
    llama = save_llama(tmp_path / "wide", hidden=512)
    plain = load(llama, "bnb4", tmp_path).provenance.bits_per_weight
    double = load(llama, "bnb4[double_quant=true]", tmp_path).provenance.bits_per_weight
    assert plain == pytest.approx(4.5)
    assert double == pytest.approx(4 + 8 / 64 + 32 / (64 * 256), abs=0.005)


@pytest.mark.parametrize(("scheme", "kind"), [("bnb4", "Linear4bit"), ("bnb8", "Linear8bitLt")])
@pytest.mark.parametrize("skipped", ["down_proj", "down_proj+lm_head"])
def test_modules_are_skipped_beside_the_head(
    llama: Path, tmp_path: Path, scheme: str, kind: str, skipped: str
) -> None:
    loaded = load(llama, f"{scheme}[skip_modules={skipped}]", tmp_path)
    assert loaded.provenance.modules == {kind: LINEARS - 2}
    assert type(loaded.model.model.layers[0].mlp.down_proj).__name__ == "Linear"
    assert type(loaded.model.lm_head).__name__ == "Linear"


@pytest.mark.parametrize("scheme", ["rtn", "hqq", "torchao", "quanto"])
@pytest.mark.parametrize("skipped", ["down_proj", "model.layers.0.mlp.down_proj+model.layers.1.mlp"])
def test_every_scheme_that_quantises_while_loading_leaves_modules_plain(
    llama: Path, tmp_path: Path, scheme: str, skipped: str
) -> None:
    loaded = load(llama, f"{scheme}[skip_modules={skipped}]", tmp_path)
    whole = load(llama, scheme, tmp_path)
    found, every = (set(quantised_modules(one.model)) for one in (loaded, whole))
    words = ("layers.0.mlp.down_proj", "layers.1.mlp") if "." in skipped else (skipped,)
    assert every - found == {name for name in every if any(word in name for word in words)} != set()
    assert loaded.provenance.bits_overall > whole.provenance.bits_overall


def test_a_key_holds_what_is_left_out_only_where_it_was_asked_for(llama: Path, tmp_path: Path) -> None:
    for kind in ("rtn", "hqq", "torchao", "quanto"):
        told = [
            identity(Variant("v", str(llama), Scheme(kind, options)), tmp_path)["options"]
            for options in ({}, {"skip_modules": "down_proj"})
        ]
        assert told[1] == {**told[0], "skip_modules": "down_proj"}
        assert "skip_modules" not in told[0]


@pytest.mark.parametrize("scheme", ["bnb4", "bnb8", "rtn", "hqq", "torchao", "quanto", "gptq", "awq"])
@pytest.mark.parametrize("word", ["qproj", "q_pro", "+down_proj", "*"])
def test_a_module_that_is_not_there_cannot_be_skipped(
    llama: Path, tmp_path: Path, scheme: str, word: str
) -> None:
    with pytest.raises(QevalError, match="skip_modules="):
        load(llama, f"{scheme}[skip_modules=o_proj+{word}]", tmp_path)


@pytest.mark.parametrize("text", ["fp32", "bnb4", "bnb8", "rtn", "hqq", "torchao", "quanto"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_attention_asked_for_is_used(llama: Path, tmp_path: Path, text: str, attention: str) -> None:
    pytest.importorskip({"quanto": "optimum.quanto", "hqq": "hqq", "torchao": "torchao"}.get(text, "torch"))
    loaded = load(llama, f"{text}[attention={attention}]", tmp_path)
    assert loaded.model.config._attn_implementation == attention


def test_the_compute_dtype_is_honoured(llama: Path, tmp_path: Path) -> None:
    import torch

    layer = load(llama, "bnb4", tmp_path).model.model.layers[0].mlp.up_proj
    assert layer.compute_dtype == torch.float32
    layer = load(llama, "bnb4[compute_dtype=bfloat16]", tmp_path).model.model.layers[0].mlp.up_proj
    assert layer.compute_dtype == torch.bfloat16


def test_fewer_bits_are_farther_away(llama: Path, tmp_path: Path) -> None:
    order = ["rtn[bits=8]", "rtn[bits=4]", "rtn[bits=3]", "rtn[bits=2]"]
    found = [distance(load(llama, text, tmp_path), llama, tmp_path) for text in order]
    assert found == sorted(found)


@pytest.mark.parametrize("text", ["bnb4", "bnb8"])
def test_a_saved_checkpoint_is_read_back_with_its_own_settings(
    llama: Path, tmp_path: Path, text: str
) -> None:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    fp4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"}
    settings = fp4 if text == "bnb4" else {"load_in_8bit": True}
    ready = tmp_path / "ready"
    AutoModelForCausalLM.from_pretrained(
        llama, quantization_config=BitsAndBytesConfig(**settings), device_map={"": "cpu"}, dtype="float16"
    ).save_pretrained(ready)
    loaded = load(llama, f"{text}@{ready}", tmp_path)
    assert loaded.provenance.modules == load(llama, text, tmp_path).provenance.modules
    assert loaded.provenance.model == str(ready)
    same = load(llama, "bnb4[quant_type=fp4]" if text == "bnb4" else text, tmp_path)
    assert (logits(loaded) - logits(same)).abs().max() < 1e-3
    if text == "bnb4":
        assert loaded.provenance.quantization["bnb_4bit_quant_type"] == "fp4"
        other_type = load(llama, f"bnb4[compute_dtype=bfloat16]@{ready}", tmp_path).model
        assert str(other_type.model.layers[0].mlp.up_proj.compute_dtype) == "torch.bfloat16"
        with pytest.raises(QevalError, match="has bnb_4bit_quant_type fp4, where quant_type=nf4 was asked"):
            load(llama, f"bnb4[quant_type=nf4]@{ready}", tmp_path)
    other = "bnb8" if text == "bnb4" else "bnb4"
    with pytest.raises(QevalError, match=f"so it is not a checkpoint of {other}") as caught:
        load(llama, f"{other}@{ready}", tmp_path)
    assert caught.value.hint == f"Write: {text}@{ready}"


def save_adapter(llama: Path, place: Path) -> Path:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(llama), config).save_pretrained(place)
    return place


def test_an_adapter_merged_or_beside_the_weights(llama: Path, tmp_path: Path) -> None:
    adapter = save_adapter(llama, tmp_path / "adapter")

    def with_adapter(kind: str, name: str | None) -> models.Loaded:
        variant = Variant("v", str(llama), Scheme(kind), adapter=name)
        return models.load(variant, device="cpu", cache_dir=tmp_path)

    beside, merged = with_adapter("fp32", str(adapter)), with_adapter("fp32", f"merged:{adapter}")
    plain = logits(with_adapter("fp32", None))
    assert (logits(beside) - logits(merged)).abs().max() < 1e-3
    assert (logits(beside) - plain).abs().max() > 0.01
    assert any("unmerged (4 layers)" in note for note in beside.provenance.notes)
    assert any("merged into the weights (4 layers)" in note for note in merged.provenance.notes)
    assert sum("lora" in name for name, _ in beside.model.named_modules()) > 0
    assert sum("lora" in name for name, _ in merged.model.named_modules()) == 0
    assert beside.provenance.linears == merged.provenance.linears == LINEARS + 1
    assert with_adapter("bnb4", str(adapter)).provenance.modules == {"Linear4bit": LINEARS}


@pytest.mark.parametrize("kind", ["bnb4", "bnb8", "hqq", "torchao"])
def test_what_is_merged_is_quantised_again(llama: Path, tmp_path: Path, kind: str) -> None:
    pytest.importorskip({"bnb4": "bitsandbytes", "bnb8": "bitsandbytes"}.get(kind, kind))
    adapter = save_adapter(llama, tmp_path / "adapter")
    plain, beside, merged = (
        models.load(Variant("v", str(llama), Scheme(kind), adapter=name), device="cpu", cache_dir=tmp_path)
        for name in (None, str(adapter), f"merged:{adapter}")
    )
    assert merged.provenance.modules == plain.provenance.modules
    moved = (logits(beside) - logits(plain)).norm()
    assert (logits(merged) - logits(beside)).norm() < moved / 2 < (logits(merged) - logits(plain)).norm()


def test_merging_that_changes_nothing_is_refused(llama: Path, tmp_path: Path) -> None:
    pytest.importorskip("optimum.quanto")  # which drops what is added to its weights
    adapter = save_adapter(llama, tmp_path / "adapter")
    variant = Variant("v", str(llama), Scheme("quanto"), adapter=f"merged:{adapter}")
    with pytest.raises(QevalError, match="changes nothing once it is merged") as caught:
        models.load(variant, device="cpu", cache_dir=tmp_path)
    assert f"--adapter {adapter}" in caught.value.hint


def test_an_adapter_of_another_model_is_refused(llama: Path, tmp_path: Path) -> None:
    adapter = save_adapter(save_llama(tmp_path / "wide", hidden=128), tmp_path / "adapter")
    variant = Variant("v", str(llama), Scheme("fp32"), adapter=str(adapter))
    with pytest.raises(QevalError, match="cannot be attached") as caught:
        models.load(variant, device="cpu", cache_dir=tmp_path)
    assert "trained on this model" in caught.value.hint


def test_a_group_size_that_does_not_divide_is_refused(llama: Path, tmp_path: Path) -> None:
    variant = Variant("v", str(llama), Scheme("rtn", {"group_size": 48}))
    with pytest.raises(QevalError, match="48 does not divide the 64 inputs of") as caught:
        models.load(variant, device="cpu", cache_dir=tmp_path)
    assert "group_size=64" in caught.value.hint
