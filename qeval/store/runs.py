"""Runs on disk: self-contained directories, content-addressed cells, written last-to-first.

    <runs>/<run id>/run.json                    what was asked, what came of it; replaced atomically
    <runs>/<run id>/cells/<key>/samples.parquet one row an item
    <runs>/<run id>/cells/<key>/cell.json       the header; the directory appears by one rename
    <runs>/<run id>/items/<sha256>.parquet      texts of the items, shared by the variants
    <runs>/<run id>/logs/<variant>.log          what the libraries printed

A cell's key is a hash of everything that can change its numbers, so a cell found under its key anywhere
below <runs> is taken over instead of computed again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import shutil
import tempfile
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from qeval.base.errors import QevalError, did_you_mean
from qeval.base.files import disk_errors, write_atomic
from qeval.base.names import slug
from qeval.base.records import Cell, Item, Run, Samples

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import ArrayLike, NDArray

RUN_FILE = "run.json"
CELL_FILE = "cell.json"
SAMPLES_FILE = "samples.parquet"
ITEMS_FILE = "items.parquet"
_Record = TypeVar("_Record", Run, Cell)
_SHORT, _ASCII = 128, 127


# --- samples and items as Parquet columns -------------------------------------------------------
#
# Columns are made from bytes and read from them: pa.array and to_numpy would load pandas first, which takes
# a fifth of a second of every command.


def _samples_table(samples: Samples) -> pa.Table:
    import pyarrow as pa

    columns = {}
    for column in fields(Samples):
        values = getattr(samples, column.name)
        if column.name == "scores":
            columns[column.name] = _list_column(values, _float_column(list(itertools.chain(*values))))
        elif column.name in {"value", "weight"}:
            columns[column.name] = _float_column(values)
        else:
            columns[column.name] = _text_column(values.tolist())
    return pa.table(columns)


def _float_column(values: ArrayLike) -> pa.DoubleArray:
    import numpy as np
    import pyarrow as pa

    numbers = np.ascontiguousarray(values, np.float64)
    return pa.Array.from_buffers(pa.float64(), len(numbers), [None, pa.py_buffer(numbers)])


def _text_column(texts: Sequence[str], *, large: bool = False) -> pa.Array:
    """Strings; `large` ones may be more than 2 GiB together."""
    import pyarrow as pa

    data = [text.encode() for text in texts]
    kind, number = (pa.large_string(), "q") if large else (pa.string(), "i")
    return pa.Array.from_buffers(kind, len(data), [None, _ends(data, number), pa.py_buffer(b"".join(data))])


def _list_column(rows: Collection[Sequence[object]], flat: pa.Array) -> pa.ListArray:
    """Lists as long as `rows`, of the values that `flat` has one after the other."""
    import pyarrow as pa

    ends = pa.Array.from_buffers(pa.int32(), len(rows) + 1, [None, _ends(rows, "i")])
    return pa.ListArray.from_arrays(ends, flat)


def _ends(parts: Iterable[Sequence[object]], number: str) -> pa.Buffer:
    """0 and where each part ends, as integers of the kind `number` (of the module array)."""
    import pyarrow as pa

    return pa.py_buffer(array(number, itertools.accumulate(map(len, parts), initial=0)))


def _samples(table: pa.Table) -> Samples:
    columns: dict[str, Any] = {}
    for column in fields(Samples):
        data = table.column(column.name).combine_chunks()
        if column.name == "scores":
            columns[column.name] = _tuples(data)
        elif column.name in {"value", "weight"}:
            columns[column.name] = _floats(data)
        else:
            columns[column.name] = _texts(data)
    return Samples(**columns)


def _floats(column: pa.DoubleArray) -> NDArray[np.float64]:
    """Numbers straight from Arrow's bytes."""
    import numpy as np

    _, data = column.buffers()
    return np.frombuffer(data or b"", np.float64)[column.offset : column.offset + len(column)]


def _texts(column: pa.StringArray) -> NDArray[np.str_]:
    """Strings as numpy text; short ASCII ones straight from Arrow's bytes, for speed."""
    import numpy as np

    if not len(column):
        return np.array([], dtype=np.str_)
    _, offsets, data = column.buffers()
    ends = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
    letters = np.frombuffer(data or b"", np.uint8)[ends[0] : ends[-1]]
    lengths = np.diff(ends)
    width = int(lengths.max())
    if not 0 < width <= _SHORT or letters.max() > _ASCII:
        return np.array(column.to_pylist(), dtype=np.str_)
    wide = np.zeros((len(column), width), np.uint32)
    wide[np.arange(width) < lengths[:, None]] = letters
    return wide.view(f"<U{width}").reshape(len(column))


