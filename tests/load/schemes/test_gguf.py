"""GGUF files tell themselves what they hold, and which of several is meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_models import LINEARS, save_llama

from qeval.base.errors import QevalError
from qeval.base.records import Scheme, Variant
from qeval.load import model
from qeval.load.schemes import parse_schemes
from qeval.load.schemes.gguf import evidence, find
from qeval.load.source import Source
from qeval.load.spec import Recipe

pytestmark = pytest.mark.torch
pytest.importorskip("gguf")


def write(file: Path) -> Path:
    """A file of two Q8_0 matrices, one in F16, a norm and an embedding."""
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import quantize

    writer = GGUFWriter(file, "llama")
    weights = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    packed = quantize(weights, GGMLQuantizationType.Q8_0)
    for name in ("blk.0.attn_q.weight", "blk.0.attn_k.weight", "token_embd.weight"):
        writer.add_tensor(name, packed, raw_dtype=GGMLQuantizationType.Q8_0)
    writer.add_tensor("blk.0.attn_v.weight", weights.astype(np.float16))
    writer.add_tensor("blk.0.attn_norm.weight", weights[0])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def recipe(place: Path, file: str = "") -> Recipe:
    source = Source(str(place))
    return Recipe("m", source, source, True, {"file": file}, "float16", "float32", "cpu", place)


def test_types_and_bits_are_read_from_the_tensors(tmp_path: Path) -> None:
    found = evidence(write(tmp_path / "a.gguf"))
    assert found["modules"] == {"Q8_0": 2}
    assert found["bits_per_weight"] == 8 + 16 / 32
    assert found["quantization"]["file"] == "a.gguf"


def test_the_only_file_goes_unnamed_and_one_of_several_does_not(tmp_path: Path) -> None:
    first = write(tmp_path / "a.gguf")
    assert find(recipe(tmp_path)) == first
    second = write(tmp_path / "b.gguf")
    with pytest.raises(QevalError, match="does not say which GGUF file") as caught:
        find(recipe(tmp_path))
    assert "It has: a.gguf, b.gguf." in caught.value.hint
    assert find(recipe(tmp_path, "b.gguf")) == second
    with pytest.raises(QevalError, match=r"has no file c\.gguf"):
        find(recipe(tmp_path, "c.gguf"))


@pytest.mark.parametrize("named", [True, False])
def test_a_part_of_a_split_model_is_refused_with_what_joins_it(tmp_path: Path, named: bool) -> None:
    for part in (1, 2):
        write(tmp_path / f"big-Q8_0-0000{part}-of-00002.gguf")
    with pytest.raises(QevalError, match="is one of 2 parts of a model") as caught:
        find(recipe(tmp_path, "big-Q8_0-00002-of-00002.gguf" if named else ""))
    joined = "llama-gguf-split --merge big-Q8_0-00001-of-00002.gguf big-Q8_0.gguf"
    assert joined in caught.value.hint
    whole = write(tmp_path / "big-Q8_0.gguf")
    assert find(recipe(tmp_path, "big-Q8_0.gguf")) == whole
    assert find(recipe(tmp_path)) == whole


NAMES = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}
PLAIN_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def name_of(name: str) -> str:
    """What llama.cpp calls a tensor of transformers' Llama."""
    if name in PLAIN_NAMES:
        return PLAIN_NAMES[name]
    _, _, block, *rest, _ = name.split(".")
    norms = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    return f"blk.{block}.{norms.get(rest[0]) or NAMES[rest[-1]]}.weight"


