"""Ready checkpoints of other tools: what they hold is told, and what is scored are their own weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ready_checkpoints import (
    save_aqlm,
    save_autoround,
    save_compressed,
    save_fp8,
    save_gpt_oss,
    save_mxfp4,
)
from tiny_models import LINEARS, save_llama
from tiny_worlds import QUIET, logits

from qeval import models, schemes
from qeval.errors import MissingPackageError, QevalError
from qeval.records import Scheme, Variant
from qeval.schemes import SCHEMES, check_available, parse_schemes

pytestmark = QUIET
WEIGHTS = 2 * (64 * 64 * 2 + 64 * 32 * 2 + 64 * 128 * 3)
ROWS = 2 * (64 + 32 + 32 + 64 + 128 + 128 + 64)


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
    from qeval.schemes.proof import own_tensors, quantised_modules

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
        ("higgs", "an NVIDIA GPU"),
        ("eetq", "an NVIDIA GPU"),
        ("spqr@{ready}", "an NVIDIA GPU"),
        ("vptq@{ready}", "an NVIDIA GPU"),
    ],
)
def test_what_needs_a_gpu_says_so_before_weights_are_read(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, need: str
) -> None:
    ((_, scheme),) = parse_schemes(text.format(ready=tmp_path / "never opened"))
    spec = SCHEMES[scheme.kind]
    monkeypatch.setattr(schemes.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingPackageError) as missing:
        check_available(scheme)
    assert missing.value.message.endswith(f", and {need}.")
    assert missing.value.hint.startswith(f"Install it with: pip install 'qeval[{spec.extra}]'")
    monkeypatch.setattr(schemes, "missing_packages", lambda *_: [])
    with pytest.raises(QevalError) as caught:
        load(llama, text.format(ready=tmp_path / "never opened"), tmp_path)
    assert caught.value.message == f"{spec.name} needs {need}, and the device is cpu."
    unpack = f"{spec.name}[unpack=true]@{tmp_path / 'never opened'}"
    for error in (missing, caught):
        assert (unpack in error.value.hint) == ("unpack" in spec.defaults and "@" in text)


def test_a_gpu_that_is_too_old_is_named(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(schemes, "missing_packages", lambda *_: [])
    monkeypatch.setattr(models, "resolve_device", lambda _: "cuda:0")
    monkeypatch.setattr(models, "device_name", lambda _: "NVIDIA A100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    with pytest.raises(QevalError, match=r"8\.9, and NVIDIA A100 has 8\.0\."):
        load(llama, "fp8", tmp_path)


def test_only_a_ready_checkpoint_is_unpacked() -> None:
    with pytest.raises(QevalError, match="unpacks a ready checkpoint, and none is named"):
        check_available(Scheme("fp8", {"unpack": True}))


def test_a_package_that_is_too_new_is_named_with_its_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemes.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(schemes, "version_of", lambda _: "99")
    with pytest.raises(MissingPackageError, match=r"eetq needs kernels >= 0\.18\.2 and < 0\.19"):
        check_available(Scheme("eetq"))


def test_unpacking_takes_the_memory_of_the_plain_model(llama: Path, tmp_path: Path) -> None:
    from qeval import memory

    save_fp8(llama, tmp_path / "ready")
    sizes = [(place / "model.safetensors").stat().st_size for place in (llama, tmp_path / "ready")]
    ((_, scheme),) = parse_schemes(f"fp8[unpack=true]@{tmp_path / 'ready'}")
    order = models._order(Variant("v", str(llama), scheme), "cpu", "auto", tmp_path, lambda _: None)
    assert memory.estimate(order, SCHEMES["fp8"]) == pytest.approx(1.1 * (2 * sizes[0] + sizes[1]), rel=1e-3)
