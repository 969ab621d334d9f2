"""A GGUF file's head is read once, and is the one that the package reads."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from qeval.load.reading.gguf_once import read_once


@pytest.fixture
def file(tmp_path: Path) -> Path:
    place = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(place, "llama")
    writer.add_block_count(2)
    writer.add_token_list([f"word {i}" for i in range(50)])
    writer.add_tensor("token_embd.weight", np.arange(12, dtype=np.float32).reshape(3, 4))
    writer.add_tensor("output_norm.weight", np.arange(4, dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return place


def told(reader):
    """All that a reader has of a file."""
    fields = {name: (field.contents(), field.types) for name, field in reader.fields.items()}
    tensors = [(one.name, one.tensor_type, one.data.tolist(), one.n_bytes) for one in reader.tensors]
    return fields, tensors


def test_a_file_that_is_read_once_holds_what_the_package_reads_of_it(file: Path) -> None:
    usual = told(gguf.GGUFReader(file))
    assert len(usual[0]["tokenizer.ggml.tokens"][0]) == 50
    with read_once():
        once = gguf.GGUFReader(str(file))
        assert told(once) == usual
        assert gguf.GGUFReader(file) is once


def test_names_are_made_once_for_an_architecture() -> None:
    llama = gguf.MODEL_ARCH.LLAMA
    usual = gguf.get_tensor_name_map(llama, 2).mapping
    with read_once():
        names = gguf.get_tensor_name_map(llama, 2)
        assert gguf.get_tensor_name_map(llama, 2) is names
        assert gguf.get_tensor_name_map(llama, 3) is not names
        assert names.mapping == usual


def test_afterwards_the_package_is_as_it_was(file: Path) -> None:
    before = gguf.GGUFReader, gguf.get_tensor_name_map
    file.write_bytes(b"no such file" * 9)
    with pytest.raises(ValueError, match="magic"), read_once():
        gguf.GGUFReader(file)
    assert (gguf.GGUFReader, gguf.get_tensor_name_map) == before