def _tuples(column: pa.ListArray) -> NDArray[np.object_]:
    """Lists of numbers as tuples of floats."""
    import numpy as np

    values = column.values.to_pylist()
    ends = column.offsets.to_pylist()
    rows = np.empty(len(column), dtype=object)
    rows[:] = [tuple(values[start:end]) for start, end in itertools.pairwise(ends)]
    return rows


def _items_table(items: Sequence[Item]) -> pa.Table:
    import pyarrow as pa

    choices = [choice for item in items for choice in item.choices]
    return pa.table(
        {
            "key": _text_column([item.key for item in items]),
            "prompt": _text_column([item.prompt for item in items], large=True),
            "question": _text_column([item.question for item in items]),
            "choices": _list_column([item.choices for item in items], _text_column(choices)),
            "gold": _text_column([item.gold for item in items]),
        }
    )


def _parquet_bytes(table: pa.Table) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


def _read_parquet(path: Path, expected_sha256: str) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        data = path.read_bytes()
    except OSError as error:
        raise _damaged(path, "is missing") from error
    if hashlib.sha256(data).hexdigest() != expected_sha256:
        raise _damaged(path, "is not what was written (its SHA-256 differs)")
    # Not pq.read_table: it loads pandas too, and threads that it leaves behind may abort the process at exit.
    return pq.ParquetFile(pa.BufferReader(data)).read()


def _damaged(path: Path, what: str) -> QevalError:
    return QevalError(
        f"{path} {what}.",
        f"Delete {path.parent} and run the same command again: only what is damaged is computed again.",
    )


# --- one run's directory ------------------------------------------------------------------------


@dataclass(frozen=True)
class RunDir:
    """A run's directory, open for reading and writing."""

    path: Path
    _items: dict[str, Mapping[str, Item]] = field(default_factory=dict, compare=False, repr=False)

    def read(self) -> Run:
        """The run as it stands. Raises QevalError when it is missing, truncated or of a later version."""
        file = self.path / RUN_FILE
        try:
            data = file.read_bytes()
        except OSError as error:
            raise QevalError(
                f"{self.path} is not a run: it has no readable {RUN_FILE}.",
                "List the runs there are with: qeval list runs",
            ) from error
        return _decode(data, Run, file)

    def write(self, run: Run) -> None:
        """Replace run.json atomically."""
        with disk_errors(self.path):
            write_atomic(self.path / RUN_FILE, msgspec.json.format(msgspec.json.encode(run), indent=1))

    def cell(self, key: str) -> Cell | None:
        """The finished cell under `key`, or None."""
        file = self.path / "cells" / key / CELL_FILE
        try:
            data = file.read_bytes()
        except OSError:
            return None
        return _decode(data, Cell, file)

    def samples(self, cell: Cell) -> Samples:
        """The items of a cell. Raises QevalError where they are missing or were changed."""
        if cell.aggregate_only:
            raise QevalError(f"{cell.task.name} has a published score but no items.", "")
        file = self.path / "cells" / cell.key / SAMPLES_FILE
        return _samples(_read_parquet(file, cell.files[SAMPLES_FILE]))

    def items(self, cell: Cell) -> Mapping[str, Item]:
        """The texts of a cell's items by key; empty where none were kept. Read once for all variants."""
        sha = cell.files.get(ITEMS_FILE)
        if sha is None:
            return {}
        if sha not in self._items:
            table = _read_parquet(self.path / "items" / f"{sha}.parquet", sha)
            rows = (Item(**{**row, "choices": tuple(row["choices"])}) for row in table.to_pylist())
            self._items[sha] = {item.key: item for item in rows}
        return self._items[sha]

    def add(self, cell: Cell, samples: Samples, items: Sequence[Item]) -> Cell:
        """Store a cell: its items, then its samples, then its header, seen by others all at once.

        Returns the cell with the hashes of its files. Where another process was quicker, its cell stays.
        """
        with disk_errors(self.path):
            files = {}
            if items:
                data = _parquet_bytes(_items_table(items))
                files[ITEMS_FILE] = sha = hashlib.sha256(data).hexdigest()
                if not (self.path / "items" / f"{sha}.parquet").exists():
                    write_atomic(self.path / "items" / f"{sha}.parquet", data)
            data = _parquet_bytes(_samples_table(samples))
            files[SAMPLES_FILE] = hashlib.sha256(data).hexdigest()
            cell = replace(cell, files=files)
            with self._appearing(cell.key) as folder:
                write_atomic(folder / SAMPLES_FILE, data)
                write_atomic(folder / CELL_FILE, msgspec.json.encode(cell))
        return cell

    def adopt(self, other: RunDir, cell: Cell) -> None:
        """Take over a finished cell of another run directory, by hard links where the disk allows."""
        with disk_errors(self.path):
            sha = cell.files.get(ITEMS_FILE)
            if sha is not None:
                _link(other.path / "items" / f"{sha}.parquet", self.path / "items" / f"{sha}.parquet")
            with self._appearing(cell.key) as folder:
                for name in (SAMPLES_FILE, CELL_FILE):
                    _link(other.path / "cells" / cell.key / name, folder / name)

    def log(self, variant: str) -> Path:
        """Where the libraries' output of a variant goes."""
        return self.path / "logs" / f"{slug(variant, 80)}.log"

    @contextlib.contextmanager
    def _appearing(self, key: str) -> Iterator[Path]:
        cells = self.path / "cells"
        cells.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=cells, prefix=f".{key[:8]}."))
        folder.chmod(0o755)
        try:
            yield folder
            try:
                folder.rename(cells / key)
            except OSError as error:
                if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                    raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
    temporary.replace(target)


