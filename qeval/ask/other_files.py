"""What a file is that was named where another one belongs, and the command that it is for: a suite, a policy,
a task, data, results."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qeval.base import reading

SUITE, POLICY, TASK, DATA = "suite", "policy", "task", "data"
YAML = (".yaml", ".yml")
_DATA = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".txt", ".xlsx")
_PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")
_NAMED = re.compile(r"^(task|group)[ \t]*:[ \t]*[\"']?([\w./-]+)[\"']?[ \t\r]*(?:#.*)?$", re.MULTILINE)
_ASKS = re.compile(r"^tasks[ \t]*:", re.MULTILINE)


@dataclass(frozen=True)
class Found:
    """What a file is, for a program and in words ("is a task"), and a sentence on how it is used."""

    what: str
    words: str
    remedy: str


def found(path: Path) -> Found | None:
    """What a regular file most likely is; None where nothing tells, or it cannot be read."""
    try:
        if path.suffix == ".toml":
            return _toml(path, reading.toml_document(path))
        if path.suffix in YAML:
            return _yaml(path)
        if path.suffix.lower() in (*_DATA, *_PACKED):
            return _results(path) or Found(DATA, "holds data", _described(path))
    except (OSError, ValueError):
        return None
    return None


def beside(folder: Path, what: str) -> list[str]:
    """The TOML files of a folder that are suites, or policies."""
    files = sorted(folder.glob("*.toml"))
    return [str(one) for one in files if (kind := found(one)) is not None and kind.what == what]


def tasks_in(folder: Path) -> list[str]:
    """The names of tasks and groups in the YAML files of a folder."""
    names = (_defined(one)[1] for one in sorted(folder.glob("*.yaml")))
    return [name for name in names if name]


def named(tasks: str, folder: Path) -> str:
    """The options that name tasks of a folder."""
    return f"--tasks {shlex.quote(tasks)} --tasks-dir {shlex.quote(str(folder))}"


def _toml(path: Path, table: Mapping[str, Any]) -> Found | None:
    gate: Any = table
    for key in ("tool", "qeval", "gate"):
        gate = gate.get(key) if isinstance(gate, Mapping) else None
    if "task" in table:
        return Found(SUITE, "is a suite", f"Score it with: qeval run --suite {_quoted(path)}")
    if {"gate", "rule"} & table.keys() or gate is not None:
        judge = f"qeval run --gate {_quoted(path)}, or qeval gate --policy {_quoted(path)}"
        return Found(POLICY, "is a policy", f"Judge by it with: {judge}")
    if "score" in table:
        return Found("scores", "is a table of scores", f"Make a run of it with: qeval import {_quoted(path)}")
    return None


def _yaml(path: Path) -> Found | None:
    kind, name = _defined(path)
    return Found(TASK, f"is a {kind}", f"Name it with: {named(name, path.parent)}") if name else None


def _defined(path: Path) -> tuple[str, str]:
    """Whether lm-eval's YAML defines a "task" or a "group", and which; "" where it defines none."""
    text = ""
    with contextlib.suppress(OSError, ValueError):
        text = reading.text(path, reading.TABLE)
    keys = dict(_NAMED.findall(text))
    kind = "group" if "group" in keys else "task"
    return (kind, keys[kind]) if kind in keys and not _ASKS.search(text) else ("", "")


def _results(path: Path) -> Found | None:
    """What lm-eval or qeval wrote, if a file is of that kind."""
    if path.suffix == ".jsonl" and path.name.startswith("samples_"):
        folder = _quoted(path.parent)
        return Found("results", "holds samples of lm-eval", f"Make a run of them with: qeval import {folder}")
    table: Any = None
    if path.suffix == ".json":
        with contextlib.suppress(OSError, ValueError):
            table = reading.json_document(path)
    keys = table.keys() if isinstance(table, dict) else frozenset[str]()
    if {"results", "suite", "baseline"} <= keys:
        return Found("run", "is the header of a run", f"Show the run with: qeval show {_quoted(path.parent)}")
    if "results" in keys and isinstance(table["results"], dict):
        return Found(
            "results", "holds results of lm-eval", f"Make a run of them with: qeval import {_quoted(path)}"
        )
    return None


def _described(path: Path) -> str:
    """How data become a task: the one beside them that reads them, else the steps."""
    for task in _reading(path):
        return f"A task beside it reads it: {named(task, path.parent)}"
    if path.suffix.lower() in _PACKED:
        return "Unpack it first, then describe it in a task's YAML, as docs/extend/suite.md shows."
    name = re.sub(r"\W+", "_", path.stem)
    holds_runs = Path.cwd().is_relative_to(path.parent.resolve())  # which no folder of tasks may
    place = path.parent / name / path.name if holds_runs else path
    begin = f"Move it to {place} and describe" if holds_runs else "Describe"
    return (
        f"{begin} it in {place.with_suffix('.yaml')}"
        f" (docs/extend/suite.md shows the whole file; task: {name}, data_files: {place.name}), then:"
        f" {named(name, place.parent)}"
    )


def _reading(data: Path) -> Iterator[str]:
    """The tasks beside a file of data that name it."""
    named = re.compile(rf"(?<![\w.-]){re.escape(data.name)}(?![\w.-])")
    for file in sorted(data.parent.glob("*.yaml")):
        with contextlib.suppress(OSError, ValueError):
            name = _defined(file)[1]
            if name and named.search(reading.text(file, reading.TABLE)):
                yield name


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
