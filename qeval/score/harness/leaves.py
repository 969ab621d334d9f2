"""From the tasks of a suite to lm-eval's leaf tasks: names, groups, tags, YAML files and their settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qeval.base.errors import QevalError, UsageError, did_you_mean
from qeval.base.records import Task
from qeval.score.harness.catalogue import Catalogue, catalogue
from qeval.score.harness.parsed import unreadable
from qeval.score.harness.tame import code_from_source
from qeval.score.once import refuse_twice


@dataclass(frozen=True, eq=False)
class Leaf:
    """One lm-eval task. `task` is what was asked for it, with group and category; `config` lm-eval's full
    configuration, functions resolved; `folder` where its YAML file lies, None where it has none."""

    task: Task
    config: dict[str, Any]
    folder: Path | None


def expand(
    tasks: Sequence[Task], tasks_dir: Path | None, cache_dir: Path | None, own: Path | None = None
) -> list[Leaf]:
    """The leaf tasks that `tasks` stand for, groups and tags expanded, in lm-eval's order.

    Raises UsageError for an unknown name or a task asked for twice, QevalError for a broken YAML file.
    """
    known = catalogue(tasks_dir, cache_dir, own)
    for task in tasks:
        if task.name not in known.names:
            raise UsageError(f"There is no task {task.name!r}.", did_you_mean(task.name, known.names))
    with code_from_source(tasks_dir), code_from_source(own):
        registry = _registry([task.name for task in tasks], known)
        leaves = [leaf for task in tasks for leaf in _leaves(task, registry)]
    refuse_twice([leaf.task for leaf in leaves])
    return leaves


def _registry(names: Sequence[str], known: Catalogue) -> dict[str, Any]:
    """lm-eval's index entries of `names` and of everything that they refer to."""
    from lm_eval.tasks._index import Entry, Kind, TaskIndex

    registry: dict[str, Any] = {}
    ahead = list(names)
    while ahead:
        name = ahead.pop()
        if name in registry or name not in known.names:
            continue  # a group may define members of its own in place
        if name in known.files:
            path = Path(known.files[name])
            TaskIndex.process_cfg(_read(path, name), path, registry)
            ahead += _members(registry[name].cfg)
        else:
            members = known.tags[name]
            registry[name] = Entry(name=name, kind=Kind.TAG, yaml_path=None, tags=set(members))
            ahead += members
    for tag in set(registry) & set(known.tags) - set(known.files):
        registry[tag].tags = set(known.tags[tag])
    return registry


def _read(path: Path, name: str) -> dict[str, Any]:
    from lm_eval.tasks._yaml_loader import load_yaml

    try:
        config: dict[str, Any] = load_yaml(path, resolve_func=False)
    except Exception as error:
        raise unreadable(name, path, error) from error
    if name not in (config.get("group"), config.get("task")):
        raise QevalError(f"The file {path} does not define {name!r} as it seems to.", "Correct it.")
    return config


def _members(config: dict[str, Any]) -> Iterator[str]:
    """The names that a group's configuration refers to."""
    members = config.get("task")
    if "group" not in config or not isinstance(members, list):
        return
    for member in members:
        if isinstance(member, str):
            yield member
        elif isinstance(member, dict):
            yield from (member[key] for key in ("group", "task") if isinstance(member.get(key), str))
            yield from _members(member)


def _leaves(task: Task, registry: dict[str, Any]) -> list[Leaf]:
    """lm-eval's own factory walks the groups; only where it would load a task is a leaf noted instead."""
    from lm_eval.api.group import Group
    from lm_eval.tasks import _factory

    from qeval.score.harness.tame import replaced

    class Walker(_factory.TaskFactory):  # type: ignore[misc] # lm-eval is untyped
        def _build_task(self, entry: Any, overrides: dict[str, Any] | None) -> Any:
            return _Noted(self._load_full_config(entry, overrides))

    try:
        with replaced(_factory, "ConfigurableTask", _Noted):
            built = Walker().build(registry[task.name], registry=registry)
    except Exception as error:
        what = " ".join(str(error).split()).rstrip(".")
        raise QevalError(
            f"The task {task.name!r} cannot be read: {what}.", "Correct its YAML file or what that names."
        ) from error
    if isinstance(built, Group):
        return [_leaf(task, noted, task.name, category) for noted, category in _walk(built, task.name)]
    noted_tasks = built if isinstance(built, list) else [built]
    return [_leaf(task, noted, task.group, task.category) for noted in noted_tasks]


class _Noted:
    """Stands in a group for a task that is not loaded yet."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = {
            key: value for key, value in config.items() if key not in {"tag", "group", "task_list"}
        }
        self.task_name = str(config["task"])


def _walk(group: Any, top: str, category: str | None = None) -> Iterator[tuple[_Noted, str | None]]:
    """The leaves of a group with the name of the subgroup of `top` that they stand in, if in any."""
    for child in group:
        if isinstance(child, _Noted):
            yield child, category
        else:
            name = child.name.removeprefix(f"{top}::").removeprefix(f"{top}_")
            yield from _walk(child, top, category or name)


def _leaf(task: Task, noted: _Noted, group: str | None, category: str | None) -> Leaf:
    source = (noted.config.get("metadata") or {}).get("config_source", "inline")
    shots = noted.config.get("num_fewshot")
    if shots != 0 and task.num_fewshot is not None:
        shots = task.num_fewshot  # a task that says 0 itself means it: so does lm_eval.simple_evaluate
    return Leaf(
        task=replace(task, name=noted.task_name, group=group, category=category, num_fewshot=shots or 0),
        config=noted.config,
        folder=None if source == "inline" else Path(source).parent,
    )
