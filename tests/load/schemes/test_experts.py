"""Mixtures of experts, which transformers holds in stacks: what a scheme takes of them, and what is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_models import save_tokenizer

from qeval.base.errors import QevalError
from qeval.base.records import Scheme, Variant
from qeval.load import model as models
from qeval.load.reading.experts import stacks

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
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
KINDS = {
    "mixtral": ("MixtralConfig", {"num_local_experts": 4}),
    "qwen": ("Qwen3MoeConfig", {"num_experts": 4, "moe_intermediate_size": 128, "num_experts_per_tok": 2}),
    "gpt_oss": ("GptOssConfig", {"num_local_experts": 4, "head_dim": 32, "num_experts_per_tok": 2}),
}
EXPERTS = 2 * 4 * 3 * 64 * 128
"""The weights in the experts of each of these: blocks, experts, matrices, widths."""
ROUTERS = 2 * 4 * 64


@pytest.fixture(scope="module")
def mixtures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    import torch
    import transformers

    places = {}
    for name, (kind, more) in KINDS.items():
        torch.manual_seed(0)
        config = getattr(transformers, kind)(**SIZES, **more)
        places[name] = tmp_path_factory.mktemp("mixtures") / name
        transformers.AutoModelForCausalLM.from_config(config).half().save_pretrained(places[name])
        save_tokenizer(places[name])
    return places


def load(place: Path, scheme: str | Scheme, tmp_path: Path, **settings: Any) -> models.Loaded:
    chosen = Scheme(scheme) if isinstance(scheme, str) else scheme
    return models.load(
        Variant("v", str(place), chosen), device="cpu", cache_dir=tmp_path / "cache", **settings
    )


def body(model: Any) -> int:
    """All weights of matrices but those of embeddings and head, counted the simple way."""
    ends = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    return sum(
        tensor.numel()
        for name, tensor in model.named_parameters()
        if tensor.dim() > 1 and id(tensor) not in ends and not name.endswith("bias")
    )


@pytest.mark.parametrize("kind", list(KINDS))
def test_stacks_are_found_with_their_orientation(
    mixtures: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    model = load(mixtures[kind], "fp32", tmp_path).model
    found = stacks(model)
    assert sum(stack.tensor.numel() for stack in found) == EXPERTS
    assert {stack.shape for stack in found} == {(256, 64), (64, 128)}
    assert {stack.transposed for stack in found} == {kind == "gpt_oss"}


@pytest.mark.parametrize("kind", list(KINDS))
def test_rtn_rounds_every_expert_along_its_inputs(
    mixtures: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    from qeval.load.reading.grid import round_to_nearest

    plain, rounded = (load(mixtures[kind], scheme, tmp_path) for scheme in ("fp16", "rtn"))
    for before, after in zip(stacks(plain.model), stacks(rounded.model), strict=True):
        for one, other in zip(before.weights(), after.weights(), strict=True):
            assert other.equal(round_to_nearest(one.half(), 4, 64, symmetric=False).float())
    found = rounded.provenance
    assert found.quantised_share is not None
    assert found.quantised_share > 0.98  # all but routers and biases
    assert found.warnings == ()
    assert any(name.endswith("Experts[rounded]") for name in found.modules)
    assert found.bits_per_weight == pytest.approx(4 + 20 / 64, rel=0.01)
    assert found.bits_overall is not None
    assert found.bits_per_weight < found.bits_overall < 5.5


@pytest.mark.parametrize("options", [{}, {"double_quant": True, "quant_type": "fp4"}], ids=["nf4", "double"])
@pytest.mark.parametrize("kind", list(KINDS))
def test_bnb4_packs_every_expert(
    mixtures: dict[str, Path], tmp_path: Path, kind: str, options: dict[str, Any]
) -> None:
    import torch
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    plain, packed = (load(mixtures[kind], scheme, tmp_path) for scheme in ("fp16", Scheme("bnb4", options)))
    parameters = dict(packed.model.named_modules())
    for stack in stacks(plain.model):
        found = getattr(parameters[stack.name.rpartition(".")[0]], stack.parameter)
        codes = quantize_4bit(
            stack.tensor.data,
            blocksize=64,
            compress_statistics=bool(options),
            quant_type=options.get("quant_type", "nf4"),
        )
        assert torch.equal(found, dequantize_4bit(*codes))
    found = packed.provenance
    assert found.quantised_share is not None
    assert found.quantised_share > 0.98
    assert found.warnings == ()
    assert any("unpacked whenever they are read" in note for note in found.notes)
    assert found.bits_per_weight is not None
    assert 4 < found.bits_per_weight < 4.6
    assert sum(found.modules.values()) > 8
    logits = packed.model(torch.arange(3, 23)[None]).logits
    assert bool(logits.isfinite().all())
    assert not torch.equal(logits, plain.model(torch.arange(3, 23)[None]).logits)


def test_experts_can_be_skipped_by_name(mixtures: dict[str, Path], tmp_path: Path) -> None:
    whole, less, least = (
        load(mixtures["mixtral"], Scheme("bnb4", options), tmp_path).provenance.quantised_share or 0
        for options in (
            {},
            {"skip_modules": "experts.down_proj"},
            {"skip_modules": "experts.down_proj+experts.gate_up_proj"},
        )
    )
    assert whole > 0.98
    assert whole - less == pytest.approx((less - least) / 2)
    assert least < 0.2


LIBRARIES: dict[str, tuple[str, dict[str, Any]]] = {
    "hqq": ("hqq", {"group_size": 32}),
    "hqq-outputs": ("hqq", {"axis": 0, "bits": 3, "group_size": 32}),
    "torchao": ("torchao", {}),
    "torchao-int4": ("torchao", {"weights": "int4", "group_size": 32}),
    "torchao-float8": ("torchao", {"weights": "float8"}),
    "quanto": ("quanto", {}),
    "quanto-int4": ("quanto", {"weights": "int4"}),
}
BITS = {"hqq": 6.1, "hqq-outputs": 6.1, "torchao-int4": 9.3, "quanto-int4": 5}
"""The most that a weight takes where it is not 8 bits and a scale; hqq holds two of 32 bits a group on a CPU,
and torchao's portable form a code a byte."""


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("case", list(LIBRARIES))
def test_a_library_packs_every_expert_as_it_packs_a_linear_layer(
    mixtures: dict[str, Path], tmp_path: Path, kind: str, case: str
) -> None:
    import torch

    scheme, options = LIBRARIES[case]
    pytest.importorskip({"quanto": "optimum.quanto"}.get(scheme, scheme))
    plain, packed = (load(mixtures[kind], chosen, tmp_path) for chosen in ("fp16", Scheme(scheme, options)))
    modules = dict(packed.model.named_modules())
    for stack in stacks(plain.model):
        found = getattr(modules[stack.name.rpartition(".")[0]], stack.parameter)
        assert found.shape == stack.tensor.shape
        assert not torch.equal(found, stack.tensor)
        off = (found.float() - stack.tensor.float()).norm() / stack.tensor.float().norm()
        assert off < (0.3 if options.get("bits") == 3 else 0.15)
    found = packed.provenance
    assert found.quantised_share is not None
    assert found.quantised_share > 0.98
    assert found.warnings == ()
    assert any("unpacked whenever they are read" in note for note in found.notes)
    assert found.bits_per_weight is not None
    assert found.bits_per_weight < BITS.get(case, 8.6)
    logits = packed.model(torch.arange(3, 23)[None]).logits
    assert bool(logits.isfinite().all())
    assert not torch.equal(logits, plain.model(torch.arange(3, 23)[None]).logits)


