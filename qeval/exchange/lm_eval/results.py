"""lm-eval's results files, both ways: their names, where their samples lie, what they say of each task."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from qeval.base import reading
from qeval.base.errors import QevalError, UsageError

AGAIN = "Run lm_eval again with --log_samples, or take its scores alone with: qeval import --scores FILE"
OURS = "qeval"
"""The `model_source` of files that qeval wrote; their samples tell more (see `samples`)."""
JUDGED_BY = "judged_by"
"""Where a task's configuration in such files names the metric and the filter that judged it."""
_STAMP = re.compile(r"_(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?)$")
# What a file's name must not hold; lm-eval itself writes a task's name as it is.
_UNSAFE = re.compile(r'["<>:/|\\?*\s]+')


@dataclass(frozen=True)
class ResultsFile:
    """One results file of lm-eval, and where its samples lie; `folders` lead to it from what is imported."""

    path: Path
    stamp: str
    table: dict[str, Any]
    folders: tuple[str, ...] = ()

    def samples_of(self, task: str) -> Path:
        """The file with the samples of a task, whether it is there or not."""
        return self.path.parent / samples_name(task, self.stamp)

    @property
    def config(self) -> dict[str, Any]:
        """How lm-eval was called."""
        found: dict[str, Any] = self.table.get("config") or {}
        return found

    @property
    def model_name(self) -> str:
        """The model's name, else the directory's."""
        return str(self.table.get("model_name") or self.config.get("model") or self.path.parent.name)

    @property
    def ours(self) -> bool:
        """Whether qeval wrote it."""
        return self.table.get("model_source") == OURS

    def task(self, name: str) -> TaskResults:
        """What the file says of a task."""
        return read_task(self.table, name)

    def tasks(self) -> list[str]:
        """The tasks that were asked for; groups, which are means of them, are not among them."""
        return list(self.table["configs"])


@dataclass(frozen=True)
class TaskResults:
    """What a results file says of one task. `metrics`: values by "metric,filter" and more; `config`: the
    task's configuration; `rises`: whether more of a metric is better; `count`: items there are ("original")
    and items scored ("effective")."""

    metrics: Mapping[str, Any]
    config: Mapping[str, Any]
    version: Any = ""
    num_fewshot: int | None = None
    rises: Mapping[str, bool] = field(default_factory=dict)
    count: Mapping[str, int] = field(default_factory=dict)


_KEYS = {
    "metrics": "results",
    "config": "configs",
    "version": "versions",
    "num_fewshot": "n-shot",
    "rises": "higher_is_better",
    "count": "n-samples",
}
"""The table of a results file that holds each field of TaskResults, by task."""


def read_task(table: Mapping[str, Any], task: str) -> TaskResults:
    """A task's part of a results file."""
    found = {name: table[key][task] for name, key in _KEYS.items() if task in (table.get(key) or {})}
    return TaskResults(**{"metrics": {}, "config": {}, **found})


def task_tables(tasks: Mapping[str, TaskResults]) -> dict[str, dict[str, Any]]:
    """The tables of a results file that go by task; what `read_task` reads."""
    return {
        _KEYS[column.name]: {task: getattr(said, column.name) for task, said in tasks.items()}
        for column in fields(TaskResults)
    }


def results_name(stamp: str) -> str:
    """A results file's name."""
    return f"results_{stamp}.json"


def samples_name(task: str, stamp: str) -> str:
    """The name of a file of samples; `stamp` is empty where lm-eval was told the file's name."""
    end = f"_{stamp}" if stamp else ""
    return f"samples_{_UNSAFE.sub('_', task)}{end}.jsonl"


def stamp_of(created: str) -> str:
    """The time in lm-eval's file names: 2026-01-02T03-04-05.000000."""
    try:
        moment = datetime.fromisoformat(created)
    except ValueError:
        moment = datetime.fromtimestamp(0, UTC)
    return f"{moment:%Y-%m-%dT%H-%M-%S.%f}"


def find_results(path: Path) -> list[ResultsFile]:
    """All results files at or below `path`, the oldest first. Raises UsageError where there is no such path,
    QevalError where it holds none or a damaged one."""
    if not path.exists():
        raise UsageError(f"There is no {path}.", "Name the directory that lm_eval --output_path made.")
    root = path.parent if path.is_file() else path
    files = [path] if path.is_file() else _files(path, "*.json")
    found = [results for file in files if (results := _read_results(file, root)) is not None]
    if not found:
        raise QevalError(f"{path} holds no results of lm-eval.", AGAIN)
    return sorted(found, key=lambda results: (results.stamp, str(results.path)))


def unclaimed(path: Path, found: Sequence[ResultsFile]) -> list[Path]:
    """The files of samples below a directory of which none of the results beside them tell.

    Raises QevalError for samples without any results beside them: a variant would be missing in silence.
    """
    known = {results.samples_of(task) for results in found for task in results.tasks()}
    files = [] if path.is_file() else [f for f in _files(path, "samples_*.jsonl") if f not in known]
    lonely = [file for file in files if file.parent not in {results.path.parent for results in found}]
    if lonely:
        raise QevalError(
            f"{lonely[0].parent} has samples, and no results file that can be read.",
            "Lay the results beside them, or move the samples away.",
        )
    return files


def _files(root: Path, pattern: str) -> list[Path]:
    """The files below a directory, through links too; each directory once, whatever links lead to it."""
    seen: set[str] = set()
    found: list[Path] = []
    for place, below, _ in os.walk(root, onerror=_refuse, followlinks=True):
        real = os.path.realpath(place)
        below.sort(key=lambda name: (Path(place, name).is_symlink(), name))
        if real in seen:
            below.clear()
        else:
            seen.add(real)
            found += Path(place).glob(pattern)
    return sorted(found)


def _refuse(error: OSError) -> None:
    """Raises QevalError for a directory that cannot be looked into: its files would be missing in silence."""
    raise QevalError(
        f"{error.filename} cannot be looked into: {reading.told(error)}.", "Check its permissions."
    ) from error


def _read_results(path: Path, root: Path) -> ResultsFile | None:
    try:
        table = reading.json_document(path)
    except OSError as error:
        if path.name.startswith("results"):
            raise QevalError(
                f"{path} cannot be read: {reading.told(error)}.", "Run lm_eval again."
            ) from error
        return None
    if not (isinstance(table, dict) and _is_table(table, "results") and _is_table(table, "configs")):
        return None
    stamp = _STAMP.search(path.stem)
    return ResultsFile(path, stamp.group(1) if stamp else "", table, path.relative_to(root).parts[:-1])


def _is_table(table: Mapping[str, Any], key: str) -> bool:
    return isinstance(table.get(key), dict)


def strange(results: ResultsFile, task: str, error: Exception) -> QevalError:
    """The error for something that lm-eval never writes."""
    why = f"{type(error).__name__}: {error}"
    return QevalError(
        f"{results.path} or the samples of {task} beside it are not as lm-eval writes them ({why}).", AGAIN
    )
