"""An option that was written acts, or is refused before weights are read; so are merged adapters that would
leave a scheme's grid."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_models import edit_json, save_llama
from tiny_worlds import QUIET

from qeval.base.errors import MissingPackageError, QevalError
from qeval.base.records import Scheme, Variant
from qeval.load import adapter, checks
from qeval.load import model as models
from qeval.load.checks import check_available
from qeval.load.provenance import check_options
from qeval.load.reading import opening
from qeval.load.resolve import resolve
from qeval.load.schemes import SCHEMES, parse_schemes
from qeval.load.source import Source
from qeval.load.spec import OptionSpec

pytestmark = QUIET


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture
def unreadable(llama: Path, tmp_path: Path) -> Path:
    """A model whose weights cannot be read, so that a refusal of something else came before them."""
    import shutil

    place = Path(shutil.copytree(llama, tmp_path / "unreadable"))
    (place / "model.safetensors").write_bytes(b"never read")
    return place


@pytest.fixture(autouse=True)
def _all_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "missing_packages", lambda *_: [])


def load(model: Path, text: str, tmp_path: Path, **fields: Any) -> models.Loaded:
    ((_, scheme),) = parse_schemes(text)
    variant = Variant("v", str(model), scheme, **fields)
    return models.load(variant, device="cpu", cache_dir=tmp_path / "cache")


def refusal(*args: Any, **fields: Any) -> QevalError:
    with pytest.raises(QevalError) as caught:
        load(*args, **fields)
    return caught.value


def some_value(option: OptionSpec) -> Any:
    return option.default or (option.choices or ("word",))[0]


@pytest.mark.parametrize(
    ("text", "idle"),
    [
        ("gptq[damp=0.5,calibration=c4,samples=3]@org/ready", "damp, calibration, samples"),
        ("gptq[bits=4,group_aware=false,backend=torch]@org/ready", "group_aware"),
        ("awq[seed=0]@org/ready", "seed"),
        ("bnb4[skip_modules=q_proj]@org/ready", "skip_modules"),
        ("torchao[weights=int4,group_size=32]@org/ready", "weights, group_size"),
    ],
)
def test_what_cannot_act_on_a_ready_checkpoint_is_refused(text: str, idle: str) -> None:
    ((_, scheme),) = parse_schemes(text)
    with pytest.raises(QevalError) as caught:
        check_available(scheme)
    kind = scheme.kind
    assert caught.value.message == f"{kind}@org/ready is read as it is, so these have no effect: {idle}."
    assert caught.value.hint == f"Leave out {idle}: the checkpoint was made already."
    check_available(replace(scheme, checkpoint=None))


@pytest.mark.parametrize(
    ("name", "option"),
    [(name, option) for name, spec in SCHEMES.items() if spec.checkpoint != "no" for option in spec.options],
    ids=lambda value: getattr(value, "name", value),
)
def test_every_option_of_a_ready_checkpoint_is_read_checked_or_refused(name: str, option: OptionSpec) -> None:
    scheme = Scheme(name, {option.name: some_value(option)}, "org/ready")
    if option.name in SCHEMES[name].config_keys or option.acts == "reading":
        check_available(scheme)
    else:
        with pytest.raises(QevalError, match=r"have no effect|has an effect only"):
            check_available(scheme)


def test_what_acts_on_reading() -> None:
    """Anything more is a promise that a loader honours it for ready checkpoints too."""
    found = {option.name for spec in SCHEMES.values() for option in spec.options if option.acts == "reading"}
    assert found == {"attention", "backend", "compute_dtype", "file", "fp32_cpu_offload", "unpack"}


def save_8bit(llama: Path, place: Path) -> Path:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    config = BitsAndBytesConfig(load_in_8bit=True)
    model = AutoModelForCausalLM.from_pretrained(
        llama, quantization_config=config, device_map={"": "cpu"}, dtype="float16"
    )
    model.save_pretrained(place)
    return place


def test_an_option_of_0_is_compared_too(llama: Path, tmp_path: Path) -> None:
    ready = save_8bit(llama, tmp_path / "ready")
    error = refusal(llama, f"bnb8[threshold=0]@{ready}", tmp_path)
    assert "has llm_int8_threshold 6.0, where threshold=0.0 was asked" in error.message
    load(llama, f"bnb8[threshold=6]@{ready}", tmp_path)


def test_only_the_group_size_that_fits_is_not_compared(llama: Path, tmp_path: Path) -> None:
    ((_, scheme),) = parse_schemes(f"gptq[bits=4,group_size=0]@{llama}")
    variant = Variant("v", str(llama), scheme)
    recipe = models.recipe_of(variant, resolve(variant), "cpu", "auto", tmp_path, lambda _: None)
    check_options(scheme, SCHEMES["gptq"], {"bits": 4, "group_size": 64}, recipe)
    with pytest.raises(QevalError, match="does not tell its bits, where bits=4 was asked"):
        check_options(scheme, SCHEMES["gptq"], {"group_size": 64}, recipe)


def test_a_group_size_of_torchao_acts_for_4_bits_only() -> None:
    for weights in ("int4", "int4-packed"):
        check_available(Scheme("torchao", {"weights": weights, "group_size": 32}))
    for options in ({}, {"weights": "float8"}):
        with pytest.raises(
            QevalError, match="has an effect only together with weights=int4 or weights=int4-packed"
        ) as caught:
            check_available(Scheme("torchao", {**options, "group_size": 64}))
        assert caught.value.hint == "Leave out group_size, or write weights=int4 or weights=int4-packed."


@pytest.mark.parametrize(
    ("text", "others"),
    [
        *((f"gptq[backend={name}]", "auto, torch, torch_fused") for name in ("triton", "exllama_v2")),
        *((f"gptq[backend={name}]", "auto, torch, torch_fused") for name in ("marlin", "machete", "bitblas")),
        *((f"awq[backend={name}]", "auto, torch") for name in ("gemm_triton", "exllama_v2")),
        *((f"awq[backend={name}]", "auto, torch") for name in ("marlin", "machete")),
        ("torchao[weights=int4-packed]", "int8, int4, float8"),
        ("fp16[attention=flash_attention_2]", "auto, eager, sdpa, flex_attention"),
    ],
)
def test_what_a_cpu_cannot_run_is_refused_before_weights_are_read(
    unreadable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, others: str
) -> None:
    monkeypatch.setattr(checks.importlib.util, "find_spec", lambda name: name)
    error = refusal(unreadable, text, tmp_path)
    option, _, value = text.partition("[")[2].removesuffix("]").partition("=")
    assert error.message == f"{option}={value} runs on NVIDIA GPUs only, and the device is cpu."
    assert error.hint == f"Choose {option} from: {others}."


@pytest.mark.parametrize("brings", ["flash_attn", "kernels", None])
def test_flash_attention_without_its_package_is_refused(
    monkeypatch: pytest.MonkeyPatch, brings: str | None
) -> None:
    monkeypatch.setattr(checks.importlib.util, "find_spec", lambda name: name if name == brings else None)
    scheme = Scheme("bnb4", {"attention": "flash_attention_2"})
    if brings:
        check_available(scheme)
    else:
        with pytest.raises(MissingPackageError, match="needs flash-attn") as caught:
            check_available(scheme)
        assert "pip install --no-build-isolation flash-attn" in caught.value.hint
    check_available(Scheme("bnb4", {"attention": "sdpa"}))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("rtn", False),
        ("gguf@org/ready", False),
        ("quip@org/ready", False),
        ("compressed-tensors@org/ready", False),
        ("fp8[unpack=true]@org/ready", False),
        ("mxfp4[unpack=true]@org/ready", False),
        ("fp16", True),
        ("bnb4", True),
        ("fp8@org/ready", True),
    ],
)
def test_an_adapter_is_not_merged_into_what_is_off_its_grid_then(text: str, kept: bool) -> None:
    ((_, scheme),) = parse_schemes(text)
    spec, options = SCHEMES[scheme.kind], SCHEMES[scheme.kind].complete(scheme.options)
    adapter.check("org/adapter", spec, options)
    if kept:
        adapter.check("merged:org/adapter", spec, options)
        return
    with pytest.raises(QevalError, match="off its grid once org/adapter is merged") as caught:
        adapter.check("merged:org/adapter", spec, options)
    assert "--adapter org/adapter" in caught.value.hint


def test_merging_is_refused_before_weights_are_read(unreadable: Path, tmp_path: Path) -> None:
    assert "off its grid" in refusal(unreadable, "rtn", tmp_path, adapter="merged:org/adapter").message


def test_layers_that_do_not_merge_take_the_adapter_beside_them(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    place = tmp_path / "adapter"
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False)
    peft.get_peft_model(AutoModelForCausalLM.from_pretrained(llama), config).save_pretrained(place)

    def unmergeable(_: Any) -> None:
        """As peft's layers for gptq and awq, whose error has no words."""
        raise NotImplementedError

    monkeypatch.setattr(peft.tuners.lora.LoraModel, "merge_and_unload", unmergeable)
    error = refusal(llama, "fp32", tmp_path, adapter=f"merged:{place}")
    assert error.message.endswith("adapter cannot be merged: this kind of layer does not know how.")
    assert f"--adapter {place}" in error.hint


