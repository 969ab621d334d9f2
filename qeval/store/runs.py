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
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from qeval.base.errors import QevalError, did_you_mean
from qeval.base.files import disk_errors, write_atomic
from qeval.base.names import slug
from qeval.base.records import Cell, Item, Run, Samples
from qeval.store.clusters import clusters
from qeval.store.columns import (
    items_from_parquet,
    items_to_parquet,
    questions_from_parquet,
    samples_from_parquet,
    samples_to_parquet,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RUN_FILE = "run.json"
CELL_FILE = "cell.json"
SAMPLES_FILE = "samples.parquet"
ITEMS_FILE = "items.parquet"
_Record = TypeVar("_Record", Run, Cell)


def _read_proved(path: Path, expected_sha256: str) -> bytes:
    """A file whose hash is known. Raises QevalError where it is missing or was changed."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _damaged(path, "is missing") from error
    if hashlib.sha256(data).hexdigest() != expected_sha256:
        raise _damaged(path, "is not what was written (its SHA-256 differs)")
    return data


def _damaged(path: Path, what: str) -> QevalError:
    return QevalError(
        f"{path} {what}.",
        f"Delete {path.parent} and run the same command again: only what is damaged is computed again.",
    )


def tells_texts(cell: Cell) -> bool:
    """Whether it is known which items of a cell share texts, or its stored items can tell. Older versions did
    not look; a cell of theirs without items is scored anew."""
    return cell.texts is not None or cell.aggregate_only or ITEMS_FILE in cell.files


# --- one run's directory ------------------------------------------------------------------------


@dataclass(frozen=True)
class RunDir:
    """A run's directory, open for reading and writing."""

    path: Path
    _items: dict[str, Mapping[str, Item]] = field(default_factory=dict, compare=False, repr=False)
    _clusters: dict[tuple[str, bytes], NDArray[np.str_]] = field(
        default_factory=dict, compare=False, repr=False
    )

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
        file = self._cell_dir(key) / CELL_FILE
        try:
            data = file.read_bytes()
        except OSError:
            return None
        return _decode(data, Cell, file)

    def samples(self, cell: Cell) -> Samples:
        """The items of a cell, with their clusters, which a cell of an older version gets from its stored
        texts.

        Raises QevalError where the items are missing or were changed.
        """
        if cell.aggregate_only:
            raise QevalError(f"{cell.task.name} has a published score but no items.", "")
        file = self._cell_dir(cell.key) / SAMPLES_FILE
        samples = samples_from_parquet(_read_proved(file, cell.files[SAMPLES_FILE]))
        if cell.texts is not None or (samples.cluster != "").any():
            return samples
        return replace(samples, cluster=self._found_clusters(cell, samples))

    def _found_clusters(self, cell: Cell, samples: Samples) -> NDArray[np.str_]:
        """The clusters of a cell that were not stored; looked for once for all variants."""
        place = (cell.files.get(ITEMS_FILE, ""), samples.doc_hash.tobytes())
        if place not in self._clusters:
            self._clusters[place] = clusters(samples, self._questions(cell))
        return self._clusters[place]

    def _questions(self, cell: Cell) -> Mapping[str, Item]:
        """The items of a cell without their prompts, as far as they can be read; none of documents that were
        read from end to end. What cannot be read is refused where it is needed to be read by a person."""
        sha = cell.files.get(ITEMS_FILE)
        if sha is None:
            return {}
        with contextlib.suppress(QevalError):
            found = questions_from_parquet(_read_proved(self._items_file(sha), sha))
            whole = cell.task.kind == "perplexity" and not any(item.choices for item in found.values())
            return {} if whole else found
        return {}

    def items(self, cell: Cell) -> Mapping[str, Item]:
        """The texts of a cell's items by key; empty where none were kept. Read once for all variants."""
        sha = cell.files.get(ITEMS_FILE)
        if sha is None:
            return {}
        if sha not in self._items:
            self._items[sha] = items_from_parquet(_read_proved(self._items_file(sha), sha))
        return self._items[sha]

    def add(self, cell: Cell, samples: Samples, items: Sequence[Item]) -> Cell:
        """Store a cell: its items, then its samples, then its header, seen by others all at once.

        Returns the cell with the hashes of its files. Where another process was quicker, its cell stays.
        """
        with disk_errors(self.path):
            files = {}
            if items:
                data = items_to_parquet(items)
                files[ITEMS_FILE] = sha = hashlib.sha256(data).hexdigest()
                if not self._items_file(sha).exists():
                    write_atomic(self._items_file(sha), data)
            data = samples_to_parquet(samples)
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
                _link(other._items_file(sha), self._items_file(sha))
            with self._appearing(cell.key) as folder:
                for name in (SAMPLES_FILE, CELL_FILE):
                    _link(other._cell_dir(cell.key) / name, folder / name)

    def log(self, variant: str) -> Path:
        """Where the libraries' output of a variant goes."""
        return self.path / "logs" / f"{slug(variant, 80)}.log"

    def _cell_dir(self, key: str) -> Path:
        return self.path / "cells" / key

    def _items_file(self, sha256: str) -> Path:
        return self.path / "items" / f"{sha256}.parquet"

    def _displace(self, folder: Path, key: str) -> None:
        """Put a new cell in the place of one that cannot tell which of its items share texts."""
        with contextlib.suppress(QevalError):
            old = self.cell(key)
            if old is not None and not tells_texts(old):
                shutil.rmtree(self._cell_dir(key))
                folder.rename(self._cell_dir(key))

    @contextlib.contextmanager
    def _appearing(self, key: str) -> Iterator[Path]:
        """A directory that becomes the cell's by one rename at the end; another's that was quicker stays."""
        cells = self.path / "cells"
        cells.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=cells, prefix=f".{key[:8]}."))
        folder.chmod(0o755)
        try:
            yield folder
            try:
                folder.rename(self._cell_dir(key))
            except OSError as error:
                if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                    raise
                self._displace(folder, key)
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


def check_readable(run: Run) -> None:
    """Raises QevalError where the run would be written as something that nothing can read (a NaN)."""
    try:
        msgspec.json.decode(msgspec.json.encode(run), type=Run)
    except (msgspec.MsgspecError, OverflowError) as error:
        raise QevalError(
            f"{run.id} holds what no run can hold ({error}), so nothing is written.",
            "Look at what it is made of.",
        ) from error


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
        """A finished, undamaged cell under `key` in any run, of which it is known what items share texts."""
        for file in sorted(self.root.glob(f"*/cells/{key}/{CELL_FILE}")):
            place = RunDir(file.parent.parent.parent)
            with contextlib.suppress(QevalError):
                cell = place.cell(key)
                if cell is not None and tells_texts(cell) and place.samples(cell) is not None:
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
