"""Checkpoints of random weights in the shape of real models, plain or packed: for measuring costs only."""

from __future__ import annotations

import json
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from scoring import SHAPES

from qeval.base.files import build_directory

__all__ = ["SHAPES", "in_shards", "packed", "plain"]
GROUP = 128
AWQ = {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "sym": True, "checkpoint_format": "gptq"}


def plain(cache: Path, shape: str) -> Path:
    """A directory with a Llama of this shape in float16 and a tokenizer of a few words."""
    return build_directory(cache / "random" / shape, lambda place: _save_plain(place, shape))


def _save_plain(place: Path, shape: str) -> None:
    import torch

    model = _model(shape, "cuda" if torch.cuda.is_available() else "cpu")
    model.save_pretrained(place, max_shard_size="20GB")
    _save_tokenizer(place)


def _model(shape: str, device: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(LlamaConfig(**SHAPES[shape]), dtype=torch.float16)


def _save_tokenizer(place: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: at for at, word in enumerate(["<s>", "</s>", "word"])}
    words = WordLevel(vocabulary, "word")
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words), **tokens).save_pretrained(place)


def in_shards(place: Path, shape: str, tokenizer: Path) -> Path:
    """A directory with a Llama of this shape in float16, as many rows as the tokenizer in `tokenizer` has
    tokens, and that tokenizer; a file for each block, so that no device need hold the whole."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

    known = AutoTokenizer.from_pretrained(tokenizer)
    config = LlamaConfig(**{**SHAPES[shape], "vocab_size": len(known)}, dtype="float16")
    with torch.device("meta"):
        tensors = AutoModelForCausalLM.from_config(config, dtype=torch.float16).state_dict()
    shards: dict[str, list[str]] = {}
    for name in tensors:
        block = name.partition(".layers.")[2].partition(".")[0]
        shards.setdefault(f"model-{block or 'rest'}.safetensors", []).append(name)
    place.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(8) as pool:
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        list(pool.map(lambda one: _save_shard(place / one[0], one[1], shapes), shards.items()))
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # the memory is for those who score
    weight_map = {name: file for file, names in shards.items() for name in names}
    total = sum(2 * tensor.numel() for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (place / "model.safetensors.index.json").write_text(json.dumps(index))
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(place)
    known.save_pretrained(place)
    return place


def _save_shard(path: Path, names: list[str], shapes: dict[str, tuple[int, ...]]) -> None:
    import torch
    from safetensors.torch import save_file

    device = "cuda" if torch.cuda.is_available() else "cpu"
    draw = torch.Generator(device).manual_seed(zlib.crc32(path.name.encode()))
    made = {}
    for name in names:
        drawn = torch.randn(shapes[name], generator=draw, device=device, dtype=torch.float16)
        made[name] = (torch.ones_like(drawn) if len(shapes[name]) == 1 else drawn * 0.02).cpu()
    save_file(made, path, metadata={"format": "pt"})


def packed(cache: Path, shape: str, name: str) -> Path:
    """A directory with the same model as `gptq`, `gptq-act-order` or `awq`: random codes of 4 bits."""
    return build_directory(
        cache / "random" / f"{shape}-{name}", lambda place: _save_packed(place, shape, name)
    )


def _save_packed(place: Path, shape: str, name: str) -> None:
    import torch
    from safetensors.torch import save_file

    device = "cuda" if torch.cuda.is_available() else "cpu"
    tensors: dict[str, Any] = {}
    model = _model(shape, "meta")
    torch.manual_seed(0)
    for key, tensor in model.state_dict().items():
        if "_proj" in key:
            rows, columns = tensor.shape
            parts = _layer(columns, rows, name, device)
            tensors |= {f"{key.removesuffix('weight')}{part}": value.cpu() for part, value in parts.items()}
        else:
            norm = tensor.dim() == 1
            made = torch.ones(tensor.shape) if norm else 0.02 * torch.randn(tensor.shape)
            tensors[key] = made.half()
    save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
    model.config.save_pretrained(place)
    config = json.loads((place / "config.json").read_text())
    told = AWQ if name == "awq" else {**GPTQ, "desc_act": name == "gptq-act-order"}
    (place / "config.json").write_text(
        json.dumps({**config, "dtype": "float16", "quantization_config": told})
    )
    _save_tokenizer(place)


def _layer(inputs: int, outputs: int, name: str, device: str) -> dict[str, Any]:
    """The packed tensors of one layer: eight codes of 4 bits in each integer."""
    import torch

    def integers(*shape: int) -> Any:
        return torch.randint(-(2**31), 2**31 - 1, shape, dtype=torch.int32, device=device)

    scales = (torch.rand(inputs // GROUP, outputs, device=device) * 2e-3 + 1e-3).half()
    if name == "awq":
        qzeros = integers(inputs // GROUP, outputs // 8)
        return {"qweight": integers(inputs, outputs // 8), "qzeros": qzeros, "scales": scales}
    middle = torch.full((inputs // GROUP, outputs // 8), 0x77777777, dtype=torch.int32, device=device)
    order = torch.arange(inputs, dtype=torch.int32, device=device) // GROUP
    if name == "gptq-act-order":
        order = order[torch.randperm(inputs, device=device)]
    return {"qweight": integers(inputs // 8, outputs), "qzeros": middle, "scales": scales, "g_idx": order}
