"""What safetensors files hold is told without reading their numbers, from one file or several."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import pytest
from tiny_worlds import QUIET

from qeval.base.errors import QevalError
from qeval.load.reading.headers import Stored, Tensors, bits_per_weight, stored_tensors
from qeval.load.source import Source

pytestmark = QUIET


def write(place: Path, file: str, **tensors: object) -> None:
    from safetensors.torch import save_file

    save_file(tensors, place / file)


@pytest.mark.parametrize(
    ("dtype", "name", "width"),
    [
        ("float64", "F64", 64),
        ("float32", "F32", 32),
        ("bfloat16", "BF16", 16),
        ("float8_e4m3fn", "F8_E4M3", 8),
        ("float8_e8m0fnu", "F8_E8M0", 8),
        ("int64", "I64", 64),
        ("int32", "I32", 32),
        ("uint16", "U16", 16),
        ("uint8", "U8", 8),
        ("bool", "BOOL", 8),
    ],
)
def test_types_are_told_with_their_bits(tmp_path: Path, dtype: str, name: str, width: int) -> None:
    import torch

    write(tmp_path, "model.safetensors", x=torch.zeros(3, 5, dtype=getattr(torch, dtype)))
    found = stored_tensors(Source(str(tmp_path)))
    assert found == {"x": Stored(name, (3, 5))}
    assert (found["x"].width, found["x"].bits) == (width, 15 * width)


def in_two_files(place: Path) -> Source:
    import torch

    write(place, "a.safetensors", **{"layer.weight": torch.ones(4, 4, dtype=torch.uint8)})
    write(place, "b.safetensors", **{"layer.scales": torch.ones(4, dtype=torch.float16)})
    files = {"layer.weight": "a.safetensors", "layer.scales": "b.safetensors"}
    (place / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    return Source(str(place))


def test_several_files_are_one_checkpoint(tmp_path: Path) -> None:
    source = in_two_files(tmp_path)
    found = stored_tensors(source)
    assert found == {"layer.weight": Stored("U8", (4, 4)), "layer.scales": Stored("F16", (4,))}
    assert bits_per_weight(found, {"layer": 16}) == 8 + 4 * 16 / 16
    with ExitStack() as stack:
        assert Tensors(source, stack).read("layer.scales").tolist() == [1, 1, 1, 1]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    source = in_two_files(tmp_path)
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(QevalError, match=r"has no file b\.safetensors"):
        stored_tensors(source)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0not json")
    with pytest.raises(QevalError, match="is damaged"):
        stored_tensors(Source(str(tmp_path)))


def test_without_such_files_nothing_is_told(tmp_path: Path) -> None:
    assert stored_tensors(Source(str(tmp_path))) == {}
