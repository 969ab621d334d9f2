"""What a run's files tell, held against what can be: a checksum proves that nothing changed, not more."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from qeval.base import reading
from qeval.base.names import is_file_name
from qeval.base.records import Cell, Result, Run, Samples, Task
from qeval.base.repeats import scorings
from qeval.store.checksums import damaged, read_proved

_Table = TypeVar("_Table")
PUBLISHED = "published"
"""The kind of the scheme of a variant whose scores were published, without items."""
SAMPLES_FILE = "samples.parquet"
_MOST = 1 << 53
"""Counts lie below it: from there on a float no longer tells one from the next."""
_HASH = re.compile(r"[0-9a-f]{64}")


def check_run(run: Run, file: Path) -> Run:
    """The run, if it can be one: its id is a name, its numbers are in range, and what was scored has items.

    Raises QevalError: without items it would be compared unpaired, as if it had been published.
    """
    if not is_file_name(run.id):
        raise damaged(file, f"has an id that is no name of a directory ({_short(run.id)})")
    for result in scorings(run):
        for cell in result.cells:
            check_cell(cell, file)
            if cell.aggregate_only and result.variant.scheme.kind != PUBLISHED:
                raise damaged(
                    file, f"names no items of {_of(cell, result)}, which everything that was scored has"
                )
    return run


def _of(cell: Cell, result: Result) -> str:
    return f"{_short(cell.task.name)} of {_short(result.variant.name)}"


def _short(name: str) -> str:
    return ascii(name if len(name) <= 60 else f"{name[:57]}...")  # noqa: PLR2004 - what a line takes


def check_cell(cell: Cell, file: Path) -> Cell:
    """The cell, if its numbers are in range and its files are named by hashes. Raises QevalError."""
    bad = next((words for fine, words in _claims(cell) if not fine), None)
    if bad is not None:
        raise damaged(file, f"says of {_short(cell.task.name)} what cannot be: {bad}")
    return cell


def _claims(cell: Cell) -> Iterator[tuple[bool, str]]:
    """(whether it can be, what is told) of everything in a cell that has a range."""
    yield 0 <= cell.n <= cell.n_available < _MOST, f"{cell.n} of {cell.n_available} items"
    yield abs(cell.score) < float("inf"), f"a score of {cell.score}"
    yield 0 <= cell.seconds < float("inf"), f"{cell.seconds} seconds"
    for name in ("truncated", "tokens"):
        yield 0 <= getattr(cell, name) < _MOST, f"{name} = {getattr(cell, name)}"
    yield cell.texts is None or 0 <= cell.texts <= cell.n, f"{cell.texts} texts behind {cell.n} items"
    yield not cell.files or SAMPLES_FILE in cell.files, f"no {SAMPLES_FILE} among its files"
    for name, sha in cell.files.items():
        yield bool(_HASH.fullmatch(sha)), f"a SHA-256 of {_short(name)} that is none"
    yield from _of_task(cell.task)


def _of_task(task: Task) -> Iterator[tuple[bool, str]]:
    yield task.limit is None or 0 < task.limit < _MOST, f"a limit of {task.limit}"
    few = task.num_fewshot
    yield few is None or 0 <= few < _MOST, f"{few} examples"
    yield task.chance is None or 0 <= task.chance <= 1, f"a chance of {task.chance}"


def check_samples(samples: Samples, cell: Cell, file: Path) -> Samples:
    """The samples, if they can be those of the cell: as many as it says, each once. A value that cannot be
    stays, and is refused where it is compared. Raises QevalError."""
    if len(samples) != cell.n:
        raise damaged(file, f"has {len(samples)} items where its header says {cell.n}")
    if len(set(samples.key.tolist())) != len(samples):
        raise damaged(file, "has an item twice")
    return samples


def made_of(data: bytes, file: Path) -> dict[str, Any]:
    """What a cell's key is made of, as its file tells it. Raises QevalError where it is no such thing."""
    try:
        told = reading.json_value(file, data)
    except OSError as error:
        raise damaged(file, f"is damaged: {reading.told(error)}") from error
    if not (isinstance(told, dict) and isinstance(told.get("task"), dict)):
        raise damaged(file, "does not say of which task it is")
    return told


def table_of(file: Path, sha: str, read: Callable[[bytes], _Table]) -> _Table:
    """What `read` makes of a file whose hash is known. Raises QevalError where the file was changed, or is
    no table of items whatever its hash."""
    data = read_proved(file, sha)
    try:
        return read(data)
    except ValueError as error:
        raise damaged(file, f"is no table of items: {error}") from error
