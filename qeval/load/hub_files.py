"""Which files of a repository of the Hub are needed: a model's of one format, a data set's of some
configurations."""

from __future__ import annotations

import contextlib
import fnmatch
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from qeval.base.errors import QevalError
from qeval.load.hub_book import Copy, known
from qeval.load.hub_copy import Wanted, explained, place_of
from qeval.load.source import READ_SUFFIXES, WEIGHT_SUFFIXES

_CARD = "README.md"
_PAPERS = ("README.md", "LICENSE*", "NOTICE*", "USE_POLICY*")
_USUAL = (
    "model.safetensors",
    "model-*-of-*.safetensors",
    "adapter_model.safetensors",
    "*.safetensors",
    "pytorch_model.bin",
    "pytorch_model-*-of-*.bin",
    "adapter_model.bin",
    "*.bin",
    "*.pt",
    "*.pth",
    "*.gguf",
)
"""Files of weights at the top of a repository; the first kind that is there is the one that is read."""
_ALIKE = {"model.safetensors": 2, "pytorch_model.bin": 2}
"""Patterns of `_USUAL` that are read together: a model's one file, or its parts."""


@dataclass(frozen=True)
class SetNeeded:
    """A data set that is read: `path` as the task names it, `configurations` of it (None: the one without a
    name), all of it where `whole`, only the `first` file of each split where no more is ever read."""

    path: str
    configurations: frozenset[str | None] = frozenset()
    revision: str | None = None
    whole: bool = False
    first: bool = False


def joined(needs: Iterable[SetNeeded]) -> tuple[SetNeeded, ...]:
    """One need for each data set and revision, in their order."""
    found: dict[tuple[str, str | None, bool], SetNeeded] = {}
    for need in needs:
        key = (need.path, need.revision, need.first)
        before = found.get(key, SetNeeded(need.path, revision=need.revision, first=need.first))
        found[key] = SetNeeded(
            need.path,
            before.configurations | need.configurations,
            need.revision,
            before.whole or need.whole,
            need.first,
        )
    return tuple(found.values())


def model_wanted(repo: str, revision: str | None, gguf: str = "") -> Wanted:
    """A model, a ready checkpoint or an adapter: what loading reads of it; of GGUF files the one named."""
    return Wanted("model", repo, place_of(repo, revision), functools.partial(of_model, gguf=gguf), revision)


def of_model(names: Sequence[str], gguf: str = "") -> list[str]:
    """The files that loading reads: one format of weights, configuration, tokenizer, code, and the papers."""
    weights = {gguf} if gguf else set(_weights([name for name in names if "/" not in name]))
    return [name for name in names if name in weights or _small(name)]


def _weights(names: Sequence[str]) -> list[str]:
    for place, pattern in enumerate(_USUAL):
        together = _USUAL[place : place + _ALIKE.get(pattern, 1)]
        found = [name for name in names if any(fnmatch.fnmatchcase(name, one) for one in together)]
        if found:
            return found
    return []


def _small(name: str) -> bool:
    path = PurePosixPath(name)
    if any(part.startswith(".") for part in path.parts) or path.suffix in WEIGHT_SUFFIXES:
        return False
    paper = len(path.parts) == 1 and any(fnmatch.fnmatchcase(name, pattern) for pattern in _PAPERS)
    return paper or path.suffix in READ_SUFFIXES


def set_wanted(need: SetNeeded, to: Path) -> Wanted:
    """A data set: the files of its configurations as its card tells them, else all of it.

    What an earlier call fetched of it stays wanted. Raises what `hub_copy.fetch` raises, and QevalError where
    its place holds another revision of it: both were read by the same name.
    """
    from huggingface_hub import HfApi

    begun = Wanted("dataset", need.path, need.path, list, need.revision)
    try:
        info = HfApi().repo_info(need.path, repo_type="dataset", revision=need.revision, timeout=30)
        card = _card(need.path, str(info.sha))
    except Exception as error:
        raise explained(begun, to, error) from error
    place = _place(need.path, str(info.id))
    listed = _configurations(card)
    parts = _parts(need, listed)
    before = known(to, place)
    if before is not None:
        _check_revision(before, need, str(info.sha), to)
        parts = tuple(sorted({*parts, *before.parts})) if parts and before.parts else ()
    chosen = {name: listed[name] for part in parts if (name := part.partition(":")[0])}
    return Wanted(
        "dataset",
        need.path,
        place,
        functools.partial(_of_set, patterns=[_patterns(listed, part) for part in parts]),
        str(info.sha),
        parts,
        functools.partial(_cut_card, kept=tuple(chosen)) if parts else None,
        need.revision,
    )


