"""What a task asks, to the last thing that can change a score: prompts, answers, metrics, and code."""

from __future__ import annotations

import inspect
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from qeval.base import elsewhere
from qeval.base.hashing import digest
from qeval.score.harness.catalogue import is_stock
from qeval.score.harness.leaves import Leaf
from qeval.score.harness.prepared import PreparedTask


def asked(leaf: Leaf, prepared: PreparedTask) -> str:
    """A hash of the documents, prompts and right answers, and of all that makes scores of a model's answers.

    Where the data came from does not count. A configuration that is neither plain data nor code of a file is
    known by its text.
    """
    content = prepared.content
    config = config_text({name: value for name, value in leaf.config.items() if name not in _PLACES})
    return digest(
        {
            "config": config or repr(sorted(leaf.config.items(), key=str)),
            "documents": content.doc_hash,
            "prompts": content.prompt_hash,
            "targets": content.target_hash,
            "type": [prepared.output_type, prepared.version, prepared.repeats],
            **_written(prepared),
        }
    )


def _written(prepared: PreparedTask) -> dict[str, Any]:
    """How texts are written and read, for a task that has any."""
    if not prepared.generates:
        return {}
    found: dict[str, Any] = {"thinking": asdict(prepared.thinking)}
    found |= {"options": prepared.options} if prepared.options else {}
    return found | ({"rounds": prepared.rounds} if prepared.rounds > 1 else {})


_PLACES = ("dataset_path", "dataset_name", "dataset_kwargs")
"""Where documents lie; what they are stands in their hashes."""


def config_text(config: dict[str, Any]) -> str | None:
    """A task's configuration as text, each function as a hash of its file; None if a file is not found."""
    slim = {name: value for name, value in config.items() if name != "metadata"}
    meta = {name: value for name, value in (config.get("metadata") or {}).items() if name != "config_source"}
    try:
        return json.dumps({**slim, "metadata": meta}, sort_keys=True, default=_code)
    except (TypeError, OSError, ValueError):
        return None


def _code(value: Any) -> str:
    """A function in words. Of a task of one's own every file beside the function counts, and those elsewhere
    that it names: it may call or read them."""
    if not callable(value):
        raise TypeError(value)
    file = Path(inspect.getfile(value))
    read = elsewhere.contents_of([file], file.parent) if is_stock(file) else _read_beside(file.parent)
    return f"{getattr(value, '__qualname__', value)} {read}"


def _read_beside(folder: Path) -> str:
    files = [path for path in elsewhere.files_below(folder) if path.suffix != ".md"]
    return elsewhere.contents_of([*files, *elsewhere.named(folder, by_code=True)], folder)
