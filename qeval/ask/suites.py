"""Suites: tasks/*.toml, a path to such a file, or task names on the command line -> Suite."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from qeval.base.errors import UsageError, did_you_mean
from qeval.base.records import Suite, Task

_TASK_KEYS = {field.name for field in fields(Task)} - {"group", "category"}
_SUITE_KEYS = {"name", "description", "average", "task"}
_TYPES: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "metric": str,
    "filter": str,
    "num_fewshot": int,
    "limit": int,
    "kind": str,
    "chance": (int, float),
}


def tasks_dir() -> Path:
    """Where suites and the project's own tasks lie: inside the package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "tasks"
    return inside if inside.is_dir() else package.parent / "tasks"


def names() -> tuple[str, ...]:
    """The names of the suites that come with qeval."""
    return tuple(sorted(path.stem for path in tasks_dir().glob("*.toml")))


def load(name: str) -> Suite:
    """The suite called `name`, or the one in the file `name` (a path ending in .toml).

    Raises UsageError where there is none, or where the file has a key that means nothing.
    """
    path = Path(name) if name.endswith(".toml") else tasks_dir() / f"{name}.toml"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"There is no suite {name!r}.", did_you_mean(name, names())) from error
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"The suite {path} is not valid TOML: {error}.", "Correct the file.") from error
    return _suite(table, path)


def _suite(table: dict[str, Any], path: Path) -> Suite:
    _known(table, _SUITE_KEYS, path)
    rows = table.get("task", [])
    if not isinstance(rows, list) or not rows:
        raise UsageError(f"The suite {path} has no [[task]].", "Add at least one.")
    tasks = tuple(_task(row, path) for row in rows)
    _distinct([task.name for task in tasks], f"The suite {path}")
    return Suite(
        name=str(table.get("name", path.stem)),
        tasks=tasks,
        average=tuple(table.get("average", ())),
        description=str(table.get("description", "")),
    )


def _task(row: dict[str, Any], path: Path) -> Task:
    _known(row, _TASK_KEYS, path)
    if "name" not in row:
        raise UsageError(f"A [[task]] of {path} has no name.", "Every task needs a name.")
    for key, value in row.items():
        if not isinstance(value, _TYPES[key]) or isinstance(value, bool):
            raise UsageError(f"{path}: {key} = {value!r} is of the wrong type.", "Correct the file.")
    if row.get("kind", "accuracy") not in {"accuracy", "score", "perplexity"}:
        raise UsageError(
            f"{path}: unknown kind {row['kind']!r}.",
            did_you_mean(row["kind"], ("accuracy", "score", "perplexity")),
        )
    return Task(**{"metric": "", **row})


def _known(table: dict[str, Any], keys: set[str], path: Path) -> None:
    for key in table:
        if key not in keys:
            raise UsageError(f"{path} has an unknown key {key!r}.", did_you_mean(key, keys))


def _distinct(task_names: Sequence[str], who: str) -> None:
    for name in task_names:
        if task_names.count(name) > 1:
            raise UsageError(f"{who} names the task {name!r} twice.", "Name it once.")


def from_tasks(text: str) -> Suite:
    """A suite of lm-eval tasks named on the command line: "arc_easy,piqa:acc".

    After a colon stands the metric; without one the task's main metric is taken. The average is over all
    of them but perplexities.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise UsageError("--tasks names no task.", "Write for example: --tasks arc_easy,piqa")
    pairs = [part.partition(":") for part in parts]
    _distinct([name for name, _, _ in pairs], "--tasks")
    tasks = tuple(Task(name=name, metric=metric) for name, _, metric in pairs)
    return Suite(name="tasks", tasks=tasks, average=tuple(task.name for task in tasks))


def adjust(suite: Suite, *, limit: int | None = None, num_fewshot: int | None = None) -> Suite:
    """The suite with every task's limit or number of examples replaced, where one is given."""
    changes: dict[str, Any] = {}
    if limit is not None:
        changes["limit"] = limit
    if num_fewshot is not None:
        changes["num_fewshot"] = num_fewshot
    return replace(suite, tasks=tuple(replace(task, **changes) for task in suite.tasks))
