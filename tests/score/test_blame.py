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


def test_what_was_changed_beside_linear_layers_holds_together_with_them():
    model = tiny_model("llama")
    variant = noisy(model)
    with torch.no_grad():
        variant.get_submodule("model.layers.0.input_layernorm").weight.mul_(2)
    names = groups.differing(model, variant)
    assert "model.layers.0.input_layernorm" in names
    linears = {n for n, m in model.named_modules() if _linear(m)}
    assert groups.grouped(names, "model.layers", "layer", linears)
    by_half = {one.name: set(one.modules) for one in groups.grouped(names, "model.layers", "module", linears)}
    read = {
        f"model.layers.0.{part}" for part in ("input_layernorm", *(f"self_attn.{k}_proj" for k in "qkvo"))
    }
    assert by_half["model.layers.0.self_attn with input_layernorm"] == read
    assert by_half["lm_head"] == {"lm_head"}
    names = (*names, "model.norm")
    with pytest.raises(QevalError, match=r"Use --by layer\."):
        groups.grouped(names, "model.layers", "kind", linears)


def test_words_name_a_group_and_nothing_else():
    every = [
        f"model.layers.{k}.{part}" for k in (1, 10) for part in ("mlp.up_proj", "mlp.down_proj", "attn.o")
    ]
    group = groups.Group("model.layers.1", tuple(every[:3]), 1)
    blocks = "model.layers"
    assert groups.skip_words(group, every, blocks, "layer") == ("model.layers.1.mlp", "model.layers.1.attn.o")
    assert groups.skip_words(groups.Group("mlp.up_proj", (every[0], every[3]), 1), every, blocks, "kind") == (
        "mlp.up_proj",
    )
    assert groups.skip_words(groups.Group(every[0], (every[0],), 1), every, blocks, "module") == (every[0],)


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


QUANTISED_HERE = {
    "bnb4": "bitsandbytes",
    "bnb8": "bitsandbytes",
    "gptq[group_size=32,calibration=own,samples=4,length=32,backend=torch]": "gptqmodel",
    "awq[group_size=32,calibration=own,samples=4,length=32]": "gptqmodel",
    "hqq[bits=4,group_size=64]": "hqq",
    "rtn[group_size=32]": "torch",
    "torchao": "torchao",
    "quanto": "optimum.quanto",
}
"""Every scheme that quantises here and runs on a CPU, and what it needs."""


def laid(model: Path, scheme: str, by: str, cache: Path, bits: float):
    """What blame finds, and the scheme to paste."""
    from qeval.ask.protocols import parse
    from qeval.base.records import Variant
    from qeval.load.schemes import parse_schemes
    from qeval.report.blame import as_data
    from qeval.score.blame.blaming import Question, blame

    first, second = (
        Variant(name, str(model), one) for name, one in (*parse_schemes("fp16"), *parse_schemes(scheme))
    )
    [protocol] = parse("prose[windows=1]")
    found = blame(Question(first, second, by, protocol, "cpu", "auto", cache, None, bits), lambda _: None)
    return found, as_data(found, second.scheme)["schemes"]


@pytest.fixture(scope="module")
def damaged(tmp_path_factory) -> Path:
    """A model whose second MLP makes most of what it says, so that its rounding does most of the harm."""
    from safetensors.torch import load_file, save_file

    made = save_model(tmp_path_factory.mktemp("damaged"))
    tensors = load_file(made / "model.safetensors")
    for name in ("0.self_attn.o_proj", "0.mlp.down_proj", "1.self_attn.o_proj"):
        tensors[f"model.layers.{name}.weight"] *= 0.005
    tensors["model.layers.1.mlp.down_proj.weight"] *= 4
    save_file(tensors, made / "model.safetensors", metadata={"format": "pt"})
    return made


@pytest.mark.parametrize("scheme", QUANTISED_HERE)
def test_the_suggested_list_can_be_pasted(damaged, tmp_path_factory, scheme):
    pytest.importorskip(QUANTISED_HERE[scheme])
    cache = tmp_path_factory.getbasetemp() / "blamed"
    found, paste = laid(damaged, scheme, "module", cache, 3)
    assert "model.layers.1.mlp" in found.groups[0].name
    assert found.groups[0].name in found.suggested
    again, more = laid(damaged, paste, "module", cache, 3)
    assert again.whole < 0.5 * found.whole
    assert {one.name for one in again.groups} == {one.name for one in found.groups} - set(found.suggested)
    assert more.count("skip_modules") == 1
    assert f"{found.words}+{again.words}" in more


def test_of_awq_what_shares_a_scale_is_swapped_together(damaged, tmp_path):
    awq = next(scheme for scheme in QUANTISED_HERE if scheme.startswith("awq"))
    found, _ = laid(damaged, awq, "module", tmp_path, 3)
    halves = ("self_attn with input_layernorm", "mlp with post_attention_layernorm")
    assert {one.name for one in found.groups} == {
        f"model.layers.{k}.{half}" for k in (0, 1) for half in halves
    }
    assert {one.words for one in found.groups} == {
        (f"model.layers.{k}.{part}",) for k in (0, 1) for part in ("self_attn", "mlp")
    }
    assert found.total == pytest.approx(found.whole, rel=0.5)
    kinds, paste = laid(damaged, awq, "kind", tmp_path, 6)
    assert {one.name for one in kinds.groups} == set(halves)
    assert "skip_modules=mlp.gate_proj+mlp.up_proj+mlp.down_proj" in paste


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--model", "toy", "--scheme", "bnb4"), "The toy has no modules."),
        (("--model", "demo", "--scheme", "bnb4,bnb8"), "--scheme names several schemes."),
        (("--model", "demo", "--scheme", "bnb4", "--fidelity", "trace:own"), "Blame cannot follow traces."),
        (
            ("--model", "demo", "--scheme", "bnb4", "--fidelity", "prose,trace:own"),
            "names several protocols.",
        ),
    ],
)
def test_words_that_make_no_sense(qeval, words, said):
    assert said in qeval("blame", *words, code=2).stderr
