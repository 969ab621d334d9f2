"""What the YAML of a task says, read without lm-eval and without importing the Python that it names."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from qeval.base import reading
from qeval.base.errors import QevalError
from qeval.base.records import Task
from qeval.score.harness import rules
from qeval.score.harness.catalogue import Catalogue

_DEEP = 8
_LARGEST = 1 << 28
"""The most bytes of a file whose items are counted here."""


def written(path: Path, deep: int = 0) -> dict[str, Any]:
    """The keys of a task's file over those of the files that it includes, a function as None; {} where one of
    them cannot be read, which whoever builds the task explains."""
    import yaml

    class Plain(yaml.SafeLoader):
        """Reads functions as None."""

    Plain.add_multi_constructor("!", lambda *_: None)
    try:
        table = yaml.load(reading.text(path, reading.TABLE), Plain)  # noqa: S506 - a safe loader
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}
    if not isinstance(table, dict) or deep > _DEEP:
        return {}
    found: dict[str, Any] = {}
    for name in _listed(table.get("include")):
        more = written(path.parent / str(name), deep + 1)
        if not more:
            return {}
        found |= more
    return found | table


def check(tasks: Iterable[Task], known: Catalogue, own: Path | None) -> None:
    """Refuse what would fail for each variant once its model is loaded: a metric or a filter that a task's
    YAML does not list, a metric that cannot judge item by item, and data files of one's `own` tasks that are
    not there. Of a group or a tag its first task is looked at; what a file leaves open is left to lm-eval.

    Raises what `rules.judging_metric` and `rules.judging_filter` raise, QevalError for a file.
    """
    for task in tasks:
        name, path = _first(task.name, known)
        table = written(path) if path is not None else {}
        _check_metric(name, task.metric, table)
        _check_filter(name, task.filter, table)
        if path is not None and own is not None and path.is_relative_to(own):
            _check_files(name, path, table)


def _first(name: str, known: Catalogue, deep: int = 0) -> tuple[str, Path | None]:
    """The task itself, or the first of a group or tag, with its file; None where no file tells."""
    if name not in known.files:
        members: list[Any] = list(known.tags.get(name, ()))
        path = None
    else:
        path = Path(known.files[name])
        table = written(path)
        members = _listed(table.get("task")) if "group" in table and "class" not in table else []
    if members and isinstance(members[0], str) and members[0] != name and deep < _DEEP:
        return _first(members[0], known, deep + 1)
    return name, path


def _check_metric(name: str, wanted: str, table: dict[str, Any]) -> None:
    """Raise what `judging_metric` raises, as far as the table tells how each metric becomes one number."""
    listed = _metrics(table)
    if not listed:
        return
    told = {one["metric"]: one.get("aggregation", "") for one in listed}
    functions = [metric for metric, how in told.items() if not isinstance(how, str)]
    if wanted in functions or (functions and not wanted):
        return
    hows = {metric: how or rules.DEFAULT_AGGREGATIONS.get(metric, "mean") for metric, how in told.items()}
    rises = {one["metric"]: bool(one["higher_is_better"]) for one in listed if "higher_is_better" in one}
    rules.judging_metric(name, wanted, hows, rises)


def _check_filter(name: str, wanted: str, table: dict[str, Any]) -> None:
    listed = table.get("filter_list")
    if not isinstance(listed, list) or {"group", "class"} & table.keys():
        return
    names = [one.get("name") if isinstance(one, dict) else None for one in listed]
    if names and all(isinstance(one, str) for one in names):
        rules.judging_filter(name, wanted, [str(one) for one in names])


def perplexities(tasks: Iterable[Task], files: dict[str, str]) -> Iterator[str]:
    """The tasks of which nobody chose a metric, and whose YAML leaves nothing but a perplexity to judge
    by."""
    for task in tasks:
        table = written(Path(files[task.name])) if task.name in files and not task.metric else {}
        listed = table.get("metric_list")
        entries = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
        if entries and _metrics(table) and all(_aggregation(one) in rules.PERPLEXITIES for one in entries):
            yield task.name


def _aggregation(entry: dict[str, Any]) -> str:
    return str(entry.get("aggregation") or rules.DEFAULT_AGGREGATIONS.get(str(entry.get("metric")), "mean"))


def items_of(path: Path) -> int | None:
    """How many items a task asks of a JSON or JSONL file that lies here; None where the file does not tell:
    its documents are chosen by a function, or there is none."""
    table = written(path)
    split = table.get("test_split") or table.get("validation_split")
    if table.get("dataset_path") != "json" or {"process_docs", "custom_dataset", "class"} & table.keys():
        return None
    files = (table.get("dataset_kwargs") or {}).get("data_files")
    named = files.get(split) if isinstance(files, dict) else files if split == "train" else None
    counts = [_count(place) for place in _places(path, named)]
    known = [count for count in counts if count is not None]
    return sum(known) if known and len(known) == len(counts) else None


def _metrics(table: dict[str, Any]) -> list[dict[str, Any]]:
    """The metrics that a task's table lists; none where it is a group's, or one of them is a function."""
    listed = table.get("metric_list")
    if {"group", "class"} & table.keys() or not isinstance(listed, list):
        return []
    plain = all(isinstance(one, dict) and isinstance(one.get("metric"), str) for one in listed)
    return listed if plain else []


def _check_files(name: str, path: Path, table: dict[str, Any]) -> None:
    files = (table.get("dataset_kwargs") or {}).get("data_files")
    if table.get("dataset_path") not in ("json", "csv", "parquet", "text"):
        return
    parts = files.values() if isinstance(files, dict) else [files]
    for place in (place for part in parts for place in _places(path, part)):
        if not place.exists() and "*" not in place.name:
            raise QevalError(
                f"The data of the task {name!r} are not there: {place}.",
                f"Put the file there, or correct data_files in {path}.",
            )


def _places(path: Path, named: Any) -> Iterator[Path]:
    """Where files are that a task's YAML names: beside it, else where the command was typed."""
    for name in _listed(named):
        if isinstance(name, str) and "://" not in name:
            yield (
                path.parent / name if (path.parent / name).exists() or not Path(name).exists() else Path(name)
            )


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _count(place: Path) -> int | None:
    """The items of a JSON array, or the lines of JSONL that hold something."""
    try:
        text = reading.text(place, _LARGEST)
        if not text.lstrip().startswith("["):
            return sum(1 for line in text.splitlines() if line.strip())
        return len(json.loads(text))
    except (OSError, ValueError, RecursionError):
        return None
