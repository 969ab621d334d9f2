"""Ready GPTQ checkpoints whose label is old, incomplete or wrong: read as their files say, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gptq_files import save_gptq, to_old_form
from tiny_models import LINEARS, edit_json, save_llama
from tiny_worlds import QUIET

from qeval.base.errors import QevalError
from qeval.base.records import Scheme, Variant
from qeval.load import model as models

pytestmark = QUIET


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("gptq") / "plain")


def load(plain: Path, place: Path, **options: Any) -> models.Loaded:
    scheme = Scheme("gptq", {"backend": "torch", **options}, str(place))
    return models.load(Variant("v", str(plain), scheme), device="cpu", cache_dir=plain.parent / "cache")


def check_weights(loaded: models.Loaded, dense: dict[str, Any]) -> None:
    import torch

    packed = {name: each for name, each in loaded.model.named_modules() if hasattr(each, "qweight")}
    assert packed.keys() == dense.keys()
    for name, weight in dense.items():
        found = packed[name].dequantize_weight().T.float()
        assert torch.allclose(found, weight, atol=1e-3), name


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_the_usual_form_is_read_as_before(plain: Path, tmp_path: Path, bits: int, symmetric: bool) -> None:
    dense = save_gptq(plain, tmp_path / "ready", (bits, 32), symmetric=symmetric)
    loaded = load(plain, tmp_path / "ready")
    check_weights(loaded, dense)
    assert not any("gptq_v2" in note or "mixed" in note for note in loaded.provenance.notes)
    assert sum(loaded.provenance.modules.values()) == LINEARS


def test_a_directory_of_auto_gptq_is_read(plain: Path, tmp_path: Path) -> None:
    place = tmp_path / "ready"
    dense = save_gptq(plain, place)
    to_old_form(place)
    loaded = load(plain, place, bits=4)
    check_weights(loaded, dense)
    found = loaded.provenance
    assert found.quantization["bits"] == 4
    assert found.quantization["group_size"] == 32
    assert any("in quantize_config.json alone" in note for note in found.notes)
    assert any("nothing but zeros" in note for note in found.notes)
    with pytest.raises(QevalError, match="has bits 4, where bits=8 was asked"):
        load(plain, place, bits=8)


def test_settings_that_tell_no_bits_are_refused(plain: Path, tmp_path: Path) -> None:
    place = tmp_path / "ready"
    save_gptq(plain, place)
    to_old_form(place)
    edit_json(place / "quantize_config.json", bits=None)
    with pytest.raises(QevalError, match=r"quantize_config\.json of .* does not state the bits"):
        load(plain, place)


FORMS: dict[str, dict[str, Any]] = {
    "some of more bits": {
        "forms": {"down_proj": (8, 64)},
        "dynamic": {"+:.*down_proj.*": {"bits": 8, "group_size": 64}},
    },
    "some left plain": {"forms": {"o_proj": None}, "dynamic": {"-:.*o_proj.*": {}}},
    "some left plain without a word": {"forms": {"o_proj": None}},
    "a block of its own": {"forms": {r"layers\.1\.": (8, 32)}, "dynamic": {r"+:.*\.1\..*": {"bits": 8}}},
    "a plain layer in one block": {"forms": {r"layers\.1\.mlp.up": None}},
    "the head as well": {"head": True, "lm_head": True},
    "three and two bits": {
        "forms": {"mlp": (3, 64), "self_attn": (2, 32)},
        "dynamic": {"+:mlp": {"bits": 3}},
    },
}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("case", list(FORMS))
def test_mixed_checkpoints_are_read_layer_by_layer(
    plain: Path, tmp_path: Path, case: str, version: int
) -> None:
    import torch

    label = {1: "gptq", 2: "gptq_v2"}[version]
    place = tmp_path / "ready"
    dense = save_gptq(plain, place, version=version, checkpoint_format=label, **FORMS[case])
    loaded = load(plain, place)
    check_weights(loaded, dense)
    assert any("mixed" in note for note in loaded.provenance.notes) is (case not in UNIFORM)
    exact = models.load(Variant("v", str(plain), Scheme("fp32")), device="cpu", cache_dir=tmp_path / "cache")
    with torch.no_grad():
        for name, weight in dense.items():
            exact.model.get_submodule(name).weight.copy_(weight)
    tokens = torch.arange(3, 23)[None]
    expected = exact.model(tokens).logits
    assert torch.allclose(loaded.model(tokens).logits, expected, atol=0.01 * float(expected.abs().max()))


UNIFORM = {"some left plain without a word"}
"""Where every block is like the others, so that nothing need be said."""


def test_transformers_own_classes_are_as_before_afterwards(plain: Path, tmp_path: Path) -> None:
    from optimum.gptq import GPTQQuantizer

    before = GPTQQuantizer._replace_by_quant_layers, GPTQQuantizer.post_init_model
    save_gptq(plain, tmp_path / "ready")
    load(plain, tmp_path / "ready")
    assert (GPTQQuantizer._replace_by_quant_layers, GPTQQuantizer.post_init_model) == before


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize(("label", "version"), [("gptq", 2), ("gptq_v2", 1), (None, 2)])
def test_a_wrong_label_of_zero_points_is_found_out(
    plain: Path, tmp_path: Path, bits: int, symmetric: bool, label: str | None, version: int
) -> None:
    dense = save_gptq(
        plain,
        tmp_path / "ready",
        (bits, 32),
        symmetric=symmetric,
        version=version,
        checkpoint_format=label,
    )
    loaded = load(plain, tmp_path / "ready")
    check_weights(loaded, dense)
    how = {1: "less one (gptq)", 2: "as they are (gptq_v2)"}[version]
    assert any(f"stores its zero points {how}, as its numbers prove" in n for n in loaded.provenance.notes)


def test_zero_points_that_prove_nothing_are_refused(plain: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    place = tmp_path / "ready"
    save_gptq(plain, place)
    tensors = load_file(place / "model.safetensors")
    for name in tensors:
        if name.endswith("qzeros"):
            tensors[name] = tensors[name] + 0x33333333
    save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(QevalError, match="proves that its zero points are stored as gptq"):
        load(plain, place)


def test_layers_that_the_model_has_not_are_refused_by_name(plain: Path, tmp_path: Path) -> None:
    place = tmp_path / "ready"
    save_gptq(plain, place)
    edit_json(place / "config.json", num_hidden_layers=1)
    with pytest.raises(QevalError, match=r"holds \d+ tensors that .* has no place for .*model\.layers\.1"):
        load(plain, place)
    mixed = tmp_path / "mixed"
    save_gptq(plain, mixed, **FORMS["some of more bits"])
    edit_json(mixed / "config.json", num_hidden_layers=1)
    with pytest.raises(QevalError, match=r"packs model\.layers\.1\..*, which the model has not"):
        load(plain, mixed)


def test_experts_packed_one_by_one_are_refused_by_name(plain: Path, tmp_path: Path) -> None:
    """As Mixtral's checkpoints of auto-gptq are, where transformers has one stack for all experts."""
    from safetensors.torch import load_file, save_file

    place = tmp_path / "ready"
    save_gptq(plain, place)
    tensors = load_file(place / "model.safetensors")
    mlp, experts = "model.layers.0.mlp.up_proj", "model.layers.0.block_sparse_moe.experts.0.w1"
    moved = {name.replace(mlp, experts): tensor for name, tensor in tensors.items()}
    save_file(moved, place / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(QevalError, match=r"experts\.0\.w1, which transformers holds in stacks") as caught:
        load(plain, place)
    assert "GGUF" in caught.value.hint
