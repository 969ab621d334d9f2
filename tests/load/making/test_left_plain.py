"""Layers that skip_modules leaves plain in checkpoints made here: they keep their weights, every reader knows
them, and the scheme is another one to key and card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_models import LINEARS, save_llama
from tiny_worlds import QUIET, World, logits, new_world

from qeval.base.errors import QevalError
from qeval.base.records import Scheme, Variant
from qeval.load.resolve import identity

pytestmark = QUIET
WORDS = "model.layers.0.mlp.down_proj+model.layers.1.self_attn+k_proj"
PLAIN = {
    "model.layers.0.mlp.down_proj",
    "model.layers.0.self_attn.k_proj",
    *(f"model.layers.1.self_attn.{one}_proj" for one in "qkvo"),
}
OPTIONS = {"group_size": 32, "samples": 8, "length": 32}


@pytest.fixture(scope="module", params=["gptq", "awq"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    options = {**OPTIONS, **({"backend": "torch"} if request.param == "gptq" else {})}
    return new_world(tmp_path_factory.mktemp(request.param), request.param, options)


@pytest.fixture(scope="module")
def made(world: World) -> Path:
    return world.make(skip_modules=WORDS)


def packed(model: Any) -> set[str]:
    return {name for name, module in model.named_modules() if hasattr(module, "qweight")}


def every() -> set[str]:
    return {
        f"model.layers.{layer}.{part}_proj"
        for layer in (0, 1)
        for part in (
            *(f"self_attn.{one}" for one in "qkvo"),
            *(f"mlp.{one}" for one in ("gate", "up", "down")),
        )
    }


def test_all_else_is_quantised_and_proved(world: World, made: Path) -> None:
    loaded, whole = (world.load(world.scheme(**more)) for more in ({"skip_modules": WORDS}, {}))
    found = loaded.provenance
    assert packed(loaded.model) == every() - PLAIN
    assert sum(found.modules.values()) == LINEARS - len(PLAIN)
    assert found.linears == LINEARS + 1
    assert found.bits_per_weight == pytest.approx(whole.provenance.bits_per_weight, rel=0.03)
    assert found.bits_overall > whole.provenance.bits_overall + 1
    plain = world.load(Scheme("fp16")).model
    distances = [(logits(one.model) - logits(plain)).norm() for one in (loaded, whole)]
    assert distances[0] < distances[1]
    assert loaded.model.config.name_or_path == str(made)


def test_plain_layers_hold_the_models_own_weights(world: World, made: Path) -> None:
    """But for the scale that AWQ gives a layer beside others that read the same, and takes off the norm."""
    from safetensors.torch import load_file

    before, after = (load_file(place / "model.safetensors") for place in (world.model, made))
    scaled = {"model.layers.0.self_attn.k_proj"} if world.kind == "awq" else set()
    for name in PLAIN - scaled:
        assert (before[f"{name}.weight"] == after[f"{name}.weight"]).all()
        assert f"{name}.qweight" not in after
    for name in scaled:
        norm = "model.layers.0.input_layernorm.weight"
        one, other = (each[f"{name}.weight"].float() * each[norm].float() for each in (before, after))
        assert (one - other).abs().max() <= 2**-10 * one.abs().max()
    norm = "model.layers.1.input_layernorm.weight"  # all that read it are plain, so it has no scale
    assert (before[norm] == after[norm]).all()


def test_every_reader_knows_which_are_plain(
    world: World, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from gptqmodel import BACKEND, GPTQModel
    from transformers import AutoModelForCausalLM, AwqConfig, GPTQConfig

    monkeypatch.setattr("gptqmodel.nn_modules.qlinear.torch.torch_compile", lambda module, **_: module)
    ours = logits(world.load(world.scheme(skip_modules=WORDS)).model)
    ready = world.load(Scheme(world.kind, {}, str(made)))
    config = GPTQConfig(bits=4, backend="torch") if world.kind == "gptq" else AwqConfig(backend="torch_awq")
    theirs = AutoModelForCausalLM.from_pretrained(made, dtype="float16", quantization_config=config)
    backend = BACKEND.GPTQ_TORCH if world.kind == "gptq" else BACKEND.AWQ_TORCH
    other = GPTQModel.load(str(made), device="cpu", backend=backend, dtype=torch.float16)
    for model in (ready.model, theirs, other.model):
        assert packed(model) == every() - PLAIN
        assert (logits(model) - ours).norm() < 0.01 * ours.norm()
    assert (logits(ready.model) == ours).all()


def test_layer_1_is_not_layer_11(world: World, tmp_path: Path) -> None:
    """Readers compare names by their beginnings and ends."""
    from dataclasses import replace

    model = save_llama(tmp_path / "deep", num_hidden_layers=12, intermediate_size=64)
    deep = replace(world, model=model, cache=tmp_path / "cache", said=[])
    words = {"skip_modules": "model.layers.1.mlp+model.layers.11.self_attn.q_proj", "samples": 2}
    found = packed(deep.load(deep.scheme(**words)).model)
    plain = {f"model.layers.1.mlp.{one}_proj" for one in ("gate", "up", "down")}
    parts = {name.partition("layers.0.")[2] for name in every() if "layers.0." in name}
    whole = {f"model.layers.{layer}.{part}" for layer in range(12) for part in parts}
    assert found == whole - plain - {"model.layers.11.self_attn.q_proj"}


def test_key_and_card_tell_of_them(world: World, made: Path) -> None:
    told, whole = (
        identity(Variant("v", str(world.model), world.scheme(**more)), world.cache)["options"]
        for more in ({"skip_modules": WORDS}, {})
    )
    assert told == {**whole, "skip_modules": WORDS}
    assert "skip_modules" not in whole
    assert made != world.make()
    assert f"| skip_modules | {WORDS} |" in (made / "README.md").read_text().replace("\\", "")
    assert json.loads((made / "qeval.json").read_text())["plan"]["plain"] == sorted(PLAIN)
    assert "plain" not in json.loads((world.make() / "qeval.json").read_text())["plan"]
    settings = json.loads((world.make() / "config.json").read_text())["quantization_config"]
    assert not {"dynamic", "modules_to_not_convert"} & {name for name, value in settings.items() if value}


@pytest.mark.parametrize(
    ("words", "said", "hint"),
    [
        ("down_proj+qproj", "skip_modules=qproj names no linear layer of", "Did you mean 'q_proj'?"),
        ("_proj", "leaves no layer of", "Name fewer modules"),
    ],
)
def test_words_that_cannot_be_followed_are_refused(world: World, words: str, said: str, hint: str) -> None:
    with pytest.raises(QevalError, match=said) as caught:
        world.make(skip_modules=words)
    assert hint in caught.value.hint


def test_a_killed_one_goes_on_and_ends_the_same(
    world: World, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from safetensors.torch import load_file

    from qeval.load.making import awq, gptq

    module, name = (gptq, "_solve_block") if world.kind == "gptq" else (awq, "_search_block")
    real, calls = getattr(module, name), []

    def die_at_the_second(*given: Any) -> Any:
        if calls:
            raise KeyboardInterrupt
        calls.append(True)
        return real(*given)

    other = replace(world, cache=tmp_path, said=[])
    monkeypatch.setattr(module, name, die_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        other.make(skip_modules=WORDS)
    monkeypatch.setattr(module, name, real)
    one, two = (load_file(place / "model.safetensors") for place in (made, other.make(skip_modules=WORDS)))
    assert one.keys() == two.keys()
    assert all((one[name] == tensor).all() for name, tensor in two.items())
