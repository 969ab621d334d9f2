"""What a run's files tell, held against what can be: a checksum proves that nothing changed, not more."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from qeval.base import reading
from qeval.base.costs import Cost, Timing
from qeval.base.errors import QevalError
from qeval.base.names import is_file_name
from qeval.base.packing import Packing
from qeval.base.records import Cell, Provenance, Result, Run, Samples, Stop, Task
from qeval.base.repeats import scorings
from qeval.base.settings import Settings
from qeval.store.checksums import damaged, read_proved

_Table = TypeVar("_Table")
PUBLISHED = "published"
"""The kind of the scheme of a variant whose scores were published, without items."""
SAMPLES_FILE = "samples.parquet"
_MOST = 1 << 53
"""Counts lie below it: from there on a float no longer tells one from the next."""
_SHOWN = 60
_HASH = re.compile(r"[0-9a-f]{64}")


_AT_LEAST: dict[type, dict[str, float]] = {
    Task: {"num_fewshot": 0, "limit": 1, "chance": 0},
    Cell: {"n": 0, "n_available": 0, "truncated": 0, "tokens": 0, "seconds": 0, "texts": 0},
    Settings: {"limit": 1, "max_gen_toks": 1, "repeats": 1, "temperature": 0, "gpu_memory": 1},
    Provenance: {
        "linears": 0,
        "weight_bytes": 0,
        "bits_per_weight": 0,
        "quantised_share": 0,
        "bits_overall": 0,
    },
    Cost: {"load_seconds": 0, "peak_bytes": 0},
    Timing: {"median": 0, "low": 0, "high": 0, "repeats": 1},
    Packing: {"threads": 0, "budget": 0, "batch_size": 0, "shard": 0},
    Stop: {"items": 0, "of": 0},
}
"""The least that a number in a record can be, by its field; none is as great as `_MOST`."""


class _Version(msgspec.Struct):
    """What tells of a run's file who can read it, whatever else stands in it."""

    schema: int = 1
    qeval_version: str = ""


def check_version(data: bytes, file: Path) -> None:
    """Raises QevalError for a run in a form that is newer than this version's."""
    try:
        told = msgspec.json.decode(data, type=_Version)
    except (msgspec.MsgspecError, RecursionError):
        return  # damaged, as whoever reads the rest says
    if told.schema > Run.schema:
        version = told.qeval_version.rpartition(",")[2].strip() or "a later version"
        raise QevalError(
            f"{file} was written by a newer qeval ({version}, form {told.schema}; this one reads form "
            f"{Run.schema}).",
            "Update qeval here: pip install --upgrade qeval",
        )


def check_run(run: Run, file: Path) -> Run:
    """The run, if it can be one: its id is a name, its numbers are in range, and what was scored has items.

    Raises QevalError: without items it would be compared unpaired, as if it had been published.
    """
    if not is_file_name(run.id):
        raise damaged(file, f"has an id that is no name of a directory ({_short(run.id)})")
    for record in (run.settings, *run.suite.tasks):
        _check_ranges(record, file)
    for result in scorings(run):
        _check_result(result, file)
    return run


def _check_result(result: Result, file: Path) -> None:
    names = [cell.task.name for cell in result.cells]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise damaged(file, f"has two scores of {_short(twice)} of {_short(result.variant.name)}")
    timings = result.cost.measures.values() if result.cost else ()
    for record in (result.provenance, result.cost, result.packing, result.stop, *timings):
        _check_ranges(record, file)
    for cell in result.cells:
        check_cell(cell, file)
        if cell.aggregate_only and result.variant.scheme.kind != PUBLISHED:
            of = f"{_short(cell.task.name)} of {_short(result.variant.name)}"
            raise damaged(file, f"names no items of {of}, which everything that was scored has")


def check_cell(cell: Cell, file: Path) -> Cell:
    """The cell, if its numbers are in range and its files are named by hashes. Raises QevalError."""
    for record in (cell, cell.task, cell.provenance):
        _check_ranges(record, file)
    bad = next((words for fine, words in _claims(cell) if not fine), None)
    if bad is not None:
        raise damaged(file, f"says of {_short(cell.task.name)} what cannot be: {bad}")
    return cell


def _check_ranges(record: object, file: Path) -> None:
    if isinstance(record, Provenance) and reading.deeper(record.quantization):
        raise damaged(file, "is nested too deeply")
    for name, least in _AT_LEAST.get(type(record), {}).items():
        value = getattr(record, name)
        if value is not None and not least <= value < _MOST:
            shown = value if abs(value) < _MOST else f"{'-' if value < 0 else ''}more than {_MOST}"
            raise damaged(file, f"says what cannot be: {name} = {shown}")


def _claims(cell: Cell) -> Iterator[tuple[bool, str]]:
    """(whether it can be, what is told) of what a cell tells of its items and files."""
    yield cell.n <= cell.n_available, f"{cell.n} of {cell.n_available} items"
    yield cell.texts is None or cell.texts <= cell.n, f"{cell.texts} texts behind {cell.n} items"
    yield cell.task.chance is None or cell.task.chance <= 1, f"a chance of {cell.task.chance}"
    yield _possible(cell), f"a score of {cell.score:g} of the kind {cell.task.kind}"
    yield not cell.files or SAMPLES_FILE in cell.files, f"no {SAMPLES_FILE} among its files"
    for name in ("n_effective", "stderr"):
        yield cell.metrics.get(name, 1.0) > 0, f"{name} = {cell.metrics.get(name)}"
    for name, sha in cell.files.items():
        yield bool(_HASH.fullmatch(sha)), f"a SHA-256 of {_short(name)} that is none"


def _possible(cell: Cell) -> bool:
    """Whether a score can be one of its kind; without items it is a share of 1, as an import demands."""
    if cell.task.kind == "perplexity":
        return -math.inf < cell.score <= 0
    share = cell.aggregate_only or cell.task.kind == "accuracy"
    return 0 <= cell.score <= 1 if share else math.isfinite(cell.score)


def _short(name: str) -> str:
    return ascii(name if len(name) <= _SHOWN else f"{name[: _SHOWN - 3]}...")


def check_samples(samples: Samples, file: Path) -> Samples:
    """The samples, if each item is there once. A value that cannot be stays, and is refused where it is
    compared. Raises QevalError."""
    if len(set(samples.key.tolist())) != len(samples):
        raise damaged(file, "has an item twice")
    return samples


_ROUNDING = 1e-9
"""How far two sums of the same items may lie apart, as a share of the sum of their sizes."""


def check_score(samples: Samples, cell: Cell, file: Path) -> Samples:
    """The samples, if the header's score is theirs: a report shows the one beside what was made of the other.
    What is no number has no score, and is refused where it is compared. Raises QevalError."""
    import numpy as np

    with np.errstate(all="ignore"):
        value, weight = samples.value, float(samples.weight.sum())
        size = float(np.abs(value).sum()) / (weight or 1.0)
        found = float(value.sum()) / weight if weight else 0.0
    if math.isfinite(size) and abs(found - cell.score) > _ROUNDING * size:
        of, said = _short(cell.task.name), f"{cell.score:.6g}"
        raise damaged(file, f"holds items of {of} that score {found:.6g}, not {said} as their header says")
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
