"""A run without the paths of its models, for documents that leave the machine."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import msgspec

from qeval.base.names import PATH
from qeval.base.records import Result, Run
from qeval.base.repeats import scorings

_PATH = re.compile(r"(?<![\w:/.~\]\\-])(?:~|[A-Za-z]:)?(?:/[\w.@+~-]+){2,}")
"""A path in any text, from the root or from home, of two names at least."""
_LEFT_OUT = re.compile(r"\[path \d+\]")


def redacted(run: Run, known: dict[str, str] | None = None) -> Run:
    """The run without paths, as `hiding` has it."""
    return hiding(run, known)[0]


def hiding(run: Run, known: dict[str, str] | None = None) -> tuple[Run, Callable[[str], str]]:
    """The run with `[path 1]`, `[path 2]` ... for each path in it, the same for the same path, and an id that
    tells nothing of one. Names on the Hub stay; so do the texts of items, which are not part of a run. And
    what does the same to any text that tells of the run.

    Of several runs that are shown together, `known` holds what their paths are called, and grows: a path has
    one number in all of them. What an earlier hand left out of a run may be any path, so it is one that no
    other run has."""
    paths = sorted(set(_models(run)), key=lambda path: (-len(path), path))
    before = run.id
    if paths:
        brief = hashlib.sha256(run.id.encode()).hexdigest()[:8]
        run = replace(run, id=f"run-{brief}")
    names: dict[str, str] = {} if known is None else known

    def anew(words: str) -> str:
        if known is None:
            return words
        return _LEFT_OUT.sub(lambda found: _name(f"{before} {found[0]}", names), words)

    text = anew(msgspec.json.encode(run).decode())
    for path in paths:
        text = text.replace(_in_json(path), _name(path, names))
    text = _PATH.sub(lambda found: _name(found[0], names), text)

    def hide(words: str) -> str:
        words = anew(words.replace(before, run.id) if paths else words)
        for path in paths:
            words = words.replace(path, _name(path, names))
        return _PATH.sub(lambda found: _name(found[0], names), words)

    return msgspec.json.decode(text, type=Run), hide


def without_paths(words: str, known: dict[str, str]) -> str:
    """A text that tells of no run, what looks like a path in it called as `hiding` calls it."""
    return _PATH.sub(lambda found: _name(found[0], known), words)


def left_out(name: str) -> bool:
    """Whether a name is what stands for a path."""
    return _LEFT_OUT.fullmatch(name) is not None


def is_redacted(run: Run) -> bool:
    """Whether paths are left out of the command that makes the run."""
    return any(_LEFT_OUT.search(word) for word in run.command)


def _models(run: Run) -> Iterator[str]:
    """The models, checkpoints and adapters that are paths, though they may look like names on the Hub."""
    for result in scorings(run):
        variant = result.variant
        yield from (name for name in (run.model, variant.model) if _is_local(name, result))
        adapter = (variant.adapter or "").removeprefix("merged:")
        yield from (name for name in (variant.scheme.checkpoint, adapter) if name and PATH.match(name))


def _is_local(name: str, result: Result) -> bool:
    """A model that is a path, or whose files are known by a hash and no commit: a directory here."""
    made = result.provenance
    by_hash = made is not None and made.fingerprint is not None and made.revision is None and "/" in name
    return PATH.match(name) is not None or by_hash


def _name(path: str, names: dict[str, str]) -> str:
    return names.setdefault(path, f"[path {len(names) + 1}]")


def _in_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]
