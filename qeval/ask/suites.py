"""Suites: what is asked. A TOML file in tasks/, a path to one, or tasks named on the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from qeval.ask import harness_config
from qeval.ask.suite_files import no_suite, refuse_another
from qeval.base.errors import UsageError, did_you_mean
from qeval.base.names import MACRO, TYPED, is_file_name
from qeval.base.places import at_home, tasks_dir
from qeval.base.records import Kind, Suite, Task
from qeval.base.sizes import FILE as SIZES
from qeval.base.tables import read, typed

Name = Annotated[str, Meta(pattern=r"\S", description="a name in quotes")]
Limit = Annotated[int, Meta(ge=1, description="a whole number of items, 1 or more")]
Examples = Annotated[int, Meta(ge=0, description="a whole number of examples, 0 or more")]
Documents = Annotated[int, Meta(ge=0, description="a whole number of documents, 0 or more")]
Chance = Annotated[float, Meta(ge=0, lt=1, description="a share of items, such as 0.25")]


class TaskTable(msgspec.Struct, forbid_unknown_fields=True):
    """A [[task]] of a suite's file; the keys are those of Task."""

    name: Name
    metric: str = ""
    filter: str = "none"
    num_fewshot: Examples | None = None
    limit: Limit | None = None
    kind: Kind = "accuracy"
    chance: Chance | None = None


class SuiteTable(msgspec.Struct, forbid_unknown_fields=True):
    """A suite's file; the keys are those of Suite, and `verify`, see `documents_verified`, `fidelity` and
    `fidelity_on_gpu`, see `fidelity_of`."""

    task: Annotated[tuple[TaskTable, ...], Meta(min_length=1, description="a list of tables, one a task")]
    name: Name | None = None
    description: str = ""
    average: tuple[str, ...] = ()
    verify: Documents = 0
    fidelity: tuple[Name, ...] = ()
    fidelity_on_gpu: tuple[Name, ...] = ()


def names() -> tuple[str, ...]:
    """The names of the suites that come with qeval."""
    return tuple(sorted(path.stem for path in tasks_dir().glob("*.toml") if path.name != SIZES))


def load(name: str) -> Suite:
    """The suite called `name`, or the one in the file `name`: a path ending in .toml, or in .yaml where it is
    lm-eval's own configuration of a run (see `harness_config`).

    Raises UsageError where there is none, or where the file has a key that means nothing.
    """
    if harness_config.is_config(name):
        return harness_config.suite_of(at_home(name))
    path, table = _table(name)
    _distinct([task.name for task in table.task], f"The suite {path}")
    _check_average(table, path)
    return Suite(
        name=table.name or path.stem,
        tasks=tuple(Task(**msgspec.to_builtins(task)) for task in table.task),
        average=table.average,
        description=table.description,
    )


def documents_verified(name: str) -> int:
    """How many documents of each of its rows lm-eval's own code scores too, where nobody says otherwise."""
    return 0 if harness_config.is_config(name) else _table(name)[1].verify


def fidelity_of(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The protocols by which fidelity is measured beside a suite, where nobody says otherwise, and those for
    a GPU alone."""
    if harness_config.is_config(name):
        return (), ()
    table = _table(name)[1]
    return table.fidelity, table.fidelity_on_gpu


def _table(name: str) -> tuple[Path, SuiteTable]:
    path = at_home(name) if name.endswith(".toml") else tasks_dir() / f"{name}.toml"
    known = name.endswith(".toml") or is_file_name(name)
    if not known or not path.is_file() or path == tasks_dir() / SIZES:
        raise no_suite(name, names())
    refuse_another(path)
    return path, typed(read(path, "suite"), SuiteTable, f"The suite {path}")


def _distinct(task_names: Sequence[str], who: str) -> None:
    for name in task_names:
        if task_names.count(name) > 1:
            raise UsageError(f"{who} names the task {name!r} twice.", "Name it once.")


def _check_average(table: SuiteTable, path: Path) -> None:
    """Raises UsageError where the average names no row of the suite (a task, or the unweighted mean of a
    group, which may be any of its tasks), or a perplexity, which has no mean with scores."""
    rows = {row: task for task in table.task for row in (task.name, task.name + MACRO)}
    _distinct(table.average, f"The average of the suite {path}")
    for name in table.average:
        if name not in rows:
            hint = did_you_mean(name, [task.name for task in table.task])
            raise UsageError(f"The suite {path}: average names no task {name!r}.", hint)
        if _is_perplexity(rows[name]):
            raise _no_mean(f"The suite {path}", name)


def refuse_in_average(suite: Suite, perplexities: Sequence[str]) -> None:
    """Raise UsageError where the average of a suite, as a person wrote it, names one of these tasks."""
    for name in suite.average:
        if name.removesuffix(MACRO) in perplexities:
            raise _no_mean(f"The suite {suite.name}", name)


def _no_mean(who: str, name: str) -> UsageError:
    return UsageError(
        f"{who}: average names {name!r}, a perplexity, which has no mean with scores.",
        "Leave it out of average: it is compared on its own.",
    )


_PERPLEXITY = re.compile(r"perplexity|ppl\b|bits_per_byte")
_DOCUMENTS = re.compile(r"wikitext|c4\b|pile_|paloma_|qeval_prose")
"""How tasks of lm-eval and of qeval begin that have nothing but a perplexity, whatever is written of them."""


def _is_perplexity(task: TaskTable) -> bool:
    documents = not task.metric and _DOCUMENTS.match(task.name)
    return task.kind == "perplexity" or bool(documents or _PERPLEXITY.search(task.metric))


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
    return Suite(name=TYPED, tasks=tasks, average=tuple(task.name for task in tasks))


def adjust(suite: Suite, *, limit: int | None = None, num_fewshot: int | None = None) -> Suite:
    """The suite with every task's limit or number of examples replaced, where one is given."""
    changes: dict[str, Any] = {}
    if limit is not None:
        changes["limit"] = limit
    if num_fewshot is not None:
        changes["num_fewshot"] = num_fewshot
    return replace(suite, tasks=tuple(replace(task, **changes) for task in suite.tasks))
