"""A model that does not fit beside what quantising takes is quantised block by block out of host memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_worlds import QUIET, World, new_world

from qeval.base.errors import QevalError
from qeval.load.schemes import SCHEMES
from qeval.load.source import Source
from qeval.load.spec import Recipe

pytestmark = QUIET
GIB = 2**30
PLAIN = 26 * GIB


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """A recipe for a model in the shape of Llama-2-13B, of which there is the configuration alone."""
    (tmp_path / "config.json").write_text(
        '{"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40}', "utf-8"
    )
    place = Source(str(tmp_path))
    return Recipe("m", place, place, False, {}, "float16", "float16", "cuda:0", tmp_path / "cache")


def placed(recipe: Recipe, gpu: float, host: float, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """Where it is quantised, with 128 samples of 2048 tokens, on a machine of so many GiB."""
    from qeval.load.making import room
    from qeval.load.making.calibration import Calibration

    there = {"cuda:0": int(gpu * GIB), "cpu": int(host * GIB)}
    monkeypatch.setattr(room, "estimate", lambda *_: PLAIN)
    monkeypatch.setattr(room, "free_bytes", there.get)
    return room.placed(recipe, SCHEMES["gptq"], Calibration("c4", 128, 2048))


def test_a_gpu_takes_the_whole_where_it_has_room(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not placed(recipe, 80, 64, monkeypatch).streamed
    assert not placed(replace(recipe, streamed=True), 80, 64, monkeypatch).streamed
    assert placed(recipe, 24, 64, monkeypatch).streamed


@pytest.mark.parametrize(("gpu", "host"), [(24, 16), (6, 64)])
def test_where_neither_has_room_a_sentence_says_what_it_takes(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, gpu: float, host: float
) -> None:
    says = r"Quantising m by gptq takes .* GiB of cuda:0 and 26.0 GiB of host"
    with pytest.raises(QevalError, match=says) as no:
        placed(recipe, gpu, host, monkeypatch)
    assert "fewer samples=128" in no.value.hint
    assert "gptq@DIRECTORY" in no.value.hint


def test_a_block_is_moved_there_and_back() -> None:
    import torch

    from qeval.load.making import room

    went = []

    class Block(torch.nn.Linear):
        def to(self, device: Any) -> Any:
            went.append(str(device))
            return self

    with room.on("cuda:0", Block(2, 2)):
        assert went == ["cuda:0"]
    assert went == ["cuda:0", "cpu"]


@pytest.mark.gpu
def test_all_but_the_blocks_moves_and_what_is_tied_stays_tied() -> None:
    import torch
    from architectures import tiny_model

    from qeval.load.making import room

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    model = tiny_model("llama")
    model.lm_head.weight = model.model.embed_tokens.weight
    room.beside(model, "cuda:0")
    assert {p.device.type for p in model.model.layers.parameters()} == {"cpu"}
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.lm_head.weight.device.type == model.model.norm.weight.device.type == "cuda"


@pytest.mark.parametrize("kind", ["gptq", "awq"])
def test_the_checkpoint_is_the_same(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = new_world(tmp_path, kind, {"group_size": 32, "samples": 4, "length": 32})
    whole = (world.make() / "model.safetensors").read_bytes()
    assert (apart(world, tmp_path, monkeypatch).make() / "model.safetensors").read_bytes() == whole


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["gptq", "awq"])
def test_the_checkpoint_is_the_same_on_a_gpu(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    options = {"group_size": 32, "samples": 4, "length": 32}
    world = replace(new_world(tmp_path, kind, options), device="cuda:0")
    whole = (world.make() / "model.safetensors").read_bytes()
    other = apart(world, tmp_path, monkeypatch)
    assert (other.make() / "model.safetensors").read_bytes() == whole
    assert any("come there one by one" in said for said in other.said)


def apart(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """The same world with another cache, on a machine that has no room for the whole."""
    from qeval.load.making import room

    monkeypatch.setattr(room, "placed", lambda recipe, *_: replace(recipe, streamed=True))
    return replace(world, cache=tmp_path / "other", said=[])
