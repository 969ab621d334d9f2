"""Prepared tasks on disk, under a hash of everything that shapes them; shared by processes and variants."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from qeval.base.hashing import digest
from qeval.base.records import Task
from qeval.score.engine.requests import TokenRequest
from qeval.score.harness import sources
from qeval.score.harness.asked import config_text
from qeval.score.harness.catalogue import version
from qeval.score.harness.leaves import Leaf
from qeval.score.harness.prepared import Arguments, Content, Docs, PreparedTask
from qeval.score.harness.prompts import viewer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SCHEMA = 3
_BROKEN = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, msgspec.MsgspecError)


def key(leaf: Leaf, tokenizer: str, datasets_dir: Path | None, settings: dict[str, Any]) -> str | None:
    """A hash of all that shapes a task's requests; None where something of it cannot be known beforehand.

    `tokenizer` is its `fingerprint`; `settings` are length, seed and chat template.
    """
    import datasets

    data = sources.identity(leaf, datasets_dir)
    config = config_text(leaf.config)
    if data is None or config is None:
        return None
    parts = {
        "schema": _SCHEMA,
        "lm_eval": version(),
        "datasets": datasets.__version__,
        "task": asdict(leaf.task),
        "config": config,
        "data": data,
        "tokenizer": tokenizer,
        **settings,
    }
    return digest(parts, spaced=True)


def fingerprint(tokenizer: Any) -> str:
    """A hash of everything about a tokenizer that decides what tokens a text or a chat becomes."""
    if getattr(tokenizer, "is_fast", False):
        parts = json.loads(tokenizer.backend_tokenizer.to_str())
        for state in ("padding", "truncation"):  # of the last call, not of the tokenizer
            parts.pop(state, None)
    else:
        parts = {
            "vocabulary": tokenizer.get_vocab(),
            "settings": repr(sorted(tokenizer.init_kwargs.items(), key=str)),
        }
    marks = {
        name: str(getattr(tokenizer, name, None)) for name in ("bos_token", "eos_token", "chat_template")
    }
    words = [type(tokenizer).__qualname__, parts, marks, getattr(tokenizer, "add_bos_token", None)]
    return digest(words, spaced=True)


def read_prepared(folder: Path, name: str, leaf: Leaf) -> PreparedTask | None:
    """The task saved under `name`; None where there is none or the file is damaged."""
    import numpy as np

    try:
        with (folder / f"{name}.npz").open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            parts = {part: file[part] for part in file.files}  # reading checks the sums
        with suppress(OSError):
            os.utime(folder / f"{name}.npz")  # it was used now
        return _restored(parts, leaf)
    except _BROKEN:
        return None


def write_prepared(folder: Path, name: str, prepared: PreparedTask) -> None:
    """Writes a task under `name`, whole or not at all. A task whose documents are more than plain data is
    not written; nor is anything where the disk will not have it, for the cache is only there to save time."""
    import numpy as np

    parts = _parts(prepared)
    if parts is None:
        return
    part = folder / f"{name}.{os.getpid()}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            np.savez(file, **parts)
        part.replace(folder / f"{name}.npz")
    except OSError:
        with suppress(OSError):
            part.unlink()


def _parts(prepared: PreparedTask) -> dict[str, Any] | None:
    content = prepared.content
    docs = _packed(list(content.docs()))
    texts = _packed(_table(content.arguments()))
    if docs is None or texts is None:
        return None
    facts = {
        "task": asdict(prepared.task),
        "facts": {name: getattr(prepared, name) for name in _FACTS},
        "content": {name: getattr(content, name) for name in _CONTENT},
    }
    return {
        **_front_coded(content.requests),
        "owner": content.owner,
        "spans": content.spans,
        "facts": _bytes(msgspec.msgpack.encode(facts)),
        "docs": docs,
        "texts": texts,
    }


_FACTS = (
    "n",
    "n_available",
    "version",
    "dataset",
    "truncated",
    "generates",
    "output_type",
    "max_length",
    "repeats",
    "frame",
    "notes",
)
_CONTENT = ("features", "doc_hash", "prompt_hash", "target_hash", "truncated", "n_available")


def _restored(parts: dict[str, Any], leaf: Leaf) -> PreparedTask:
    facts = msgspec.msgpack.decode(parts["facts"].tobytes())
    task = Task(**facts["task"])
    requests = tuple(_requests(parts))
    columns: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in facts["content"].items()
    }
    content = Content(
        docs=_once(lambda: _documents(parts["docs"])),
        arguments=_once(lambda: _arguments(parts["texts"])),
        owner=parts["owner"],
        spans=parts["spans"],
        requests=requests,
        **columns,
    )
    view = viewer(leaf, task, None, content)
    told: dict[str, Any] = {**facts["facts"], "notes": tuple(facts["facts"]["notes"])}
    return PreparedTask(task=task, requests=requests, content=content, view=view, **told)


def _once(make: Callable[[], Any]) -> Callable[[], Any]:
    """`make`, called when first needed and never again."""
    return cache(make)


def _packed(value: Any) -> Any:
    """`value` as compressed bytes, None where it would not come back the same."""
    try:
        data = msgspec.msgpack.encode(value)
        same = msgspec.msgpack.decode(data) == value
    except (TypeError, ValueError, msgspec.MsgspecError):
        return None
    return _bytes(zlib.compress(data, 1)) if same else None


def _bytes(data: bytes) -> Any:
    import numpy as np

    return np.frombuffer(data, dtype=np.uint8)


def _documents(data: NDArray[np.uint8]) -> Docs:
    docs: Docs = msgspec.msgpack.decode(zlib.decompress(data.tobytes()))
    return docs


def _table(arguments: Sequence[Arguments]) -> list[Any]:
    """Each distinct text once, and the rows with numbers for texts: all choices share a context."""
    numbers: dict[str, int] = {}
    rows = [
        [numbers.setdefault(part, len(numbers)) if isinstance(part, str) else part for part in row]
        for row in arguments
    ]
    return [list(numbers), rows]


def _arguments(data: NDArray[np.uint8]) -> list[Arguments]:
    texts, rows = msgspec.msgpack.decode(zlib.decompress(data.tobytes()))
    return [tuple(texts[part] if isinstance(part, int) else part for part in row) for row in rows]


def _front_coded(requests: Sequence[TokenRequest]) -> dict[str, Any]:
    """Token sequences without what they share with the one before: a seventh of the whole."""
    import numpy as np

    shared, tails = [], []
    before: NDArray[np.int32] = np.empty(0, dtype=np.int32)
    for request in requests:
        n = min(len(before), len(request.tokens))
        differ = before[:n] != request.tokens[:n]
        k = int(differ.argmax()) if differ.any() else n
        shared.append(k)
        tails.append(request.tokens[k:])
        before = request.tokens
    return {
        "shared": np.array(shared, dtype=np.int32),
        "tail": np.array([len(tail) for tail in tails], dtype=np.int32),
        "tokens": np.concatenate([np.empty(0, dtype=np.int32), *tails]),
        "scored": np.array([request.n_scored for request in requests], dtype=np.int32),
    }


def _requests(parts: dict[str, Any]) -> Iterator[TokenRequest]:
    import numpy as np

    columns = zip(parts["shared"].tolist(), parts["tail"].tolist(), parts["scored"].tolist(), strict=True)
    flat = parts["tokens"]
    before: NDArray[np.int32] = np.empty(0, dtype=np.int32)
    at = 0
    for shared, tail, scored in columns:
        before = np.concatenate((before[:shared], flat[at : at + tail]))
        at += tail
        yield TokenRequest(before, scored)
