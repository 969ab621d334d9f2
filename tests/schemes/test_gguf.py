"""GGUF files tell themselves what they hold, and which of several is meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from qeval.errors import QevalError
from qeval.schemes.gguf import evidence, find
from qeval.schemes.spec import Order
from qeval.sources import Source

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


def order(place: Path, file: str = "") -> Order:
    source = Source(str(place))
    return Order("m", source, source, True, {"file": file}, "float16", "float32", "cpu", place)


def test_types_and_bits_are_read_from_the_tensors(tmp_path: Path) -> None:
    found = evidence(write(tmp_path / "a.gguf"))
    assert found["modules"] == {"Q8_0": 2}
    assert found["bits_per_weight"] == 8 + 16 / 32
    assert found["quantization"]["file"] == "a.gguf"


def test_the_only_file_goes_unnamed_and_one_of_several_does_not(tmp_path: Path) -> None:
    first = write(tmp_path / "a.gguf")
    assert find(order(tmp_path)) == first
    second = write(tmp_path / "b.gguf")
    with pytest.raises(QevalError, match="does not tell which GGUF file") as caught:
        find(order(tmp_path))
    assert "It has: a.gguf, b.gguf." in caught.value.hint
    assert find(order(tmp_path, "b.gguf")) == second
    with pytest.raises(QevalError, match=r"has no file c\.gguf"):
        find(order(tmp_path, "c.gguf"))
