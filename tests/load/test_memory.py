"""What a checkpoint takes in memory, told from the sizes of its files before they are read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny_models import edit_json

from qeval.base.errors import QevalError
from qeval.load import memory
from qeval.load.schemes import SCHEMES
from qeval.load.source import Source, weight_files_bytes
from qeval.load.spec import Recipe

GIB = 2**30


def sized(file: Path, size: int) -> None:
    """A file of that size, which takes no room on the disk."""
    file.parent.mkdir(exist_ok=True)
    with file.open("wb") as written:
        written.truncate(size)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A model of 2 GiB in float16, so of 2^30 weights."""
    sized(tmp_path / "base" / "model.safetensors", 2 * GIB)
    (tmp_path / "base" / "config.json").write_text("{}")
    edit_json(tmp_path / "base" / "config.json", dtype="float16")
    return tmp_path / "base"


def gguf(base: Path, place: Path, file: str = "") -> Recipe:
    options = {"file": file, "attention": "auto"}
    source, plain = Source(str(place)), Source(str(base))
    return Recipe("m", source, plain, True, options, "float16", "float16", "cpu", place / "cache")


def test_a_gguf_file_takes_its_size_and_the_plain_weights(base: Path, tmp_path: Path) -> None:
    place = tmp_path / "files"
    sized(place / "q4.gguf", GIB)
    assert memory.estimate(gguf(base, place), SCHEMES["gguf"]) == int((1 + 2) * GIB * memory.SPARE)


def test_only_the_gguf_file_that_is_read_counts(base: Path, tmp_path: Path) -> None:
    place = tmp_path / "files"
    sized(place / "q4.gguf", GIB)
    sized(place / "q8.gguf", 2 * GIB)
    found = memory.estimate(gguf(base, place, "q8.gguf"), SCHEMES["gguf"])
    assert found == int((2 + 2) * GIB * memory.SPARE)


def test_a_gguf_file_beside_the_plain_model_is_told_from_it(base: Path) -> None:
    sized(base / "q4.gguf", GIB)
    assert memory.estimate(gguf(base, base), SCHEMES["gguf"]) == int((1 + 2) * GIB * memory.SPARE)


def test_no_file_has_no_size(base: Path, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    assert memory.estimate(gguf(base, tmp_path / "files"), SCHEMES["gguf"]) is None
    assert memory.estimate(gguf(base, tmp_path / "files", "q4.gguf"), SCHEMES["gguf"]) is None


def test_without_the_plain_model_the_weights_are_told_from_the_file(tmp_path: Path) -> None:
    place = tmp_path / "files"
    sized(place / "q4.gguf", 9 * GIB)
    (tmp_path / "bare").mkdir()
    found = memory.estimate(gguf(tmp_path / "bare", place), SCHEMES["gguf"])
    assert found == int((9 + 2 * 8 * 9 / 4.5) * GIB * memory.SPARE)


def test_the_hub_tells_the_sizes_of_files_that_are_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    def tell(_: Any, model: str, **asked: Any) -> Any:
        if (model, asked["revision"]) != ("org/files", "v2"):
            raise OSError("no network")
        sizes = {"model.safetensors": 5, "pytorch_model.bin": 6, "q4.gguf": 7, "q8.gguf": 8}
        return SimpleNamespace(
            siblings=[SimpleNamespace(rfilename=name, size=size) for name, size in sizes.items()]
        )

    def no_index(*_: Any, **__: Any) -> str:
        raise EntryNotFoundError.__new__(EntryNotFoundError)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", no_index)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", tell)
    monkeypatch.setattr("qeval.load.source._PAUSES", (0, 0))
    monkeypatch.setattr("qeval.load.source._ANSWERED", {})
    source = Source("org/files", "v2")
    assert weight_files_bytes(source) is None  # offline
    monkeypatch.setattr("huggingface_hub.constants.is_offline_mode", lambda: False)
    assert weight_files_bytes(source) == 5
    assert weight_files_bytes(source, "q8.gguf") == 8
    assert weight_files_bytes(source, "*.gguf") is None
    assert weight_files_bytes(Source("org/other")) is None


def test_a_mixture_is_held_plain_before_its_experts_are_packed(base: Path) -> None:
    place = Source(str(base))
    recipe = Recipe("m", place, place, False, {}, "float16", "float16", "cuda:0", base / "cache")
    dense = memory.estimate(recipe, SCHEMES["bnb4"])
    assert dense == int(GIB * 5 / 8 * memory.SPARE)
    edit_json(base / "config.json", num_local_experts=8)
    assert memory.estimate(recipe, SCHEMES["bnb4"]) == int(2 * GIB * memory.SPARE)
    edit_json(base / "config.json", num_local_experts=None, text_config={"num_experts": 8})
    assert memory.estimate(recipe, SCHEMES["bnb4"]) == int(2 * GIB * memory.SPARE)


def test_what_does_not_fit_is_told_with_what_would(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Source(str(base))
    recipe = Recipe("m", place, place, False, {}, "float16", "float16", "cpu", base / "cache")
    monkeypatch.setattr(memory, "free_bytes", lambda _: GIB)
    with pytest.raises(
        QevalError, match=r"needs about 2\.2 GiB of memory, and cpu has 1\.0 GiB free"
    ) as refused:
        memory.check_fits(recipe, SCHEMES["fp16"])
    assert refused.value.hint.endswith("a scheme of fewer bits; at most 7.3 of a weight would fit.")
    with pytest.raises(QevalError) as refused:
        memory.check_fits(recipe, SCHEMES["gptq"])
    assert refused.value.hint.endswith("name the directory: gptq@DIRECTORY.")
    asked: list[str] = []
    monkeypatch.setattr(memory, "free_bytes", lambda device: asked.append(device) or 4 * GIB)
    memory.check_fits(replace(recipe, device="cuda:0", streamed=True), SCHEMES["fp16"])
    memory.check_fits(replace(recipe, device="cuda:0"), SCHEMES["fp16"])
    assert asked == ["cpu", "cuda:0"]
