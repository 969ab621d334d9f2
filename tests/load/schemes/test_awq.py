"""AWQ: a ready checkpoint multiplies by what its codes say; one made here is what was asked and costs less
than rounding, and the scaling before it leaves the model its function."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_models import LINEARS, edit_json, save_llama
from tiny_worlds import QUIET, World, logits, new_world

from qeval.base.errors import QevalError
from qeval.base.records import Scheme

pytestmark = QUIET
NIBBLES = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of eight neighbouring outputs stands in each nibble of an integer, lowest first."""
GROUP = 32


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    options = {"group_size": GROUP, "samples": 8, "length": 32}
    return new_world(tmp_path_factory.mktemp("awq"), "awq", options)


def nibbles(codes: Any) -> Any:
    """(rows, outputs) of 0..15 as (rows, outputs / 8) of int32, in AutoAWQ's order."""
    import numpy as np

    eights = codes.reshape(len(codes), -1, 8).astype(np.uint32)
    packed = sum(eights[:, :, output] << np.uint32(4 * at) for at, output in enumerate(NIBBLES))
    return packed.astype(np.uint32).view(np.int32)


def save_ready(base: Path, place: Path) -> tuple[Path, dict[str, Any]]:
    """A checkpoint in AutoAWQ's gemm packing with random codes, and the matrices (out, in) they stand for."""
    import numpy as np
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(base, place)
    draw = np.random.default_rng(0)
    tensors, expected = {}, {}
    for name, tensor in load_file(base / "model.safetensors").items():
        if "_proj" not in name:
            tensors[name] = tensor
            continue
        outputs, inputs = tensor.shape
        codes = draw.integers(0, 16, (inputs, outputs))
        zeros = draw.integers(0, 16, (inputs // GROUP, outputs))
        scales = (draw.random((inputs // GROUP, outputs)) / 40).astype(np.float16)
        layer = name.removesuffix(".weight")
        parts = {"qweight": nibbles(codes), "qzeros": nibbles(zeros), "scales": scales}
        tensors |= {f"{layer}.{part}": torch.from_numpy(value) for part, value in parts.items()}
        steps = codes - zeros.repeat(GROUP, 0)
        expected[layer] = torch.from_numpy((steps.astype(np.float16) * scales.repeat(GROUP, 0)).T.copy())
    save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
    settings = {"quant_method": "awq", "version": "gemm", "bits": 4, "group_size": GROUP, "zero_point": True}
    edit_json(place / "config.json", quantization_config=settings)
    return place, expected


@pytest.mark.parametrize("dtype", ["auto", "float16"])
def test_a_ready_checkpoint_multiplies_by_what_its_codes_say(
    world: World, tmp_path: Path, dtype: str
) -> None:
    import torch

    ready, expected = save_ready(world.model, tmp_path / "ready")
    loaded = world.load(Scheme("awq", {}, str(ready)), dtype=dtype)
    found = loaded.provenance
    assert sum(found.modules.values()) == len(expected) == LINEARS
    assert found.bits_per_weight == pytest.approx(4 + (16 + 4) / GROUP)
    assert {"quant_method": "awq", "zero_point": True, "sym": False}.items() <= found.quantization.items()
    compute = torch.float32 if dtype == "auto" else torch.float16
    for name, matrix in expected.items():
        layer = loaded.model.get_submodule(name)
        assert torch.equal(layer(torch.eye(layer.in_features, dtype=compute)), matrix.T.to(compute))


def test_a_directory_of_autoawq_with_settings_of_its_own_is_read(world: World, tmp_path: Path) -> None:
    import torch

    ready, expected = save_ready(world.model, tmp_path / "ready")
    edit_json(ready / "config.json", quantization_config=None)
    settings = {"zero_point": True, "q_group_size": GROUP, "w_bit": 4, "version": "GEMM"}
    (ready / "quant_config.json").write_text(json.dumps(settings))
    loaded = world.load(Scheme("awq", {}, str(ready)))
    assert sum(loaded.provenance.modules.values()) == LINEARS
    assert {
        "bits": 4,
        "group_size": GROUP,
        "zero_point": True,
    }.items() <= loaded.provenance.quantization.items()
    assert any("in quant_config.json alone, as AutoAWQ wrote it" in note for note in loaded.provenance.notes)
    for name, matrix in expected.items():
        layer = loaded.model.get_submodule(name)
        assert torch.equal(layer(torch.eye(layer.in_features)), matrix.T.float())
    (ready / "quant_config.json").write_text(json.dumps({**settings, "version": "GEMV"}))
    with pytest.raises(QevalError, match="is packed as gemv"):
        world.load(Scheme("awq", {}, str(ready)))


def test_dequantised_once_it_gives_the_same_numbers(world: World, tmp_path: Path) -> None:
    from qeval.score.engine.materialize import can_materialize, materialize

    model = world.load(Scheme("awq", {}, str(save_ready(world.model, tmp_path / "ready")[0]))).model
    before = logits(model)
    assert can_materialize(model)
    model, report = materialize(model)
    assert report.exact
    assert report.modules == LINEARS
    assert (logits(model) == before).all()


def test_what_was_made_is_what_was_asked(world: World) -> None:
    import json

    loaded = world.load(world.scheme())
    found = loaded.provenance
    assert sum(found.modules.values()) == LINEARS
    assert found.linears == LINEARS + 1
    assert found.bits_per_weight == pytest.approx(4 + (16 + 4) / GROUP)
    assert {"bits": 4, "group_size": GROUP, "zero_point": True}.items() <= found.quantization.items()
    assert "quantised here, with 8 samples of 32 tokens" in found.notes[0]
    directory = world.make()
    shipped = world.load(Scheme("awq", {}, str(directory)))
    assert (logits(shipped.model) == logits(loaded.model)).all()
    assert "| group_size | 32 |" in (directory / "README.md").read_text()
    chosen = json.loads((world.make(group_size=0) / "config.json").read_text())["quantization_config"]
    assert chosen["group_size"] == 64
    with pytest.raises(QevalError, match="has group_size 32, where group_size=64 was asked"):
        world.load(Scheme("awq", {"group_size": 64}, str(directory)))


def test_plain_transformers_reads_it(world: World) -> None:
    """Its kernel rounds activations to float16, so that the numbers are near and no more."""
    from transformers import AutoModelForCausalLM, AwqConfig

    directory = world.make()
    theirs = AutoModelForCausalLM.from_pretrained(
        directory, dtype="float16", quantization_config=AwqConfig(backend="torch_awq")
    )
    ours = logits(world.load(Scheme("awq", {}, str(directory))).model)
    assert (logits(theirs) - ours).norm() < 0.01 * ours.norm()


def test_it_is_made_once(world: World) -> None:
    first = world.make()
    world.said.clear()
    assert world.make() == first
    assert world.said == ["awq: taking the checkpoint that was quantised earlier"]
    assert world.make(seed=1) != first


def uneven(place: Path, **config: Any) -> Path:
    """A tiny model with what AWQ is for: some channels of every norm, value and up projection are large."""
    import torch
    from safetensors.torch import load_file, save_file

    save_llama(place, **config)
    tensors = load_file(place / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    for name, tensor in tensors.items():
        if "layernorm" in name or "v_proj" in name or "up_proj" in name:
            large = 1 + 7 * (torch.rand(len(tensor), generator=generator) < 0.1)
            tensors[name] = tensor * large.reshape(-1, *[1] * (tensor.dim() - 1)).half()
    save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
    return place


KINDS = {
    "llama": {"attention_bias": True},
    "mistral": {"head_dim": 32},  # queries wider than the hidden state
    "qwen2": {},  # biases
    "qwen3": {"head_dim": 32},  # norms between the projections and the attention
}


@pytest.mark.parametrize("kind", KINDS)
def test_scaling_leaves_the_model_its_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """With grouped-query attention and biases, the cases in which a scale can be put at the wrong place."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from qeval.load.making import awq as awq_make
    from qeval.load.schemes import awq

    assert set(KINDS) == set(awq.MODEL_TYPES)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 64}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes, **heads, **KINDS[kind]))
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or "norm" in name:
            torch.nn.init.uniform_(parameter, 0.1, 3)
    model.eval()
    before, value = logits(model), model.model.layers[1].self_attn.v_proj.weight.clone()
    monkeypatch.setattr(awq_make, "clip", lambda weight, *_: weight)
    (tmp_path / "work").mkdir()
    windows = torch.randint(3, 23, (4, 32), generator=torch.Generator().manual_seed(0)).tolist()
    awq_make.search(model, windows, awq_make.Plan(4, 32), tmp_path / "work", lambda _: None)
    assert (model.model.layers[1].self_attn.v_proj.weight - value).abs().max() > 0.01
    assert (logits(model) - before).abs().max() < 1e-4 * before.abs().max()


def test_search_beats_rounding(tmp_path: Path, world: World) -> None:
    place = uneven(tmp_path / "llama")
    here = replace(world, model=place, said=[])
    plain = logits(here.load(Scheme("fp16")).model)
    rounded = logits(here.load(Scheme("rtn", {"group_size": GROUP})).model)
    searched = logits(here.load(here.scheme()).model)
    assert (searched - plain).norm() < 0.8 * (rounded - plain).norm()


def test_clipping_never_costs_and_the_error_is_that_of_the_outputs() -> None:
    """A large weight on a channel that is all but silent had better be clipped for its neighbours' sake."""
    import torch

    from qeval.load.making import awq as awq_make

    generator = torch.Generator().manual_seed(0)
    plan = awq_make.Plan(4, 16)
    weight = torch.randn((24, 48), generator=generator)
    inputs = torch.randn((200, 48), generator=generator)
    weight[:, ::16] *= 4
    inputs[:, ::16] *= 0.01
    clipped = awq_make.clip(weight, inputs.T @ inputs, plan)

    def cost(candidate: Any) -> Any:
        """Squared errors (rows, groups) of the groups' parts of the outputs, token by token."""
        change = (plan.round(candidate) - weight).reshape(24, 3, 16)
        return torch.einsum("tgi,rgi->trg", inputs.reshape(-1, 3, 16), change).square().sum(0)

    assert (cost(clipped) <= cost(weight) * 1.001).all()
    assert cost(clipped).sum() < 0.9 * cost(weight).sum()


def test_killed_in_the_middle_it_goes_on_and_ends_the_same(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    from qeval.load.making import awq as awq_make

    undisturbed = load_file(world.make() / "model.safetensors")
    other = replace(world, cache=tmp_path / "cache", said=[])
    real = awq_make._search_block
    calls: list[bool] = []

    def die_at_the_second(*args: Any) -> None:
        if calls:
            raise KeyboardInterrupt
        calls.append(True)
        real(*args)

    monkeypatch.setattr(awq_make, "_search_block", die_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        other.make()
    calls.clear()
    monkeypatch.setattr(awq_make, "_search_block", lambda *args: calls.append(True) or real(*args))
    resumed = load_file(other.make() / "model.safetensors")
    assert len(calls) == 1
    assert resumed.keys() == undisturbed.keys()
    assert all((resumed[name] == tensor).all() for name, tensor in undisturbed.items())


def test_what_cannot_be_made_or_read_is_refused(world: World, tmp_path: Path) -> None:
    other = shutil.copytree(world.model, tmp_path / "gemma")
    edit_json(other / "config.json", model_type="gemma")
    with pytest.raises(QevalError, match=r"llama, mistral, qwen2, qwen3 only, and .* is gemma"):
        world.make(other)
    with pytest.raises(QevalError, match="128 does not divide the 64 inputs of"):
        world.make(group_size=128)
    with pytest.raises(QevalError, match=r"of 200 tokens are longer than the model accepts \(128\)"):
        world.make(length=200, samples=2)
    ready, _ = save_ready(world.model, tmp_path / "ready")
    settings = {"quant_method": "awq", "version": "gemv", "bits": 4, "group_size": GROUP, "zero_point": True}
    edit_json(ready / "config.json", quantization_config=settings)
    with pytest.raises(QevalError, match="is packed as gemv, which is read on NVIDIA GPUs only"):
        world.load(Scheme("awq", {}, str(ready)))
