"""Blame: it finds a planted damage, a swap of nothing is nothing, restarts change nothing, parts add up."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from architectures import tiny_model
from fidelity_streams import by_brute_force, random_stream
from tiny_models import save_model

torch = pytest.importorskip("torch")

from qeval.base.errors import QevalError  # noqa: E402
from qeval.score.blame import groups  # noqa: E402
from qeval.score.blame.swapping import Boundaries, swapped  # noqa: E402
from qeval.score.engine.body import CausalModel  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]
ARCHITECTURES = ["llama", "gemma2", "gpt_neox", "falcon", "mixtral", "opt"]


def noisy(model, size=0.02, only=None):
    made = copy.deepcopy(model)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, module in made.named_modules():
            if isinstance(module, torch.nn.Linear) and (only is None or only in name):
                module.weight.add_(torch.randn_like(module.weight) * size)
    return made


def states_of(model, stream):
    lm = CausalModel(model)
    name, blocks = groups.blocks_of(model)
    return Boundaries(lm, blocks, stream, 3), name, blocks


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_swap_from_a_boundary_is_the_swap_of_the_whole(architecture):
    model, stream = tiny_model(architecture), random_stream(90)
    variant = noisy(model)
    states, name, blocks = states_of(model, stream)
    assert [states.divergence(block) for block in (None, 0, 1, len(blocks) - 1)] == [0, 0, 0, 0]
    found = groups.grouped(
        groups.differing(model, variant), name, "layer", {n for n, m in model.named_modules() if _linear(m)}
    )
    assert [group.block for group in found if group.block is not None] == list(range(len(blocks)))
    for group in found:
        with swapped(model, variant, group.modules):
            kl = states.divergence(group.block)
            assert kl == pytest.approx(states.divergence(None), rel=1e-6)
        both = copy.deepcopy(model)
        for part in group.modules:
            both.set_submodule(part, variant.get_submodule(part))
        exact, _, _ = by_brute_force(model, both, stream, 97)
        assert kl == pytest.approx(exact.mean(), abs=1e-6)
    assert states.divergence(None) == 0


def _linear(module):
    return isinstance(module, torch.nn.Linear)


@pytest.mark.parametrize(
    ("by", "guilty"), [("layer", "model.layers.1"), ("kind", "mlp.down_proj"), ("module", None)]
)
def test_it_finds_a_planted_damage(by, guilty):
    model, stream = tiny_model("llama"), random_stream(90)
    variant = noisy(model, 0.002)
    with torch.no_grad():
        weight = variant.get_submodule("model.layers.1.mlp.down_proj").weight
        weight.add_(torch.randn_like(weight) * 0.3)
    states, name, _ = states_of(model, stream)
    linears = {n for n, m in model.named_modules() if _linear(m)}
    found = {}
    for group in groups.grouped(groups.differing(model, variant), name, by, linears):
        with swapped(model, variant, group.modules):
            found[group.name] = states.divergence(group.block)
    worst = max(found, key=found.get)
    assert worst == (guilty or "model.layers.1.mlp.down_proj")
    assert found[worst] > 10 * max(kl for name, kl in found.items() if name != worst)


def test_what_was_changed_beside_linear_layers_holds_together_by_layer_alone():
    model = tiny_model("llama")
    variant = noisy(model)
    with torch.no_grad():
        variant.get_submodule("model.layers.0.input_layernorm").weight.mul_(2)
    names = groups.differing(model, variant)
    assert "model.layers.0.input_layernorm" in names
    linears = {n for n, m in model.named_modules() if _linear(m)}
    assert groups.grouped(names, "model.layers", "layer", linears)
    with pytest.raises(QevalError, match=r"Use --by layer\."):
        groups.grouped(names, "model.layers", "kind", linears)


def test_words_name_a_group_and_nothing_else():
    every = [
        f"model.layers.{k}.{part}" for k in (1, 10) for part in ("mlp.up_proj", "mlp.down_proj", "attn.o")
    ]
    group = groups.Group("model.layers.1", tuple(every[:3]), 1)
    assert groups.skip_words(group, every, "layer") == ("model.layers.1.mlp", "model.layers.1.attn.o")
    assert groups.skip_words(groups.Group("mlp.up_proj", (every[0], every[3]), 1), every, "kind") == (
        "mlp.up_proj",
    )
    assert groups.skip_words(groups.Group(every[0], (every[0],), 1), every, "module") == (every[0],)


def test_equal_models_have_nothing_to_blame():
    model = tiny_model("llama")
    with pytest.raises(QevalError, match="there is nothing to blame"):
        groups.differing(model, copy.deepcopy(model))


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("llama"))


WORDS = ("blame", "--device", "cpu", "--fidelity", "prose[windows=2]")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "within"), [("rtn[bits=8,group_size=32]", 0.2), ("rtn[bits=4,group_size=32]", None)]
)
def test_through_the_command_parts_add_up(qeval, llama, tmp_path, scheme, within):
    chart = tmp_path / "chart.svg"
    said = qeval(
        *WORDS, "--model", llama, "--scheme", scheme, "--by", "module", "--chart", chart, "--json"
    ).stdout
    told = json.loads(said)
    assert told["control"] == 0
    assert len(told["groups"]) == 14
    assert told["sum"] == pytest.approx(sum(one["kl"] for one in told["groups"]))
    if within:
        assert told["sum"] == pytest.approx(told["whole"], rel=within)
    assert chart.read_text().startswith("<svg")
    said = qeval(*WORDS, "--model", llama, "--scheme", scheme, "--by", "kind").stdout
    assert "All together" in said
    assert "A swap of nothing is exactly 0." in said


@pytest.mark.slow
def test_the_suggested_list_can_be_pasted(qeval, llama):
    words = (*WORDS, "--model", llama, "--by", "module", "--bits", "3", "--json", "--scheme")
    told = json.loads(qeval(*words, "bnb4").stdout)
    assert told["suggested"]
    again = json.loads(qeval(*words, told["schemes"]).stdout)
    assert again["whole"] < told["whole"]
    left = {one["name"] for one in again["groups"]}
    assert left == {one["name"] for one in told["groups"]} - set(told["suggested"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--model", "toy", "--scheme", "bnb4"), "The toy has no modules."),
        (("--model", "demo", "--scheme", "bnb4,bnb8"), "--scheme names several schemes."),
        (("--model", "demo", "--scheme", "bnb4", "--fidelity", "trace:own"), "Blame follows no traces."),
        (
            ("--model", "demo", "--scheme", "bnb4", "--fidelity", "prose,trace:own"),
            "names several protocols.",
        ),
    ],
)
def test_words_that_make_no_sense(qeval, words, said):
    assert said in qeval("blame", *words, code=2).stderr
