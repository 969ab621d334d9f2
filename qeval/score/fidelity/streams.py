"""The token stream of a protocol: its text, the windows that it is cut into, and the documents behind
them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qeval.base import reading
from qeval.base.errors import QevalError
from qeval.base.fidelity import Stream
from qeval.base.places import at_home, tasks_dir
from qeval.base.protocols import OWN, Protocol, file_text
from qeval.load.mirror import remedy

if TYPE_CHECKING:
    from numpy.typing import NDArray

WINDOW = {"wikitext": 2048, "llama.cpp": 512, "text": 2048}
"""Tokens of a window; of a text the last window holds what is left, others drop it."""
WIKITEXT = ("Salesforce/wikitext", "wikitext-2-raw-v1", "test")
_TITLE = re.compile(r" = [^=].* = ?\n?")
_EMPTY_LINE = " \n"
"""What WikiText's own file has for an empty line, which the data set holds as nothing at all."""
_PROMPT = "prompt"


@dataclass(frozen=True)
class Text:
    """A text and where in it (in characters) its documents begin; empty where it has none."""

    text: str
    begins: tuple[int, ...] = ()


def stream_of(protocol: Protocol, tokenizer: Any, datasets_dir: Path | None, longest: int) -> Stream:
    """The stream of any protocol but a trace, which needs the baseline. `longest` is the most tokens that the
    model reads at once.

    Raises QevalError where the text cannot be had, is shorter than a window, or needs a chat template that
    the tokenizer does not have.
    """
    if protocol.kind == "prompts":
        return joined([(tokens, 1) for tokens in framed_prompts(protocol, tokenizer, longest)], protocol)
    if protocol.kind == "prose":
        return joined([(_begun(tokenizer, text)[:longest], 1) for text in _prose()], protocol)
    if protocol.kind == "text":
        tokens, _ = _tokens(tokenizer, Text(file_text(protocol)))
        size = min(WINDOW["text"], longest)
        parts = [tokens[at : at + size].tolist() for at in range(0, len(tokens), size)]
        return replace(joined([(part, 1) for part in parts], protocol), documents=False)
    size = WINDOW[protocol.kind]
    if size > longest:
        raise QevalError(
            f"{protocol.name} reads windows of {size} tokens, and the model reads {longest} at most.",
            "Use prose, prompts:FILE or trace:FILE.",
        )
    text = (_wikitext if protocol.kind == "wikitext" else _wikitext_file)(datasets_dir)
    return _windows(protocol, *_tokens(tokenizer, text), size, begin_of(tokenizer))


def _windows(
    protocol: Protocol,
    tokens: NDArray[np.int32],
    document: NDArray[np.int32] | None,
    size: int,
    begin: Sequence[int],
) -> Stream:
    """A stream cut into windows of `size` tokens, its remainder dropped."""
    count = len(tokens) // size
    if count == 0:
        raise QevalError(
            f"{protocol.name} has {len(tokens)} tokens, and a window is {size}.", "Name a longer text."
        )
    llama = protocol.kind == "llama.cpp"
    kept = np.array(tokens[: count * size], np.int32)
    if llama and begin:
        kept[::size] = begin[0]
    number = np.repeat(np.arange(count, dtype=np.int32), size)
    scored_from = size // 2 + 1 if llama else 1
    made = Stream(
        tokens=kept,
        ends=np.arange(1, count + 1, dtype=np.int64) * size,
        first=np.full(count, scored_from, np.int64),
        document=number if document is None else document[: count * size],
        available=count * (size - scored_from),
        documents=document is not None,
    )
    return made.beginning(protocol.windows) if protocol.windows else made


def joined(windows: Sequence[tuple[Sequence[int], int]], protocol: Protocol) -> Stream:
    """A stream of windows that are documents: (tokens, the first place that is scored) of each. Those of
    which nothing is scored are left out. Raises QevalError where that are all."""
    kept = [(tokens, first) for tokens, first in windows if len(tokens) > first]
    if not kept:
        raise QevalError(f"{protocol.name} has no token that is scored.", "Name a file that holds more text.")
    available = sum(len(tokens) - first for tokens, first in kept)
    kept = kept[: protocol.windows or len(kept)]
    return Stream(
        tokens=np.array([token for tokens, _ in kept for token in tokens], np.int32),
        ends=np.cumsum([len(tokens) for tokens, _ in kept], dtype=np.int64),
        first=np.array([first for _, first in kept], np.int64),
        document=np.repeat(np.arange(len(kept), dtype=np.int32), [len(tokens) for tokens, _ in kept]),
        available=available,
    )


# --- tokens -------------------------------------------------------------------------------------


def begin_of(tokenizer: Any) -> list[int]:
    """The token that the tokenizer puts before a text, if it does."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    found = tokenizer("a")["input_ids"]
    begin = tokenizer.bos_token_id
    return [begin] if begin is not None and found[:1] == [begin] and plain[:1] != [begin] else []


def _begun(tokenizer: Any, text: str) -> list[int]:
    """A text's tokens behind one that begins it: its own, or what stands in for it."""
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return [start, *tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]]


