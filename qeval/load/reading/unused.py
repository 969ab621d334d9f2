"""Tensors of a checkpoint that the model has no place for: what may be left out is told, the rest refused."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from qeval.base.errors import QevalError
from qeval.load.reading.headers import Tensors, holds_safetensors
from qeval.load.source import Source, locate, read_json
from qeval.load.spec import Recipe

_BUFFERS = r"rotary_emb\.inv_freq$|\.attn\.bias$|attention\.(bias|masked_bias)$|masked_bias$|position_ids$"
_KV = r"\.[kv]v?_scale$|\.[kv]_(proj\.output|cache)_scale$|kv_cache|\.(q|prob_output)_scale$|_zero_point_kv$"
_OTHER_PARTS = (
    r"(^|\.)(vision|visual|image|audio|speech|video)(_?\w*)\.|(^|\.)(multi_modal|mm|multimodal)_\w+\."
    r"|(^|\.)(mtp|mtp_\w+|nextn\w*|eagle\w*)\.|(^|\.)v_head\."
)
OTHER_PARTS = "parts that a language model does not use"
BUFFERS = "buffers that are calculated"
KINDS = {
    BUFFERS: re.compile(_BUFFERS),
    "scales of a key-value cache": re.compile(_KV),
    OTHER_PARTS: re.compile(_OTHER_PARTS),
}
"""Names of tensors that no answer depends on, by what they are."""
_BLOCK = re.compile(r"(?:^|\.)layers\.(\d+)\.")
IGNORED, ZEROS, COPIES = (
    "named by transformers as not needed",
    "nothing but zeros",
    "copies of the embeddings",
)
ALLOWED = "left out as --allow-unused says"


@dataclass
class Loading:
    """What transformers found before its own lists of exceptions are applied, and after them."""

    missing: set[str] = field(default_factory=set)
    unexpected: set[str] = field(default_factory=set)


@contextmanager
def watched() -> Iterator[Loading]:
    """Within it a Loading is filled in with the names that from_pretrained misses and does not expect."""
    from transformers import PreTrainedModel

    seen, name = Loading(), "_adjust_missing_and_unexpected_keys"
    theirs = getattr(PreTrainedModel, name)

    def adjust(model: Any, found: Any) -> None:
        seen.missing, seen.unexpected = set(found.missing_keys), set(found.unexpected_keys)
        theirs(model, found)

    setattr(PreTrainedModel, name, adjust)
    try:
        yield seen
    finally:
        setattr(PreTrainedModel, name, theirs)


def made_up(model: Any, loading: Loading, missing: Collection[str]) -> set[str]:
    """The parameters that a checkpoint gives no values for: those that transformers names, and those that
    are on its list of exceptions but hold random numbers now."""
    parameters = dict(model.named_parameters())
    excused = (parameters.get(name) for name in loading.missing.difference(missing))
    random = {
        id(tensor) for tensor in excused if tensor is not None and bool((tensor != tensor.flatten()[0]).any())
    }
    return {*missing, *(name for name, tensor in parameters.items() if id(tensor) in random)}


def check(recipe: Recipe, model: Any, loading: Loading, unexpected: Collection[str]) -> None:
    """Tell of tensors that were left out, by kind; QevalError where one of them may have meant something.

    `unexpected` are those that are on no list of transformers' own.
    """
    with ExitStack() as stack:
        stored = _Stored(recipe.source, stack)
        kinds: dict[str, list[str]] = defaultdict(list)
        for name in sorted(loading.unexpected):
            kind = IGNORED if name not in unexpected else _kind(name, recipe, model, stored)
            kinds[kind].append(name)
    refused = kinds.pop("", [])
    if refused:
        raise QevalError(
            f"{recipe.source.path} holds {_count(len(refused))} that {type(model).__name__} has no place for"
            f" (the first: {refused[0]}).",
            "Another model class or code of its own may be meant. To score it without them, add"
            f" --allow-unused '{_pattern(refused[0])}'.",
        )
    allowed = kinds.pop(ALLOWED, [])
    if allowed:
        recipe.warnings.append(
            f"{_sentence(recipe, {ALLOWED: allowed})}: this is not the model that was saved."
        )
    if kinds:
        recipe.notes.append(f"{_sentence(recipe, kinds)}.")


def _sentence(recipe: Recipe, kinds: Mapping[str, list[str]]) -> str:
    total = sum(map(len, kinds.values()))
    parts = [f"{len(names)} {kind} ({names[0]})" for kind, names in kinds.items()]
    return f"{recipe.source.path} holds {_count(total)} that the model has no place for: {', '.join(parts)}"


def _count(number: int) -> str:
    return f"{number} tensor" + ("s" if number > 1 else "")


def _pattern(name: str) -> str:
    return re.sub(r"\.\d+(?=\.)", ".*", name)


def _kind(name: str, recipe: Recipe, model: Any, stored: _Stored) -> str:
    """What an unexpected tensor is; empty where it may matter."""
    tensor = stored.read(name)
    trained = name.endswith("bias") and tensor is not None and not _is_mask(tensor)
    for kind, pattern in KINDS.items():
        if pattern.search(name) and not (trained and kind == BUFFERS):
            return kind
    if _predicts_further(name, model.config):
        return OTHER_PARTS
    if tensor is not None and not bool(tensor.any()):
        return ZEROS
    if tensor is not None and any(_equal(tensor, held) for held in _embeddings(model)):
        return COPIES
    return ALLOWED if allowed(name, recipe) else ""


def allowed(name: str, recipe: Recipe) -> bool:
    """Whether the user said that a tensor may be left out."""
    return any(fnmatchcase(name, pattern) for pattern in recipe.allow_unused)


def _is_mask(tensor: Any) -> bool:
    """Whether a tensor may be a mask of attention, or the value that it puts in place of what is not seen."""
    square = tensor.ndim > 1 and tensor.shape[-1] == tensor.shape[-2]
    return bool(tensor.numel() == 1 or (square and tensor.bool().equal(tensor.bool().tril())))


def _predicts_further(name: str, config: Any) -> bool:
    """Whether a tensor belongs to a block behind the last one, which predicts tokens further ahead."""
    block = _BLOCK.search(name)
    further = getattr(config, "num_nextn_predict_layers", None)
    return bool(further and block and 0 <= int(block[1]) - config.num_hidden_layers < further)


def _embeddings(model: Any) -> Iterator[Any]:
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        if getattr(module, "weight", None) is not None:
            yield module.weight


def _equal(tensor: Any, held: Any) -> bool:
    """Whether a tensor of a file is what is held of another, as far as its type keeps it."""
    same = tensor.shape == held.shape and held.is_floating_point() and held.device.type != "meta"
    return bool(same and tensor.to(held.dtype).equal(held.detach().to("cpu")))


class _Stored:
    """The tensors of a checkpoint's own files by the names that transformers gives them."""

    def __init__(self, source: Source, stack: ExitStack) -> None:
        self._source, self._stack = source, stack
        self._readers: dict[str, Callable[[str], Any]] | None = None

    def read(self, name: str) -> Any:
        """The tensor; None where no file holds it under that name, or that name within a prefix."""
        if self._readers is None:
            self._readers = dict(self._open())
        ends = [known for known in self._readers if known.endswith(f".{name}") or name.endswith(f".{known}")]
        known = name if name in self._readers else ends[0] if len(ends) == 1 else None
        return None if known is None else self._readers[known](known)

    def _open(self) -> Iterator[tuple[str, Callable[[str], Any]]]:
        if holds_safetensors(self._source):
            tensors = Tensors(self._source, self._stack)
            yield from dict.fromkeys(tensors.files, tensors.read).items()
            return
        import torch

        index = read_json(self._source, "pytorch_model.bin.index.json") or {}
        for file in sorted(set(index.get("weight_map", {}).values())) or ["pytorch_model.bin"]:
            place = locate(self._source, file)
            if place is not None:
                state = torch.load(place, map_location="cpu", mmap=True, weights_only=True)
                yield from dict.fromkeys(state, state.__getitem__).items()