def test_packed_experts_are_calculated_as_their_layers_are(mixtures: dict[str, Path], tmp_path: Path) -> None:
    """What the block reads is what the library's own layer multiplies by, once a call."""
    import torch

    pytest.importorskip("hqq")
    model = load(mixtures["mixtral"], "hqq", tmp_path).model
    block = model.model.layers[0].mlp.experts
    (packed,) = block.parametrizations.gate_up_proj
    state = torch.randn(5, 64)
    for expert, layer in enumerate(packed.layers):
        expected = layer(state)
        assert torch.allclose(state @ block.gate_up_proj[expert].T, expected, atol=1e-5)
    counts = []
    for layer in packed.layers:
        unpack = layer.dequantize
        layer.dequantize = lambda unpack=unpack: counts.append(1) or unpack()
    model(torch.arange(3, 23)[None])
    assert len(counts) == 4
    assert packed.held is None


@pytest.mark.parametrize("scheme", ["hqq", "torchao", "quanto"])
def test_a_mixture_is_scored_on_its_layers_as_they_are(
    mixtures: dict[str, Path], tmp_path: Path, scheme: str
) -> None:
    """What dequantises a model once for scoring leaves such a model alone."""
    from qeval.score.engine.materialize import can_materialize

    pytest.importorskip({"quanto": "optimum.quanto"}.get(scheme, scheme))
    options = {"group_size": 32} if scheme == "hqq" else {}
    assert not can_materialize(load(mixtures["mixtral"], Scheme(scheme, options), tmp_path).model)


