"""Ready checkpoints of other tools: what they hold is told, and what is scored are their own weights."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ready_checkpoints import (
    save_aqlm,
    save_autoround,
    save_compressed,
    save_fp8,
    save_gpt_oss,
    save_mxfp4,
    save_spqr,
    save_vptq,
    unpack_spqr,
)
from tiny_models import LINEARS, edit_json, save_llama
from tiny_worlds import QUIET, logits

from qeval.base.errors import MissingPackageError, QevalError
from qeval.base.records import Scheme, Variant
from qeval.load import checks, packages
from qeval.load import model as models
from qeval.load.checks import check_available
from qeval.load.resolve import resolve
from qeval.load.schemes import SCHEMES, parse_schemes

pytestmark = QUIET
WEIGHTS = 2 * (64 * 64 * 2 + 64 * 32 * 2 + 64 * 128 * 3)
ROWS = 2 * (64 + 32 + 32 + 64 + 128 + 128 + 64)
# vptq itself cannot be imported without sentence-transformers
vptq = pytest.mark.skipif(importlib.util.find_spec("vptq") is None, reason="vptq is not installed")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("models") / "llama")


def load(model: Path, text: str, tmp_path: Path, **settings: Any) -> models.Loaded:
    ((_, scheme),) = parse_schemes(text)
    variant = Variant("v", str(model), scheme)
    return models.load(variant, device="cpu", cache_dir=tmp_path / "cache", **settings)


def plain_with(model: Path, dense: dict[str, Any]) -> Any:
    """The logits in float32 of the plain model with other weights in the places that `dense` names."""
    import torch
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    parameters = dict(plain.named_parameters())
    for name, weight in dense.items():
        parameters[name if name in parameters else f"{name}.weight"].data = weight.clone()
    return logits(plain)


def differ(ours: Any, theirs: Any) -> float:
    """How far logits are from each other, relative to their spread."""
    return float((ours.float() - theirs).norm() / theirs.norm())


@pytest.mark.parametrize(
    ("preset", "group_size", "form", "bits"),
    [
        ("W4A16", 32, "pack-quantized", 4 + 16 / 32),
        ("W4A16_ASYM", 32, "pack-quantized", 4 + (16 + 4) / 32),
        ("W8A16", 64, "pack-quantized", 8 + 16 / 64),
        ("W8A8", None, "int-quantized", 8 + 16 * ROWS / WEIGHTS),
        ("FP8_DYNAMIC", None, "float-quantized", 8 + 16 * ROWS / WEIGHTS),
    ],
)
def test_compressed_tensors(
    llama: Path, tmp_path: Path, preset: str, group_size: int | None, form: str, bits: float
) -> None:
    pytest.importorskip("compressed_tensors")
    dense = save_compressed(llama, tmp_path / "ready", preset, group_size)
    if preset == "W4A16_ASYM":  # unpacked while loading, in the type of the file's scales
        dense = {name: weight.half().float() for name, weight in dense.items()}
    loaded = load(llama, f"compressed-tensors@{tmp_path / 'ready'}", tmp_path)
    found = loaded.provenance
    assert found.modules == {f"Linear[{form}]": LINEARS}
    assert found.linears == LINEARS + 1
    assert found.bits_per_weight == pytest.approx(bits)
    assert found.quantization["format"] == form
    assert found.dtype == "float32"
    assert found.weight_bytes == load(llama, "fp16", tmp_path).provenance.weight_bytes + _beside(loaded)
    assert found.weight_bytes < 1.2 * 2 * (WEIGHTS + 2 * 64 * 64)
    layer = loaded.model.model.layers[0].mlp.up_proj
    assert layer.weight.dtype.is_floating_point
    assert (layer.weight - dense["model.layers.0.mlp.up_proj"]).abs().max() < 1e-6
    note = next(note for note in found.notes if "unpacked" in note)
    rounds = "A8" in preset or "FP8" in preset
    assert ("its activations still rounded" in note) == rounds
    distance = differ(logits(loaded.model), plain_with(llama, dense))
    assert (1e-3 < distance < 0.3) if rounds else distance < 1e-5  # rounded activations cost more
    assert differ(logits(loaded.model), plain_with(llama, {})) > 1e-3


def _beside(loaded: models.Loaded) -> int:
    """Bytes of the scales, zeros and shapes that stay beside the unpacked weights."""
    from qeval.load.reading.proof import own_tensors, quantised_modules

    kept = [
        min(tensor.dtype.itemsize, 2 if tensor.is_floating_point() else 8) * tensor.numel()
        for module in quantised_modules(loaded.model).values()
        for name, tensor in own_tensors(module)
        if name != "weight"
    ]
    return sum(kept)


@pytest.mark.parametrize(("books", "bits"), [(1, 16), (2, 8), (1, 4)])
def test_aqlm(llama: Path, tmp_path: Path, books: int, bits: int) -> None:
    pytest.importorskip("aqlm")
    dense = save_aqlm(llama, tmp_path / "ready", books, bits)
    loaded = load(llama, f"aqlm@{tmp_path / 'ready'}", tmp_path)
    found = loaded.provenance
    assert found.modules == {"QuantizedLinear": LINEARS}
    assert found.linears == LINEARS + 1
    codebooks = LINEARS * books * 2**bits * 8 * 16
    held = 8 if bits <= 8 else 16  # codes of 4 bits take a byte each
    assert found.bits_per_weight == pytest.approx(books * held / 8 + (codebooks + 16 * ROWS) / WEIGHTS)
    assert {"num_codebooks": books, "nbits_per_codebook": bits}.items() <= found.quantization.items()
    theirs = plain_with(llama, dense)
    assert all(differ(logits(loaded.model), theirs) < 1e-5 for _ in range(3))
    assert any("AQLM" in note for note in found.notes)


def stored_bits(llama: Path, ready: Path) -> float:
    """Bits of a weight, from all that a checkpoint holds and the plain model does not."""
    from safetensors.torch import load_file

    plain, found = (load_file(place / "model.safetensors") for place in (llama, ready))
    held = [tensor.numel() * tensor.dtype.itemsize for name, tensor in found.items() if name not in plain]
    return 8 * sum(held) / WEIGHTS


@vptq
@pytest.mark.parametrize(
    "settings",
    [
        {"shared": True},
        {"bits": 12, "residual": 8, "adjusted": True},
        {"vector": 6, "bits": 8, "residual": 8, "groups": 2, "outliers": 16, "adjusted": True},
    ],
)
def test_vptq(llama: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    dense = save_vptq(llama, tmp_path / "ready", **settings)
    loaded = load(llama, f"vptq@{tmp_path / 'ready'}", tmp_path)
    found = loaded.provenance
    assert found.modules == {"VQuantLinear": LINEARS}
    assert found.linears == LINEARS + 1
    assert found.bits_per_weight == pytest.approx(stored_bits(llama, tmp_path / "ready"))
    if settings.get("shared"):
        assert found.bits_per_weight == pytest.approx(8 / 8 + LINEARS * 2**8 * 8 * 16 / WEIGHTS)
    assert found.quantization["group_num"] == settings.get("groups", 1)
    assert found.quantization["num_centroids"][1] == 2 ** settings.get("bits", 8)
    widths = sorted(found.quantization["group_size"])
    assert widths == ([48 // 2, 112 // 2] if "groups" in settings else [64, 128])
    assert found.dtype == "float32"
    assert any("portable code" in note for note in found.notes)
    assert differ(logits(loaded.model), plain_with(llama, dense)) < 1e-5
    assert differ(logits(loaded.model), plain_with(llama, {})) > 1e-3


@vptq
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"num_res_centroids": [-1, 512]}, "has more residual centroids than main ones"),
        ({"indices_as_float": True}, "keeps its indices as floating-point numbers"),
    ],
)
def test_what_vptq_reads_wrongly_is_refused(
    llama: Path, tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    save_vptq(llama, tmp_path / "ready", residual=8)
    config = json.loads((tmp_path / "ready" / "config.json").read_text())["quantization_config"]
    config["config_for_layers"]["model.layers.1.mlp.up_proj"] |= changed
    edit_json(tmp_path / "ready" / "config.json", quantization_config=config)
    with pytest.raises(QevalError, match=rf"model\.layers\.1\.mlp\.up_proj {said}"):
        load(llama, f"vptq@{tmp_path / 'ready'}", tmp_path)


@vptq
def test_vptq_is_imported_alone() -> None:
    """Without what it imports for other ends, with no print, and with logging left as it was."""
    code = (
        "import logging, sys; from qeval.load.schemes.vptq import import_vptq; import_vptq(); import vptq\n"
        "assert not logging.getLogger().handlers\n"
        "assert 'sentence_transformers' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""


class StandIn:
    """A layer of spqr_quant 0.2.0 without its kernel: its misspelt maker, the first row of a batch only."""

    @staticmethod
    def create_placehodler(rows: int, cols: int, bits: int, beta1: int, beta2: int, **shapes: int) -> Any:
        import torch

        assert (bits, beta1, beta2) == (3, 16, 16)
        made = torch.nn.Module()
        for name, shape in shapes.items():
            kind = torch.int64 if name == "dense_weights_shape" else torch.int32
            held = torch.nn.Parameter(torch.empty(shape, dtype=kind), requires_grad=False)
            made.register_parameter(name.removesuffix("_shape"), held)

        def forward(inputs: Any) -> Any:
            tensors = {name: tensor.data for name, tensor in made.named_parameters()}
            tensors.setdefault("in_perm", torch.empty(0, dtype=torch.int32))
            weight = unpack_spqr(tensors, rows, cols)
            return (inputs[0].float() @ weight.t()).half()[None]

        made.forward = forward
        return made


def recipe_of(model: Path, text: str, dtype: str, cache: Path) -> Any:
    ((_, scheme),) = parse_schemes(text)
    variant = Variant("v", str(model), scheme)
    return models.recipe_of(variant, resolve(variant), "cpu", dtype, cache, lambda _: None)


@pytest.mark.parametrize("permuted", [True, False])
def test_spqr_without_its_kernel(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, permuted: bool
) -> None:
    import torch

    from qeval.load.reading import proof
    from qeval.load.schemes import spqr

    dense = save_spqr(llama, tmp_path / "ready", permuted=permuted)
    package = ModuleType("spqr_quant")
    package.QuantizedLinear = StandIn
    monkeypatch.setitem(sys.modules, "spqr_quant", package)
    recipe = recipe_of(llama, f"spqr@{tmp_path / 'ready'}", "float16", tmp_path)
    model = spqr.load(recipe)
    modules = proof.quantised_modules(model)
    assert len(modules) == LINEARS
    assert proof.linear_count(model) == LINEARS + 1
    assert proof.bits_per_weight(modules) == pytest.approx(stored_bits(llama, tmp_path / "ready"))
    assert recipe.evidence["quantization"] == {"quant_method": "spqr", "bits": 3, "beta1": 16, "beta2": 16}
    tokens = torch.stack([torch.arange(20) % 24, torch.arange(5, 25) % 24])
    with torch.no_grad():
        rows = model(tokens).logits.float()
    assert differ(rows[:1], plain_with(llama, dense)) < 1e-2  # float16
    assert differ(rows[:1], plain_with(llama, {})) > 0.1
    with torch.no_grad():
        assert differ(model(tokens[1:]).logits.float(), rows[1:]) < 1e-2


@pytest.mark.parametrize("permuted", [True, False])
def test_spqr_is_written_as_its_kernel_reads(llama: Path, tmp_path: Path, permuted: bool) -> None:
    import torch
    from safetensors.torch import load_file

    dense = save_spqr(llama, tmp_path / "ready", permuted=permuted)
    tensors = load_file(tmp_path / "ready" / "model.safetensors")
    for name, weight in dense.items():
        held = {
            key.removeprefix(f"{name}."): each for key, each in tensors.items() if key.startswith(f"{name}.")
        }
        assert torch.equal(unpack_spqr(held, *weight.shape), weight)


def test_spqr_is_refused_in_other_types(llama: Path, tmp_path: Path) -> None:
    from qeval.load.schemes import spqr

    recipe = recipe_of(llama, f"spqr@{tmp_path / 'never opened'}", "bfloat16", tmp_path)
    with pytest.raises(QevalError, match="float16 only, and bfloat16 was asked for"):
        spqr.load(recipe)


def test_spqr_with_a_bias_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qeval.load.schemes import spqr

    model = save_llama(tmp_path / "biased", attention_bias=True)
    save_spqr(model, tmp_path / "ready")
    package = ModuleType("spqr_quant")
    package.QuantizedLinear = StandIn
    monkeypatch.setitem(sys.modules, "spqr_quant", package)
    recipe = recipe_of(model, f"spqr@{tmp_path / 'ready'}", "float16", tmp_path)
    with pytest.raises(QevalError, match="has a bias"):
        spqr.load(recipe)


@pytest.mark.parametrize("bits", [4, 8])
def test_autoround(llama: Path, tmp_path: Path, bits: int) -> None:
    pytest.importorskip("auto_round")
    ready = save_autoround(llama, tmp_path / "made", "auto_round", bits=bits, group_size=32, sym=True)
    loaded = load(llama, f"autoround@{ready}", tmp_path)
    found = loaded.provenance
    assert found.modules == {"QuantLinear": LINEARS}
    assert found.linears == LINEARS + 1
    assert found.bits_per_weight == pytest.approx(bits + (16 + bits) / 32)
    assert {"bits": bits, "group_size": 32, "sym": True}.items() <= found.quantization.items()
    assert found.dtype == "float16 weights, float32 compute"
    assert logits(loaded.model).dtype.itemsize == 4
    assert differ(logits(loaded.model), plain_with(llama, _unpack_gptq(ready, bits))) < 1e-5
    assert differ(logits(loaded.model), plain_with(llama, {})) > 5e-3


def _unpack_gptq(ready: Path, bits: int) -> dict[str, Any]:
    """The weights that GPTQ's packing stands for: scale times (code - zero - 1), multiplied in float16."""
    import torch
    from safetensors.torch import load_file

    tensors = load_file(ready / "model.safetensors")
    shifts = torch.arange(0, 32, bits, dtype=torch.int32)
    dense = {}
    for name in [name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")]:
        packed, zeros, scales = (tensors[f"{name}.{part}"] for part in ("qweight", "qzeros", "scales"))
        codes = (packed[:, None, :] >> shifts[None, :, None] & (2**bits - 1)).reshape(-1, packed.shape[1])
        zeros = (zeros[:, :, None] >> shifts & (2**bits - 1)).reshape(scales.shape) + 1
        group = codes.shape[0] // scales.shape[0]
        whole = (codes - zeros.repeat_interleave(group, 0)).half() * scales.repeat_interleave(group, 0)
        dense[name] = whole.float().t()
    # auto-round saves what it does not pack in a type of its own choice
    others = ("model.embed_tokens", "lm_head")
    return dense | {name: tensors[f"{name}.weight"].half().float() for name in others}


def test_a_form_without_a_kernel_for_the_device_is_refused(llama: Path, tmp_path: Path) -> None:
    pytest.importorskip("auto_round")
    packing = "auto_round:auto_gptq"
    ready = save_autoround(llama, tmp_path / "made", packing, bits=4, group_size=32, sym=False)
    with pytest.raises(QevalError, match=r"gives no values to \d+ tensors of the model") as caught:
        load(llama, f"autoround@{ready}", tmp_path)
    assert "on no such device (cpu)" in caught.value.hint


def test_fp8_unpacked(llama: Path, tmp_path: Path) -> None:
    import torch

    dense = save_fp8(llama, tmp_path / "ready")
    loaded = load(llama, f"fp8[unpack=true]@{tmp_path / 'ready'}", tmp_path)
    found = loaded.provenance
    assert found.modules == {"F8_E4M3": LINEARS}
    assert found.linears == LINEARS + 1
    assert found.bits_per_weight == pytest.approx(8 + 32 / 32**2)
    assert found.quantization["weight_block_size"] == [32, 32]
    assert found.quantization["dequantized"]
    assert found.dtype == "float32"
    assert any("unpacked into plain weights" in note for note in found.notes)
    assert any("round activations to 8 bits" in note for note in found.notes)
    assert all(torch.equal(loaded.model.get_submodule(name).weight, held) for name, held in dense.items())
    assert differ(logits(loaded.model), plain_with(llama, dense)) == 0
    assert differ(logits(loaded.model), plain_with(llama, {})) > 1e-3


def test_mxfp4_unpacked(tmp_path: Path) -> None:
    import torch

    plain = save_gpt_oss(tmp_path / "plain")
    dense = save_mxfp4(plain, tmp_path / "ready")
    loaded = load(plain, f"mxfp4[unpack=true]@{tmp_path / 'ready'}", tmp_path)
    found = loaded.provenance
    assert found.modules == {"MXFP4": len(dense)}
    assert found.bits_per_weight == pytest.approx(4 + 8 / 32)
    assert found.quantization["quant_method"] == "mxfp4"
    assert all(torch.equal(loaded.model.get_parameter(name), held) for name, held in dense.items())
    assert differ(logits(loaded.model), plain_with(plain, dense)) < 1e-5


def test_a_plain_model_called_quantised_is_refused(llama: Path, tmp_path: Path) -> None:
    import shutil

    from tiny_models import edit_json

    shutil.copytree(llama, tmp_path / "ready")
    edit_json(tmp_path / "ready" / "config.json", quantization_config={"quant_method": "fp8"})
    with pytest.raises(QevalError, match="holds no packed weights"):
        load(llama, f"fp8[unpack=true]@{tmp_path / 'ready'}", tmp_path)


def test_a_model_with_made_up_weights_is_refused(llama: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(llama, tmp_path / "broken")
    file = tmp_path / "broken" / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(
        QevalError, match=r"no values to 1 tensors of the model \(the first: model\.layers\.1"
    ):
        load(tmp_path / "broken", "fp16", tmp_path)


@pytest.mark.parametrize(
    ("text", "need"),
    [
        ("fp8", "an NVIDIA GPU of compute capability 8.9"),
        ("fp8@{ready}", "an NVIDIA GPU of compute capability 8.9"),
        ("mxfp4@{ready}", "an NVIDIA GPU of compute capability 7.5"),
        ("nvfp4", "an NVIDIA GPU of compute capability 10.0"),
        ("higgs@{ready}", "an NVIDIA GPU"),
        ("eetq", "an NVIDIA GPU"),
        ("spqr@{ready}", "an NVIDIA GPU"),
    ],
)
def test_what_needs_a_gpu_says_so_before_weights_are_read(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, need: str
) -> None:
    ((_, scheme),) = parse_schemes(text.format(ready=tmp_path / "never opened"))
    spec = SCHEMES[scheme.kind]
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingPackageError) as missing:
        check_available(scheme)
    assert missing.value.message.endswith(f", and {need}.")
    assert missing.value.hint.startswith(
        f"In qeval's checkout, install it with: pip install '.[{spec.extra}]'"
    )
    monkeypatch.setattr(checks, "missing_packages", lambda *_: [])
    with pytest.raises(QevalError) as caught:
        load(llama, text.format(ready=tmp_path / "never opened"), tmp_path)
    assert caught.value.message == f"{spec.name} needs {need}, and the device is cpu."
    unpack = f"{spec.name}[unpack=true]@{tmp_path / 'never opened'}"
    for error in (missing, caught):
        assert (unpack in error.value.hint) == ("unpack" in spec.defaults and "@" in text)


def test_a_gpu_that_is_too_old_is_named(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(checks, "missing_packages", lambda *_: [])
    monkeypatch.setattr(models, "resolve_device", lambda _: "cuda:0")
    monkeypatch.setattr(checks, "device_name", lambda _: "NVIDIA A100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    with pytest.raises(QevalError, match=r"8\.9, and NVIDIA A100 has 8\.0\."):
        load(llama, "fp8", tmp_path)


def test_only_a_ready_checkpoint_is_unpacked() -> None:
    with pytest.raises(QevalError, match="unpacks a ready checkpoint, and none is named"):
        check_available(Scheme("fp8", {"unpack": True}))


def test_a_package_that_is_too_new_is_named_with_its_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(packages, "version_of", lambda _: "99")
    with pytest.raises(MissingPackageError, match=r"eetq needs kernels >= 0\.18\.2 and < 0\.19"):
        check_available(Scheme("eetq"))


def test_unpacking_takes_the_memory_of_the_plain_model(llama: Path, tmp_path: Path) -> None:
    from qeval.load import memory

    save_fp8(llama, tmp_path / "ready")
    sizes = [(place / "model.safetensors").stat().st_size for place in (llama, tmp_path / "ready")]
    ((_, scheme),) = parse_schemes(f"fp8[unpack=true]@{tmp_path / 'ready'}")
    variant = Variant("v", str(llama), scheme)
    recipe = models.recipe_of(variant, resolve(variant), "cpu", "auto", tmp_path, lambda _: None)
    assert memory.estimate(recipe, SCHEMES["fp8"]) == pytest.approx(1.1 * (2 * sizes[0] + sizes[1]), rel=1e-3)