def interleaved(weight: Any, heads: int) -> Any:
    """The rows of each head with its two halves interleaved, as llama.cpp stores queries and keys."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def write_llama(plain: Path, file: Path, **more: Any) -> dict[str, Any]:
    """A tiny Llama as a GGUF file, MLPs in Q4_0 and attention in Q8_0; returns the weights that it stands
    for, unpacked by the gguf package, by transformers' names. `more` are further tensors, "__" for a dot."""
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import dequantize, quantize
    from safetensors.numpy import load_file

    config = json.loads((plain / "config.json").read_text())
    writer = GGUFWriter(file, "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    dense = {}
    for name, half in load_file(plain / "model.safetensors").items():
        tensor = half.astype(np.float32)
        heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(name.split(".")[-2])
        if "_proj" not in name:
            writer.add_tensor(name_of(name), tensor)
            continue
        kind = GGMLQuantizationType.Q4_0 if ".mlp." in name else GGMLQuantizationType.Q8_0
        packed = quantize(interleaved(tensor, config[heads]) if heads else tensor, kind)
        writer.add_tensor(name_of(name), packed, raw_dtype=kind)
        # a row is packed by itself, so that their order does not matter to the values
        dense[name] = dequantize(quantize(tensor, kind), kind)
    for name, tensor in more.items():
        writer.add_tensor(name.replace("__", "."), tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return dense


def test_the_loaded_weights_are_those_of_the_file(tmp_path: Path) -> None:
    import torch

    plain = save_llama(tmp_path / "plain", initializer_range=0.02)
    place = tmp_path / "ready"
    place.mkdir()
    dense = write_llama(plain, place / "tiny.gguf")
    for text in (f"gguf@{place / 'tiny.gguf'}", f"gguf@{place}"):
        ((_, scheme),) = parse_schemes(text)
        variant = Variant("v", str(plain), scheme)
        loaded = model.load(variant, device="cpu", dtype="float32", cache_dir=tmp_path / "cache")
        found = loaded.provenance
        assert found.modules == {"Q8_0": 2 * 4, "Q4_0": 2 * 3}
        assert found.linears == LINEARS + 1
        eight, four = 2 * (2 * 64 * 64 + 2 * 64 * 32), 2 * 3 * 64 * 128
        assert found.bits_per_weight == pytest.approx((8.5 * eight + 4.5 * four) / (eight + four))
        assert found.quantization["types"] == found.modules
        assert any("unpacked" in note for note in found.notes)
        for name, weight in dense.items():
            assert torch.equal(loaded.model.get_parameter(name), torch.from_numpy(weight)), name


@pytest.mark.parametrize(("name", "size"), [("blk.0.attn_q.bias", 64), ("rope_freqs.weight", 16)])
def test_tensors_that_transformers_passes_over_are_refused(tmp_path: Path, name: str, size: int) -> None:
    import numpy as np

    plain = save_llama(tmp_path / "plain", initializer_range=0.02)
    file = tmp_path / "tiny.gguf"
    write_llama(plain, file, **{name.replace(".", "__"): np.full(size, 3, np.float32)})
    ((_, scheme),) = parse_schemes(f"gguf@{file}")
    variant = Variant("v", str(plain), scheme)
    with pytest.raises(QevalError, match=f"has no place for .the first: {name}"):
        model.load(variant, device="cpu", cache_dir=tmp_path / "cache")
    found = model.load(variant, device="cpu", cache_dir=tmp_path / "cache", allow_unused=(name,))
    assert any(name in warning for warning in found.provenance.warnings)


@pytest.mark.parametrize(
    ("written", "place", "file"),
    [
        ("/models/a/b.gguf", "/models/a", "b.gguf"),
        ("./b.Q4_K_M.gguf", ".", "b.Q4_K_M.gguf"),
        ("b.gguf", ".", "b.gguf"),
        ("/b.gguf", "/", "b.gguf"),
        (r"C:\models\b.GGUF", r"C:\models", "b.GGUF"),
        ("org/name/b.gguf", "org/name", "b.gguf"),
        ("org/name", "org/name", None),
    ],
)
def test_a_file_can_be_named_by_its_path(written: str, place: str, file: str | None) -> None:
    ((name, scheme),) = parse_schemes(f"gguf@{written}")
    assert (scheme.checkpoint, scheme.options.get("file")) == (place, file)
    assert parse_schemes(name) == ((name, scheme),)


def test_a_revision_stays_with_a_named_file() -> None:
    ((_, scheme),) = parse_schemes("gguf@org/name/b.gguf:v2")
    assert scheme == Scheme("gguf", {"file": "b.gguf"}, "org/name", "v2")


def test_a_real_file_is_read() -> None:
    from qeval.load.demo import PACKAGE, _gguf_file
    from qeval.load.versions import version_of

    if version_of(PACKAGE) is None:
        pytest.skip(f"{PACKAGE} holds the file")

    found = evidence(_gguf_file())
    assert found["modules"] == {"Q4_1": 30 * 7}
    assert found["bits_per_weight"] == 5