def _decode(data: bytes, kind: type[_Record], file: Path) -> _Record:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise _damaged(file, f"is not what this version of qeval writes ({error})") from error
    except msgspec.DecodeError as error:
        raise _damaged(file, "is truncated or damaged") from error


@dataclass(frozen=True)
class Reader:
    """Reads the cells of one or several runs, each cell's samples at most once."""

    places: Mapping[str, RunDir]
    _samples: dict[str, Samples] = field(default_factory=dict, compare=False, repr=False)

    def samples(self, cell: Cell) -> Samples:
        """The items of a cell; see RunDir.samples."""
        if cell.key not in self._samples:
            self._samples[cell.key] = self.places[cell.key].samples(cell)
        return self._samples[cell.key]

    def items(self, cell: Cell) -> Mapping[str, Item]:
        """The texts of a cell's items; see RunDir.items."""
        return self.places[cell.key].items(cell)


def reader(runs: Sequence[tuple[RunDir, Run]]) -> Reader:
    """A Reader for all cells of these runs."""
    return Reader({cell.key: place for place, run in runs for result in run.results for cell in result.cells})


# --- the directory of all runs ------------------------------------------------------------------


@dataclass(frozen=True)
class Store:
    """The directory that holds all runs."""

    root: Path

    def run_dir(self, run_id: str) -> RunDir:
        """The directory of a run, whether it exists or not."""
        return RunDir(self.root / run_id)

    def runs(self) -> list[RunDir]:
        """All run directories, the newest first, by the time of their last change."""
        found = [file for file in self.root.glob(f"*/{RUN_FILE}") if file.is_file()]
        found.sort(key=lambda file: (file.stat().st_mtime_ns, file.parent.name), reverse=True)
        return [RunDir(file.parent) for file in found]

    def find(self, key: str) -> tuple[RunDir, Cell] | None:
        """A finished, undamaged cell under `key` in any run."""
        for file in sorted(self.root.glob(f"*/cells/{key}/{CELL_FILE}")):
            place = RunDir(file.parent.parent.parent)
            with contextlib.suppress(QevalError):
                cell = place.cell(key)
                if cell is not None and place.samples(cell) is not None:
                    place.items(cell)
                    return place, cell
        return None

    def open(self, name: str | None) -> RunDir:
        """The run that a person means: a directory, an id below the root, its beginning, or the newest.

        Raises QevalError when there is none, or several.
        """
        if name is None:
            return self._newest()
        for path in (Path(name), self.root / name):
            if (path / RUN_FILE).exists():
                return RunDir(path)
        starts = [run for run in self.runs() if run.path.name.startswith(name)]
        if len(starts) == 1:
            return starts[0]
        if starts:
            names = ", ".join(run.path.name for run in starts)
            raise QevalError(f"{name!r} begins the name of several runs.", f"Write one of: {names}.")
        if Path(name).is_dir():
            return RunDir(Path(name))  # reading it will say what is wrong with it
        known = [run.path.name for run in self.runs()]
        hint = did_you_mean(name, known) or "Make one with: qeval run --model demo"
        raise QevalError(f"There is no run {name!r} in {self.root}.", hint)

    def _newest(self) -> RunDir:
        runs = self.runs()
        if not runs:
            raise QevalError(f"There is no run in {self.root} yet.", "Make one with: qeval run --model demo")
        return runs[0]