def test_a_made_checkpoint_leaves_the_peak_of_memory_to_its_reading(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    spec = SCHEMES["fp32"]

    def load_it(recipe: Any) -> Any:
        events.append("load")
        return spec.load(recipe)

    changed = replace(spec, make=lambda _: events.append("make") or tmp_path, load=load_it)
    monkeypatch.setitem(SCHEMES, "fp32", changed)
    monkeypatch.setattr(models, "forget_peak", events.append)
    load(llama, "fp32", tmp_path)
    assert events == ["make", "cpu", "load"]


def test_the_remedy_of_an_unknown_error_is_true_of_every_command() -> None:
    """Only a command's own process shows a traceback after --debug; that of a run is in its log."""
    told = opening.explain(ValueError("a kernel's surprise"), Source("org/name"), "cpu")
    assert isinstance(told, QevalError)
    assert "log" in told.hint


@pytest.mark.parametrize("scheme", ["bnb4", "bnb8"])
def test_a_misspelt_module_is_refused_before_weights_are_read(
    unreadable: Path, tmp_path: Path, scheme: str
) -> None:
    error = refusal(unreadable, f"{scheme}[skip_modules=down_proj+qproj]", tmp_path)
    assert error.message == f"skip_modules=qproj names no linear layer of {unreadable}."
    assert error.hint == "Did you mean 'q_proj'?"
    edit_json(unreadable / "config.json", model_type="strange", architectures=["Strange"])
    assert "cannot be loaded" in refusal(unreadable, f"{scheme}[skip_modules=q_proj]", tmp_path).message
