"""GPTQ made here and read back: it is what was asked, plain transformers reads it, a killed one goes on.

And the trap that a revision is recorded and another one loaded.
"""

from __future__ import annotations

import itertools
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_models import LINEARS, WORDS, to_hub_cache
from tiny_worlds import QUIET, World, logits, new_world

from qeval.base.errors import QevalError, UsageError
from qeval.base.records import Scheme
from qeval.load import memory
from qeval.load import model as models

pytestmark = QUIET
OPTIONS = {"group_size": 32, "samples": 8, "length": 32, "backend": "torch"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = new_world(tmp_path_factory.mktemp("gptq"), "gptq", OPTIONS)
    one_sided(made.model)
    return made


def one_sided(model: Path) -> None:
    """Give every layer rows without negative weights and without positive ones, whose zero points lie at the
    ends of their range: the usual format stores zero points less one, so that 0 wraps around."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(model / "model.safetensors")
    for name, tensor in tensors.items():
        if "_proj" in name:
            tensor[::5] = tensor[::5].abs()
            tensor[1::5] = -tensor[1::5].abs()
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})


def weights(world: World, directory: Path) -> dict[str, Any]:
    """The dequantised weights of a checkpoint, by layer, as (out, in) matrices."""
    found = world.load(Scheme("gptq", {"backend": "torch"}, str(directory))).model
    return {
        name: module.dequantize_weight().T.float()
        for name, module in found.named_modules()
        if hasattr(module, "qweight")
    }


@pytest.mark.parametrize(("bits", "act_order"), [(4, False), (4, True), (3, False), (8, False), (2, False)])
def test_the_checkpoint_is_what_was_asked(world: World, bits: int, act_order: bool) -> None:
    loaded = world.load(world.scheme(bits=bits, act_order=act_order))
    found = loaded.provenance
    assert sum(found.modules.values()) == LINEARS
    assert found.linears == LINEARS + 1
    assert found.quantization["bits"] == bits
    assert found.quantization["group_size"] == 32
    assert found.quantization["desc_act"] is act_order
    assert found.quantization["g_idx_permuted"] is act_order
    layer = 64 * 64  # of q_proj: codes, 16-bit scales and zeros of `bits` for every 32, and 64 group indices
    q_proj = loaded.model.model.layers[0].self_attn.q_proj
    stored = sum(
        getattr(q_proj, name).numel() * getattr(q_proj, name).element_size() * 8
        for name in ("qweight", "qzeros", "scales", "g_idx")
    )
    assert stored == layer * bits + layer // 32 * (16 + bits) + 64 * 32
    assert "quantised here, with 8 samples of 32 tokens" in found.notes[0]


def test_solved_weights_lie_on_the_grid_and_beat_rounding(world: World) -> None:
    """GPTQ's promise is a smaller error of the outputs, not of the weights."""
    import torch

    directory = world.make(bits=3)
    plain = world.load(Scheme("fp16")).model
    inputs: dict[str, Any] = {}
    layers = {name: module for name, module in plain.named_modules() if name.endswith("layers.0.mlp.up_proj")}
    for name, module in layers.items():
        module.register_forward_pre_hook(
            lambda _, given, name=name: inputs.__setitem__(name, given[0].detach())
        )
    tokens = torch.tensor([[3 + (7 * at * at) % len(WORDS) for at in range(120)]])
    plain(tokens)
    solved = weights(world, directory)
    rounded = world.load(Scheme("rtn", {"bits": 3, "group_size": 32, "symmetric": True})).model
    for name, module in layers.items():
        assert all(len(row.unique()) <= 2**3 for row in solved[name].reshape(-1, 32))
        exact = inputs[name] @ module.weight.T
        error = (inputs[name] @ solved[name].T - exact).norm()
        assert error < (inputs[name] @ rounded.get_submodule(name).weight.T - exact).norm()


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("order", [{}, {"act_order": True}, {"group_aware": False}])
def test_what_is_read_back_is_exactly_what_was_solved(
    world: World, monkeypatch: pytest.MonkeyPatch, bits: int, symmetric: bool, order: dict[str, bool]
) -> None:
    """The solver's codes, which it gives as weights, times its scales as they are stored, in float16."""
    import torch

    from qeval.load.making import gptq

    expected: dict[str, Any] = {}
    quantise = gptq.quantise

    def watch(model: Any, *args: Any) -> Any:
        solved = quantise(model, *args)
        for name, grid in solved.items():
            scale, zero, groups = grid.scale, grid.zero, grid.g_idx
            assert symmetric or zero.min() == 0 < zero.max() == 2**bits - 1
            wide, zeros = scale[:, groups.long()], zero[:, groups.long()]
            codes = torch.round(model.get_submodule(name).weight / wide + zeros)
            assert 0 <= codes.min() <= codes.max() < 2**bits
            assert len(codes.unique()) > min(2**bits, 64) // 2
            expected[name] = (codes - zeros) * wide.half().float()
        return solved

    monkeypatch.setattr(gptq, "quantise", watch)
    found = weights(world, world.make(bits=bits, symmetric=symmetric, seed=7, **order))
    assert len(found) == len(expected) == LINEARS
    for name, matrix in expected.items():
        assert torch.equal(found[name], matrix.half().float()), name


def test_the_order_of_columns_changes_the_weights(world: World) -> None:
    import torch

    orders: list[dict[str, Any]] = [{}, {"act_order": True}, {"group_aware": False}]
    found = [weights(world, world.make(**order)) for order in orders]
    for first, second in itertools.combinations(found, 2):
        assert any(not torch.equal(first[name], second[name]) for name in first)


def test_the_damping_changes_the_codes(world: World) -> None:
    from safetensors.torch import load_file

    little, much = (load_file(world.make(damp=damp) / "model.safetensors") for damp in (0.001, 0.9))
    assert any(bool((little[name] != much[name]).any()) for name in little if name.endswith("qweight"))


def test_a_model_too_large_is_refused_before_it_is_quantised(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda _: 10_000)
    world.said.clear()
    with pytest.raises(QevalError, match="GiB of memory, and cpu has"):
        world.make(seed=12)
    assert world.said == []


def test_the_attention_asked_for_is_used(world: World) -> None:
    options = {"backend": "torch", "attention": "eager"}
    loaded = world.load(Scheme("gptq", options, str(world.make())))
    assert loaded.model.config._attn_implementation == "eager"


def test_plain_transformers_reads_it_with_the_same_answers(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM, GPTQConfig

    directory = world.make()
    ours = world.load(Scheme("gptq", {"backend": "torch"}, str(directory)), dtype="float16")
    monkeypatch.setattr("gptqmodel.nn_modules.qlinear.torch.torch_compile", lambda module, **_: module)
    theirs = AutoModelForCausalLM.from_pretrained(
        directory, dtype="float16", quantization_config=GPTQConfig(bits=4, backend="torch")
    )
    assert (logits(ours.model) - logits(theirs)).abs().max() == 0
    assert ours.provenance.model == str(directory)


def test_what_was_made_is_what_a_run_loads(world: World) -> None:
    from huggingface_hub import ModelCard

    directory = world.make()
    shipped = world.load(Scheme("gptq", {"backend": "torch"}, str(directory)))
    assert (logits(shipped.model) - logits(world.load(world.scheme()).model)).abs().max() == 0
    card = ModelCard.load(directory / "README.md")
    assert (card.data.base_model, card.data.tags) == (None, ["gptq", "quantized"])  # a directory here
    assert "| group_size | 32 |" in card.text
    assert "gptqmodel" in card.text


def test_a_load_asks_once_what_is_made_and_reads_that(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from qeval.load.making import checkpoint
    from qeval.load.schemes import gptq

    asked: list[Path] = []
    make = checkpoint.checkpoint
    monkeypatch.setattr(gptq.checkpoint, "checkpoint", lambda *given: asked.append(make(*given)) or asked[-1])
    loaded = world.load(world.scheme())
    assert [str(place) for place in asked] == [loaded.model.config.name_or_path]


def test_it_is_made_once(world: World) -> None:
    first = world.make()
    world.said.clear()
    assert world.make() == first
    assert world.said == ["gptq: taking the checkpoint that was quantised earlier"]
    assert world.make(seed=1) != first


def test_killed_in_the_middle_it_goes_on_and_ends_the_same(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    from qeval.load.making import gptq

    undisturbed = load_file(world.make() / "model.safetensors")
    other = replace(world, cache=tmp_path / "cache", said=[])
    solve = gptq._solve_block
    solved = []

    def die_at_the_second(*args: Any) -> Any:
        if solved:
            raise KeyboardInterrupt
        solved.append(True)
        return solve(*args)

    monkeypatch.setattr(gptq, "_solve_block", die_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        other.make()
    again: list[bool] = []
    monkeypatch.setattr(gptq, "_solve_block", lambda *args: again.append(True) or solve(*args))
    resumed = load_file(other.make() / "model.safetensors")
    assert len(again) == 1
    assert resumed.keys() == undisturbed.keys()
    assert all((resumed[name] == tensor).all() for name, tensor in undisturbed.items())
    left = [
        path.name
        for path in (tmp_path / "cache" / "checkpoints").iterdir()
        if not path.name.endswith(".lock")
    ]
    assert len(left) == 1


def test_a_revision_is_the_one_that_is_loaded(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """lm-eval records the revision that was asked and loads main; both revisions must be told apart."""
    branches = {"main": world.make(), "actorder": world.make(act_order=True)}
    commits = to_hub_cache(tmp_path / "hub", "org/tiny-gptq", branches)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    found = {
        branch: world.load(Scheme("gptq", {"backend": "torch"}, "org/tiny-gptq", branch))
        for branch in branches
    }
    for branch, act_order in (("main", False), ("actorder", True)):
        told = found[branch].provenance
        assert told.revision == commits[branch]
        assert told.quantization["desc_act"] is act_order
        assert told.quantization["g_idx_permuted"] is act_order
        local = world.load(Scheme("gptq", {"backend": "torch"}, str(branches[branch])))
        assert (logits(found[branch].model) - logits(local.model)).abs().max() == 0
    assert (logits(found["main"].model) - logits(found["actorder"].model)).abs().max() > 0
    with pytest.raises(QevalError, match="has desc_act false, where act_order=true was asked"):
        world.load(Scheme("gptq", {"act_order": True}, "org/tiny-gptq", "main"))
    with pytest.raises(QevalError, match="at revision other is not in the local cache"):
        world.load(Scheme("gptq", {}, "org/tiny-gptq", "other"))


def test_options_that_do_not_fit_the_model_are_refused(world: World) -> None:
    with pytest.raises(QevalError, match="48 does not divide the 64 inputs of"):
        world.make(group_size=48)
    with pytest.raises(QevalError, match=r"of 200 tokens are longer than the model accepts \(128\)"):
        world.make(length=200, samples=2)
    for damp in (0.0, 1.0):
        with pytest.raises(QevalError, match=f"damp={damp} is not between 0 and 1"):
            world.make(damp=damp)
    with pytest.raises(UsageError, match="makes no checkpoint") as caught:
        models.make_checkpoint(str(world.model), Scheme("bnb4"), cache_dir=world.cache)
    assert "gptq" in caught.value.hint


def test_the_group_size_is_chosen_to_divide_every_layer(world: World) -> None:
    import json

    config = json.loads((world.make(group_size=0) / "config.json").read_text())
    assert config["quantization_config"]["group_size"] == 64


def test_a_checkpoint_of_files_that_changed_meanwhile_is_not_kept(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qeval.load.making import checkpoint

    model = shutil.copytree(world.model, tmp_path / "model")
    write = checkpoint.write_card

    def late(*told: Any) -> None:
        write(*told)
        (model / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[::-1])

    monkeypatch.setattr(checkpoint, "write_card", late)
    kept = set((world.cache / "checkpoints").glob("*"))
    with pytest.raises(QevalError, match="changed while it was quantised"):
        world.make(model, bits=8)
    assert {path for path in set((world.cache / "checkpoints").glob("*")) - kept if path.is_dir()} == set()
