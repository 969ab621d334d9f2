"""On a CUDA device, schemes multiply by the weights that they have on a CPU, with their own kernels."""

from __future__ import annotations

import importlib.util
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
    save_spqr,
    save_vptq,
)
from tiny_models import LINEARS, save_llama
from tiny_worlds import QUIET, World, new_world

from qeval.base.records import Variant
from qeval.load import model as models
from qeval.load.schemes import parse_schemes

pytestmark = [*QUIET, pytest.mark.gpu]
SLACK = 4
"""How often the distance that float16 moves plain weights' logits a GPU's may be from a CPU's in float32."""


@pytest.fixture(autouse=True)
def _device() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A model wide enough for kernels that take whole tiles only."""
    made = new_world(tmp_path_factory.mktemp("gpu"), "gptq", {"samples": 8, "length": 64})
    save_llama(made.model, hidden=512, num_attention_heads=4, num_key_value_heads=2)
    return made


def load(model: Path, text: str, cache: Path, device: str, dtype: str = "auto") -> models.Loaded:
    ((_, scheme),) = parse_schemes(text)
    variant = Variant("v", str(model), scheme)
    return models.load(variant, device=device, dtype=dtype, cache_dir=cache, fast=device != "cpu")


def logits(loaded: models.Loaded) -> Any:
    """Of two rows at once, so that kernels for several rows run, on the CPU in float32."""
    import torch

    tokens = torch.stack([torch.arange(40) % 24, torch.arange(7, 47) % 24])
    with torch.no_grad():
        return loaded.model(tokens.to(loaded.model.device)).logits.float().cpu()


def differ(ours: Any, theirs: Any) -> float:
    """How far logits are from each other, relative to their spread."""
    return float((ours - theirs).norm() / theirs.norm())


def check_same(model: Path, text: str, cache: Path, kernel: str = "", ruler: str = "fp16") -> models.Loaded:
    """The scheme on both devices: as many modules, the same bits, logits apart by rounding and no more.

    `kernel` is an option for the GPU alone. Rounding is what float16 does to the logits of `ruler` on a CPU:
    to plain weights, or to the scheme itself where it rounds activations, which float16 moves to another step
    now and then.
    """
    there = load(model, text.replace("@", f"{kernel}@", 1), cache, "cuda")
    here = load(model, text, cache, "cpu")
    ours, theirs = there.provenance, here.provenance
    assert sum(ours.modules.values()) == sum(theirs.modules.values())
    assert ours.linears == theirs.linears
    assert ours.bits_per_weight == pytest.approx(theirs.bits_per_weight, abs=0.3)  # kernels may repack
    found = logits(there)
    assert differ(found, logits(here)) < SLACK * rounding(model, ruler, cache)
    plain = load(model, "fp16", cache, "cpu")
    assert text == "fp16" or differ(found, logits(plain)) > 1e-3
    return there


def rounding(model: Path, text: str, cache: Path) -> float:
    """How far a scheme's logits on a CPU are in float16 from those in float32."""
    half, full = (logits(load(model, text, cache, "cpu", dtype)) for dtype in ("float16", "float32"))
    return differ(half, full)


@pytest.mark.parametrize(
    ("package", "text"),
    [
        ("torch", "fp16"),
        ("bitsandbytes", "bnb4"),
        ("bitsandbytes", "bnb4[double_quant=true]"),
        ("torch", "rtn"),
        ("torch", "rtn[bits=2]"),
    ],
)
def test_a_scheme_is_the_same_as_on_a_cpu(world: World, package: str, text: str) -> None:
    pytest.importorskip(package)
    loaded = check_same(world.model, text, world.cache)
    assert text == "fp16" or loaded.provenance.modules


def test_8_bits_with_rounded_activations(world: World) -> None:
    pytest.importorskip("bitsandbytes")
    text = "bnb8[threshold=0]"
    check_same(world.model, text, world.cache, ruler=text)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"act_order": True},
        {"group_size": 64},
        {"symmetric": False},
        {"bits": 8},
        {"bits": 3},
        {"bits": 2, "group_size": 32},
        {"backend": "torch"},
        {"backend": "triton"},
    ],
)
def test_gptq_by_the_kernels_of_a_gpu(world: World, options: dict[str, Any]) -> None:
    pytest.importorskip("gptqmodel")
    made = {name: value for name, value in options.items() if name != "backend"}
    backend = f"[backend={options['backend']}]" if "backend" in options else ""
    loaded = check_same(world.model, f"gptq@{world.make(**made)}", world.cache, backend)
    assert sum(loaded.provenance.modules.values()) == LINEARS
    assert loaded.provenance.quantization["desc_act"] is options.get("act_order", False)


