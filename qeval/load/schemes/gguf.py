"""gguf: a file of llama.cpp, unpacked by transformers into plain weights."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from qeval.base.errors import QevalError
from qeval.base.places import at_home
from qeval.base.records import Scheme
from qeval.load.packages import ACCELERATE
from qeval.load.reading import unused
from qeval.load.reading.gguf_once import read_once
from qeval.load.reading.opening import ATTENTION, compute_in, open_model
from qeval.load.source import locate
from qeval.load.spec import OptionSpec, Package, Recipe, SchemeSpec

PLAIN = {"F32", "F16", "BF16", "F64"}
EMBEDDINGS = ("token_embd.", "output.")
PART = re.compile(r"-\d{5}-of-(\d{5})\.gguf$", re.IGNORECASE)
DOC = """\
The file is unpacked by transformers. llama.cpp itself is not used as a runtime: PyPI has llama-cpp-python
as source only, to be compiled where it is installed, and it would have to give log-likelihoods through an
engine of its own. It was run with gguf 0.19.0. A model that is split into several files has to be joined by
llama.cpp first: `llama-gguf-split --merge`.
"""


def load(recipe: Recipe) -> Any:
    """The file's weights, unpacked; what they were in the file is told by the file's own table of tensors.

    Raises QevalError where the file is not there, or not one was named of several.
    """
    from transformers import GgufConfig

    file = find(recipe)
    recipe.notes.append(
        f"{file.name} is unpacked into plain weights: its quality, not the speed of llama.cpp."
    )
    with read_once():
        recipe.evidence.update(evidence(file))
        model = open_model(recipe, gguf_file=file.name, quantization_config=GgufConfig(dequantize=True))
        _check_whole(recipe, model, file)
    return compute_in(model, recipe.compute)


def _check_whole(recipe: Recipe, model: Any, file: Path) -> None:
    """Refuse a file of more numbers than the model has taken: transformers passes over a tensor in silence
    whose name it does not know, biases and stretched frequencies among them."""
    from gguf import GGUFReader
    from transformers.modeling_gguf_pytorch_utils import (
        TENSOR_PROCESSORS,
        TensorProcessor,
        get_gguf_hf_weights_map,
    )

    tensors = GGUFReader(file).tensors
    taken = sum(tensor.numel() for tensor in model.parameters())
    if sum(int(tensor.n_elements) for tensor in tensors) <= taken:
        return
    kind = TENSOR_PROCESSORS.get(model.config.model_type, TensorProcessor)
    known = get_gguf_hf_weights_map(model, kind(config=model.config.to_dict()))
    names = [tensor.name for tensor in tensors if tensor.name not in known]
    refused = [name for name in names if not unused.allowed(name, recipe)]
    if refused or not names:
        raise QevalError(
            f"{file.name} holds {max(1, len(refused))} tensors that {type(model).__name__} has no place for"
            f" (the first: {min(refused, default='unknown')}).",
            f"To score it without them, add --allow-unused '{min(refused, default='*')}'.",
        )
    recipe.warnings.append(
        f"{file.name} holds tensors {unused.ALLOWED} ({names[0]}): this is not the model that was saved."
    )


def settle(scheme: Scheme) -> Scheme:
    """`gguf@DIR/NAME.gguf`, as a file manager shows it, is `gguf[file=NAME.gguf]@DIR`; others stay."""
    found = re.fullmatch(r"(?s:(.*)[/\\])?([^/\\]+\.gguf)", scheme.checkpoint or "", re.IGNORECASE)
    if found is None or "file" in scheme.options or at_home(found[0]).is_dir():
        return scheme
    place = "." if found[1] is None else found[1] or "/"
    return replace(scheme, options={**scheme.options, "file": found[2]}, checkpoint=place)


def find(recipe: Recipe) -> Path:
    """The GGUF file that the recipe names; the only one of a directory may go unnamed."""
    name = str(recipe.options["file"])
    _refuse_part(recipe, name)
    if name:
        place = locate(recipe.source, name)
        if place is None:
            raise QevalError(f"{recipe.source.path} has no file {name}.", "Look at the names of its files.")
        return place
    found = sorted(Path(recipe.source.place).glob("*.gguf")) if recipe.source.local else []
    files = [file for file in found if not PART.search(file.name)]
    if found and not files:
        _refuse_part(recipe, found[0].name)
    if len(files) != 1:
        known = f"It has: {', '.join(file.name for file in files)}." if files else ""
        raise QevalError(
            f"{recipe.source.path} does not say which GGUF file to read.",
            f"Write gguf[file=NAME.gguf]@{recipe.source.path}. {known}".strip(),
        )
    return files[0]


def _refuse_part(recipe: Recipe, name: str) -> None:
    """Raise QevalError for one of the files into which llama.cpp splits a large model."""
    part = PART.search(name)
    if part is None:
        return
    whole = f"{name[: part.start()]}.gguf"
    first = f"{name[: part.start()]}-00001-of-{part[1]}.gguf"
    raise QevalError(
        f"{name} is one of {int(part[1])} parts of a model, and transformers reads models of one file only.",
        f"Join them with llama.cpp: llama-gguf-split --merge {first} {whole}; then write"
        f" gguf[file={whole}]@{recipe.source.path}.",
    )


def evidence(file: Path) -> dict[str, Any]:
    """Types and bits of the weight matrices in a GGUF file, embeddings and head apart.

    `modules` counts matrices by type, `bits_per_weight` is bytes by weights of the quantised ones,
    `bits_overall` that of the whole file.
    """
    from gguf import GGUFReader

    tensors = GGUFReader(file).tensors
    matrices = [
        tensor for tensor in tensors if len(tensor.shape) > 1 and not tensor.name.startswith(EMBEDDINGS)
    ]
    packed = [tensor for tensor in matrices if tensor.tensor_type.name not in PLAIN]
    counts = Counter(tensor.tensor_type.name for tensor in packed)
    weights = sum(int(tensor.n_elements) for tensor in packed)
    return {
        "modules": dict(counts),
        "bits_per_weight": 8 * sum(int(tensor.n_bytes) for tensor in packed) / weights if weights else None,
        "quantised_share": weights / max(1, sum(int(tensor.n_elements) for tensor in matrices)),
        "bits_overall": 8
        * sum(int(tensor.n_bytes) for tensor in tensors)
        / sum(int(tensor.n_elements) for tensor in tensors),
        "quantization": {
            "quant_method": "gguf",
            "file": file.name,
            "types": dict(counts),
            "dequantized": True,
        },
    }


SPECS = (
    SchemeSpec(
        "gguf",
        "a GGUF file of llama.cpp, unpacked; ready checkpoints",
        load,
        (OptionSpec("file", str, "", "the file, where there are several", acts="reading"), ATTENTION),
        (Package("gguf", "gguf", "0.10"), ACCELERATE),
        "gguf",
        DOC,
        place=190,
        unpacked=True,
        checkpoint="required",
        methods=("gguf", ""),
        files="*.gguf",
        settle=settle,
    ),
)