def _check_revision(before: Copy, need: SetNeeded, commit: str, to: Path) -> None:
    if before.pinned != need.revision and before.commit not in {"", commit}:
        raise QevalError(
            f"{need.path} is needed at {need.revision or 'its newest commit'}, and {to / before.place} holds"
            f" {before.pinned or 'the commit'} {before.commit[:12]}.",
            "Name another place with --to: one folder holds one revision of a data set.",
        )


def _place(path: str, identifier: str) -> str:
    """Where a data set lies: by the name that tasks call it by; one without an organisation by that of the
    Hub, where it is found by its last part."""
    if "/" in path:
        return path
    organisation = identifier.rpartition("/")[0] or path
    return f"{organisation}/{path}"


def _card(repo: str, commit: str) -> Mapping[str, Any]:
    """The metadata of a data set's card; empty where it has none."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError
    from huggingface_hub.repocard import metadata_load

    with contextlib.suppress(EntryNotFoundError):
        told = metadata_load(hf_hub_download(repo, _CARD, repo_type="dataset", revision=commit))
        return told if isinstance(told, dict) else {}
    return {}


def _configurations(card: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The configurations that a card tells the files of, by name."""
    listed = card.get("configs")
    entries = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    return {str(one["config_name"]): one for one in entries if "config_name" in one and list(_paths(one))}


def _paths(configuration: Mapping[str, Any]) -> Iterable[str]:
    """The patterns of a configuration's files, split after split."""
    if configuration.get("data_dir"):
        yield f"{str(configuration['data_dir']).strip('/')}/*"
        return
    ahead: list[Any] = [configuration.get("data_files")]
    while ahead:
        one = ahead.pop(0)
        if isinstance(one, str):
            yield one.removeprefix("./")
        elif isinstance(one, list):
            ahead = [*one, *ahead]
        elif isinstance(one, dict):
            ahead = [one["path"] if "path" in one else list(one.values()), *ahead]


def _parts(need: SetNeeded, listed: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """The parts that are needed, as they are noted; none for all, where the card does not tell them apart."""
    names = {_named(one, listed) for one in need.configurations}
    if need.whole or not names or None in names:
        return ()
    return tuple(sorted(f"{name}:first" if need.first else str(name) for name in names))


def _named(name: str | None, listed: Mapping[str, Mapping[str, Any]]) -> str | None:
    """A configuration that the card lists; the default one for None. None where it cannot be told."""
    if name is not None:
        return name if name in listed else None
    flagged = [one for one, told in listed.items() if told.get("default") or one == "default"]
    return flagged[0] if flagged else next(iter(listed)) if len(listed) == 1 else None


def _patterns(listed: Mapping[str, Mapping[str, Any]], part: str) -> tuple[tuple[str, ...], bool]:
    """The patterns of a part's files, and whether only the first file of each is needed."""
    name, _, first = part.partition(":")
    return tuple(_paths(listed[name])), bool(first)


def _of_set(names: Sequence[str], patterns: Sequence[tuple[tuple[str, ...], bool]]) -> list[str]:
    """The card, and what the patterns find; all but hidden files where there are none."""
    shown = [name for name in names if not name.startswith(".")]
    if not patterns:
        return shown
    found = {_CARD} & set(names)
    for globs, first in patterns:
        for pattern in globs:
            matching = [name for name in shown if fnmatch.fnmatchcase(name, pattern)]
            found.update(matching[:1] if first else matching)
    return [name for name in shown if name in found]


def _cut_card(folder: Path, kept: tuple[str, ...]) -> None:
    """Leave only those configurations in a card whose files are there: `datasets` looks for the others."""
    from huggingface_hub.repocard import metadata_load, metadata_save

    card = folder / _CARD
    told = dict(metadata_load(card) or {})
    told["configs"] = [one for one in told.get("configs", ()) if one.get("config_name") in kept]
    metadata_save(card, told)