@pytest.mark.parametrize("kind", ["gptq", "awq"])
def test_what_a_gpu_quantises_is_as_good_as_what_a_cpu_does(world: World, tmp_path: Path, kind: str) -> None:
    pytest.importorskip("gptqmodel")
    text = f"{kind}[group_size=64,samples=8,length=64,calibration={world.text}]"
    plain = logits(load(world.model, "fp16", world.cache, "cpu"))
    there = differ(logits(load(world.model, text, tmp_path, "cuda")), plain)
    here = differ(logits(load(world.model, text, world.cache, "cpu")), plain)
    assert 1e-3 < there < 1.25 * here


def test_awq_by_the_kernels_of_a_gpu(world: World) -> None:
    pytest.importorskip("gptqmodel")
    text = f"awq[group_size=64,samples=8,length=64,calibration={world.text}]"
    ((_, scheme),) = parse_schemes(text)
    place = models.make_checkpoint(str(world.model), scheme, device="cpu", cache_dir=world.cache)
    loaded = check_same(world.model, f"awq@{place}", world.cache)
    assert sum(loaded.provenance.modules.values()) == LINEARS


@pytest.mark.parametrize("preset", ["W4A16", "W4A16_ASYM", "W8A16", "W8A8", "FP8_DYNAMIC"])
def test_compressed_tensors(world: World, tmp_path: Path, preset: str) -> None:
    pytest.importorskip("compressed_tensors")
    weights_only = "A16" in preset
    save_compressed(world.model, tmp_path / "ready", preset, 64 if weights_only else None)
    text = f"compressed-tensors@{tmp_path / 'ready'}"
    check_same(world.model, text, world.cache, ruler="fp16" if weights_only else text)


@pytest.mark.parametrize(("books", "bits"), [(1, 16), (2, 8)])
def test_aqlm(world: World, tmp_path: Path, books: int, bits: int) -> None:
    pytest.importorskip("aqlm")
    save_aqlm(world.model, tmp_path / "ready", books, bits)
    check_same(world.model, f"aqlm@{tmp_path / 'ready'}", world.cache)


@pytest.mark.skipif(importlib.util.find_spec("vptq") is None, reason="vptq is not installed")
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"bits": 12, "residual": 8, "adjusted": True},
        {"vector": 6, "groups": 2, "outliers": 64, "adjusted": True},
    ],
)
def test_vptq(world: World, tmp_path: Path, settings: dict[str, Any]) -> None:
    save_vptq(world.model, tmp_path / "ready", **settings)
    check_same(world.model, f"vptq@{tmp_path / 'ready'}", world.cache)


@pytest.mark.skipif(importlib.util.find_spec("spqr_quant") is None, reason="spqr_quant is not installed")
@pytest.mark.parametrize("permuted", [True, False])
def test_spqr(world: World, tmp_path: Path, permuted: bool) -> None:
    """No kernel for CPUs: against the plain model with the weights that the checkpoint stands for."""
    dense = save_spqr(world.model, tmp_path / "ready", permuted=permuted)
    loaded = load(world.model, f"spqr@{tmp_path / 'ready'}", world.cache, "cuda")
    found = loaded.provenance
    assert found.modules == {"QuantizedLinear": LINEARS}
    assert found.linears == LINEARS + 1
    assert found.dtype == "float16"
    # 64 bits for 16 weights, two outliers of 32 in rows of 512 and more, their offsets, the order of columns
    assert 4 < found.bits_per_weight < 4.3
    ours = logits(loaded)
    plain = load(world.model, "fp16", world.cache, "cpu")
    assert differ(ours, logits(plain)) > 1e-3
    for name, weight in dense.items():
        plain.model.get_submodule(name).weight.data = weight
    assert differ(ours, logits(plain)) < SLACK * rounding(world.model, "fp16", world.cache)


@pytest.mark.parametrize("bits", [4, 8])
def test_autoround(world: World, tmp_path: Path, bits: int) -> None:
    pytest.importorskip("auto_round")
    ready = save_autoround(world.model, tmp_path / "made", "auto_round", bits=bits, group_size=64, sym=True)
    check_same(world.model, f"autoround@{ready}", world.cache)


def test_fp8_unpacked(world: World, tmp_path: Path) -> None:
    save_fp8(world.model, tmp_path / "ready")
    check_same(world.model, f"fp8[unpack=true]@{tmp_path / 'ready'}", world.cache)


def test_mxfp4_unpacked(tmp_path: Path) -> None:
    plain = save_gpt_oss(tmp_path / "plain")
    save_mxfp4(plain, tmp_path / "ready")
    check_same(plain, f"mxfp4[unpack=true]@{tmp_path / 'ready'}", tmp_path)
