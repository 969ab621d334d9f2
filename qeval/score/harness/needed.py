"""Which data sets of the Hub tasks read, as far as their YAML tells it: found without lm-eval, before a model
is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qeval.base.records import Task
from qeval.score.harness.catalogue import Catalogue
from qeval.score.harness.written import written

_OWN = frozenset(["class", "custom_dataset"])
"""Keys of a task that makes its data by its own code."""


@dataclass(frozen=True)
class Needed:
    """A data set that is read: `path` and `name` as the task's YAML names them, for `what`, a task of the
    suite. `name` is a configuration that the data set's card must list, None where that need not be."""

    path: str
    name: str | None
    what: str


def needed(tasks: Sequence[Task], known: Catalogue) -> tuple[Needed, ...]:
    """The data sets that tasks, and the members of groups and tags, name in their YAML files; nothing of what
    cannot be read here, makes its data by code, or reads files of its own."""
    found = (
        Needed(path, name, task.name)
        for task in tasks
        for path, name in _sets_of(task.name, known, frozenset())
    )
    return tuple(dict.fromkeys(found))


def _sets_of(name: str, known: Catalogue, seen: frozenset[str]) -> Iterator[tuple[str, str | None]]:
    if name in seen:
        return
    for member in known.tags.get(name, ()):
        yield from _sets_of(member, known, seen | {name})
    if name in known.files:
        yield from _sets_in(written(Path(known.files[name])), known, seen | {name})


def _sets_in(
    table: dict[str, Any], known: Catalogue, seen: frozenset[str]
) -> Iterator[tuple[str, str | None]]:
    members = table.get("task")
    for member in members if isinstance(members, list) else ():
        if isinstance(member, str):
            yield from _sets_of(member, known, seen)
        elif isinstance(member, dict):
            yield from _sets_of_member(member, known, seen)
    if not isinstance(members, list) and (found := _set_of(table)) is not None:
        yield found


def _sets_of_member(
    member: dict[str, Any], known: Catalogue, seen: frozenset[str]
) -> Iterator[tuple[str, str | None]]:
    """Those of a member that a group writes in place: a task of another file with changes, or one of its
    own."""
    name = member.get("task")
    if isinstance(name, str) and name in known.files:
        table = written(Path(known.files[name])) | member
        if (found := _set_of(table)) is not None:
            yield found
    else:
        yield from _sets_in(member, known, seen)


def _set_of(table: dict[str, Any]) -> tuple[str, str | None] | None:
    path, name = table.get("dataset_path"), table.get("dataset_name")
    if not isinstance(path, str) or not path or _OWN & table.keys():
        return None
    if path.startswith(("/", ".", "~")) or "://" in path:
        return None
    options = table.get("dataset_kwargs") or {}
    chosen = isinstance(options, dict) and not {"data_files", "data_dir"} & options.keys()
    return path, str(name) if name is not None and chosen else None