def _tokens(tokenizer: Any, text: Text) -> tuple[NDArray[np.int32], NDArray[np.int32] | None]:
    """A text's tokens, a begin before them if the tokenizer adds one, and the document of each; None where
    the text has none, or the tokenizer does not tell where tokens stand."""
    begin = begin_of(tokenizer)
    placed = bool(text.begins) and bool(getattr(tokenizer, "is_fast", False))
    found = tokenizer(text.text, add_special_tokens=False, return_offsets_mapping=placed, verbose=False)
    tokens = np.array([*begin, *found["input_ids"]], np.int32)
    if not placed:
        return tokens, None
    at = np.array([low for low, _ in found["offset_mapping"]], np.int64)
    document = np.searchsorted(np.array(text.begins), at, side="right") - 1
    document = np.maximum(document, 0)
    return tokens, np.concatenate([document[: len(begin)], document]).astype(np.int32)


# --- texts --------------------------------------------------------------------------------------


def _wikitext(datasets_dir: Path | None) -> Text:
    """The lines of WikiText-2's test split joined by blank lines, as the papers on GPTQ and AWQ read them."""
    lines = _lines(datasets_dir)
    starts = np.cumsum([0, *(len(line) + 2 for line in lines)])
    return Text("\n\n".join(lines), tuple(int(starts[at]) for at in titles(lines)))


def _wikitext_file(datasets_dir: Path | None) -> Text:
    """The same as the file that it was cut from, which is what llama.cpp reads."""
    lines = [line or _EMPTY_LINE for line in _lines(datasets_dir)]
    starts = np.cumsum([0, *(len(line) for line in lines)])
    return Text("".join(lines), tuple(int(starts[at]) for at in titles(lines)))


def titles(lines: Sequence[str]) -> list[int]:
    """Where articles begin: titles with an empty line on both sides, for formulas are set like titles too."""
    empty = [not line.strip() for line in lines]
    return [
        at
        for at, line in enumerate(lines)
        if _TITLE.fullmatch(line) and (at == 0 or empty[at - 1]) and (at + 1 == len(lines) or empty[at + 1])
    ]


def _lines(datasets_dir: Path | None) -> list[str]:
    from datasets import load_dataset

    name, configuration, split = WIKITEXT
    mirror = datasets_dir / name if datasets_dir else None
    place = str(mirror) if mirror is not None and mirror.is_dir() else name
    try:
        return [str(line) for line in load_dataset(place, configuration, split=split)["text"]]
    except Exception as error:
        raise QevalError(
            f"WikiText-2 ({name}) cannot be read: {' '.join(str(error).split())[:200]}",
            remedy(
                [name], datasets_dir, "Name a mirror with --datasets-dir, or measure by prose or text:FILE."
            ),
        ) from error


def _prose() -> list[str]:
    file = tasks_dir() / "demo" / "prose.jsonl"
    return [str(row["text"]) for row in reading.json_lines(file, reading.content(file))]


def prompts(protocol: Protocol) -> list[str]:
    """The prompts of a protocol: a line each, or of a .jsonl file the key "prompt" of each. Raises
    QevalError."""
    if protocol.file == OWN:
        lines = reading.text(tasks_dir() / "demo" / "prompts.txt").splitlines()
    elif protocol.file.endswith(".jsonl"):
        return _prompts_of_objects(protocol)
    else:
        lines = file_text(protocol).splitlines()
    return [line for line in lines if line.strip()]


def _prompts_of_objects(protocol: Protocol) -> list[str]:
    path = at_home(protocol.file)
    try:
        rows = list(reading.json_lines(path, file_text(protocol).encode()))
    except OSError as error:
        raise QevalError(f"{path} cannot be read: {reading.told(error)}.", reading.remedy(error)) from error
    if not all(isinstance(row, dict) and isinstance(row.get(_PROMPT), str) for row in rows):
        raise QevalError(f"A line of {path} has no {_PROMPT!r}.", 'Write {"prompt": "..."} on each line.')
    return [row[_PROMPT] for row in rows]


def framed_prompts(protocol: Protocol, tokenizer: Any, longest: int) -> list[list[int]]:
    """The tokens of each prompt in the chat frame, up to where an answer begins. Raises QevalError for a
    tokenizer without a chat template, and for a prompt that the model cannot read at once."""
    if not getattr(tokenizer, "chat_template", None):
        raise QevalError(
            f"{protocol.name} puts prompts into the chat template, and the model's tokenizer has none.",
            "Use text:FILE, or a model that was tuned for chat.",
        )
    made = []
    for number, prompt in enumerate(prompts(protocol), 1):
        messages = [{"role": "user", "content": prompt}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        tokens = list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
        if len(tokens) > longest:
            raise QevalError(
                f"Prompt {number} of {protocol.name} is {len(tokens)} tokens long, but there is room for"
                f" {longest}.",
                "Shorten it.",
            )
        made.append(tokens)
    return made