def test_only_the_linear_layers_of_a_mixture_are_dequantised(
    mixtures: dict[str, Path], tmp_path: Path
) -> None:
    """bitsandbytes' experts stay packed; on a CPU with bfloat16 kernels, once those are off."""
    import torch

    from qeval.score.engine.materialize import compute_in_own_dtype, materialize

    pytest.importorskip("bitsandbytes")
    model = load(mixtures["mixtral"], Scheme("bnb4", {}), tmp_path).model
    compute_in_own_dtype(model)
    asked = torch.arange(3, 23)[None]
    before, stacks = model(asked).logits, _stacks_of(model)
    model, report = materialize(model)
    assert report.modules == sum(
        "self_attn" in name and name.endswith("_proj") for name, _ in model.named_modules()
    )
    assert _stacks_of(model) == stacks != []
    assert torch.allclose(model(asked).logits, before, atol=1e-3)


def _stacks_of(model: Any) -> list[str]:
    """The names of modules whose weights are packed as stacks."""
    return [name for name, module in model.named_modules() if hasattr(module, "parametrizations")]


def test_stacks_that_are_stored_packed_tell_their_weights() -> None:
    """As transformers' classes for fp8 and mxfp4 hold them, which run on GPUs only."""
    import torch
    from torch import nn

    from qeval.load.reading import proof

    eight, four = nn.Module(), nn.Module()
    eight.register_buffer("gate_up_proj", torch.zeros(4, 6, 8).to(torch.float8_e4m3fn))
    eight.register_buffer("gate_up_proj_scale_inv", torch.zeros(4, 1, 1))
    four.register_buffer("down_proj_blocks", torch.zeros(4, 6, 2, 16, dtype=torch.uint8))
    four.register_buffer("down_proj_scales", torch.zeros(4, 6, 2, dtype=torch.uint8))
    assert [proof.weights_of(each) for each in (eight, four)] == [4 * 6 * 8, 4 * 6 * 2 * 32]
    assert proof.bits_per_weight({"four": four}) == 4 + 8 / 32


def test_hqq_refuses_groups_that_do_not_divide_an_expert(mixtures: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("hqq")
    with pytest.raises(QevalError, match=r"256 does not divide the 64 inputs"):
        load(mixtures["qwen"], Scheme("hqq", {"group_size": 256}), tmp_path)


@pytest.mark.parametrize("kind", ["mixtral", "qwen"])
@pytest.mark.parametrize("scheme", ["bnb8", "gptq"])
def test_experts_that_a_scheme_leaves_plain_are_the_first_warning(
    mixtures: dict[str, Path], tmp_path: Path, kind: str, scheme: str
) -> None:
    options = {
        "gptq": {"group_size": 32, "calibration": "own", "samples": 4, "length": 32, "backend": "torch"}
    }
    loaded = load(mixtures[kind], Scheme(scheme, options.get(scheme, {})), tmp_path)
    found = loaded.provenance
    whole = body(load(mixtures[kind], "fp32", tmp_path).model)
    assert found.quantised_share == pytest.approx(1 - (EXPERTS + ROUTERS) / whole)
    assert found.mostly_plain
    assert found.warnings[0].startswith(f"ONLY {found.quantised_share:.0%} OF THE WEIGHTS ARE QUANTISED")
    assert "most of them in model.layers.*.mlp.experts.gate_up_proj" in found.warnings[0]
    assert found.bits_overall is not None
    assert found.bits_per_weight is not None
    assert found.bits_overall > found.bits_per_weight + 1


def test_awq_refuses_a_mixture_before_it_is_read(mixtures: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(QevalError, match=r"AWQ is made here for llama, .* is mixtral"):
        load(mixtures["mixtral"], "awq", tmp_path)


def test_plain_schemes_tell_no_share(mixtures: dict[str, Path], tmp_path: Path) -> None:
    found = load(mixtures["mixtral"], "fp16", tmp_path).provenance
    assert (found.quantised_share, found.bits_overall, found.warnings) == (None, None, ())
