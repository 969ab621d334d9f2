"""Runs on disk: self-contained directories, content-addressed cells, written last-to-first.

    <runs>/.newest                              the run that began or ended last
    <runs>/<run id>/run.json                    what was asked, what came of it; replaced atomically
    <runs>/<run id>/cells/<key>/samples.parquet one row an item
    <runs>/<run id>/cells/<key>/made-of.json    what the key is the SHA-256 of
    <runs>/<run id>/cells/<key>/verified.json   how many documents of its row lm-eval scored too
    <runs>/<run id>/cells/<key>/cell.json       the header; the directory appears by one rename
    <runs>/<run id>/items/<sha256>.parquet      texts of the items, shared by the variants
    <runs>/<run id>/logs/<variant>.log          what the libraries printed
    <runs>/<run id>/shards/<variant>/...        answers of cells at work, shared by workers (`store.shards`)
    <runs>/<run id>/work/...                    what workers on several machines have to do (`store.work`)
    <runs>/<run id>/.lock                       the command that is at work on the run (`store.lock`)

A cell's key is a hash of everything that can change its numbers, so a cell found under its key anywhere
below <runs> is taken over instead of computed again. Nothing is believed by its place: run.json and
cell.json hold a checksum of themselves (the SHA-256 of the file with 64 zeros in the checksum's place) and
the hashes of the files that they tell of; a cell says what its key is made of.
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
from shlex import quote
from typing import TYPE_CHECKING, Any

import msgspec

from qeval.base import reading
from qeval.base.errors import QevalError, did_you_mean
from qeval.base.files import changed, disk_errors, link_or_copy, remove, shared, write_atomic
from qeval.base.names import inside, is_file_name, slug
from qeval.base.places import at_home
from qeval.base.records import Cell, Item, Run, Samples
from qeval.store import newest
from qeval.store.checking import (
    SAMPLES_FILE,
    check_cell,
    check_run,
    check_samples,
    check_score,
    check_version,
    made_of,
    table_of,
)
from qeval.store.checksums import (
    damaged,
    decode,
    documents_told,
    holds,
    is_summed,
    read_proved,
    summed,
    verified_bytes,
)
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
ITEMS_FILE = "items.parquet"
MADE_OF_FILE = "made-of.json"
VERIFIED_FILE = "verified.json"


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
            data = reading.content(file)
        except OSError as error:
            raise QevalError(
                f"{self.path} is not a run: it has no readable {RUN_FILE} ({reading.told(error)}).",
                "List the runs there are with: qeval list runs",
            ) from error
        check_version(data, file)
        return check_run(decode(data, Run, file), file)

    def write(self, run: Run) -> None:
        """Replace run.json atomically."""
        with disk_errors(self.path):
            write_atomic(self.path / RUN_FILE, summed(run))

    def cell(self, key: str) -> Cell | None:
        """The finished cell under `key`, or None."""
        file = self._cell_dir(key) / CELL_FILE
        try:
            data = reading.content(file)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise damaged(file, f"cannot be read: {reading.told(error)}") from error
        cell = check_cell(decode(data, Cell, file), file)
        if cell.key != key:
            raise damaged(file, "is another cell's: it was copied or renamed")
        self.made_of(cell)
        return cell

    def whole(self, key: str) -> Cell | None:
        """The finished cell under `key`, where nothing of it is damaged or lost, the texts of its items
        included, and it can tell which items share texts; else None."""
        with contextlib.suppress(QevalError):
            cell = self.cell(key)
            if cell is not None and tells_texts(cell) and len(self.samples(cell)) == cell.n:
                sha = cell.files.get(ITEMS_FILE)
                return cell if sha is None or holds(self._items_file(sha), sha) else None
        return None

    def made_of(self, cell: Cell) -> dict[str, Any]:
        """What a cell's key is the hash of; empty for older cells, which do not tell.

        Raises QevalError where it is not of the cell's task.
        """
        file = self._cell_dir(cell.key) / MADE_OF_FILE
        if not file.exists():
            return {}
        told: dict[str, Any] = made_of(read_proved(file, cell.key), file)
        task = msgspec.to_builtins(cell.task)
        if any(task.get(name) != value for name, value in told["task"].items()):
            raise damaged(file, f"is of another task than {cell.task.name}")
        return told

    def tells_key(self, key: str) -> bool:
        """Whether a whole cell has kept what its key is the hash of; older ones never had it."""
        folder = self._cell_dir(key)
        return (folder / MADE_OF_FILE).is_file() or not is_summed(folder / CELL_FILE)

    def mend(self, key: str, made_of: str) -> None:
        """Write anew what a stored cell's key is the hash of, where that was lost or damaged."""
        file = self._cell_dir(key) / MADE_OF_FILE
        if is_summed(file.with_name(CELL_FILE)) and not holds(file, key):
            with disk_errors(self.path):
                write_atomic(file, made_of.encode())

    def verified(self, cell: Cell) -> int:
        """How many documents of a cell's row lm-eval's own code was asked for too; 0 where nothing tells."""
        try:
            data = reading.content(self._cell_dir(cell.key) / VERIFIED_FILE)
        except OSError:
            return 0
        return documents_told(data, cell.files[SAMPLES_FILE])

    def mark_verified(self, cell: Cell, documents: int) -> None:
        """Keep that these very numbers of a stored cell were held against lm-eval's."""
        told = verified_bytes(cell.files[SAMPLES_FILE], documents)
        with disk_errors(self.path):
            write_atomic(self._cell_dir(cell.key) / VERIFIED_FILE, told)

    def samples(self, cell: Cell) -> Samples:
        """The items of a cell, with their clusters, which a cell of an older version gets from its stored
        texts.

        Raises QevalError where the items are missing or were changed, or have another score than the cell.
        """
        if cell.aggregate_only:
            raise QevalError(f"{cell.task.name} has a published score but no items.", "")
        file = self._cell_dir(cell.key) / SAMPLES_FILE
        columns = table_of(file, cell.files[SAMPLES_FILE], lambda data: samples_from_parquet(data, cell.n))
        samples = check_score(check_samples(columns, file), cell, file)
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
            found = table_of(self._items_file(sha), sha, questions_from_parquet)
            whole = cell.task.kind == "perplexity" and not any(item.choices for item in found.values())
            return {} if whole else found
        return {}

    def items(self, cell: Cell) -> Mapping[str, Item]:
        """The texts of a cell's items by key; empty where none were kept. Read once for all variants."""
        sha = cell.files.get(ITEMS_FILE)
        if sha is None:
            return {}
        if sha not in self._items:
            self._items[sha] = table_of(self._items_file(sha), sha, items_from_parquet)
        return self._items[sha]

    def add(self, cell: Cell, samples: Samples, items: Sequence[Item], made_of: str | None = None) -> Cell:
        """Store a cell: its items, then its samples, then its header, seen by others all at once.

        `made_of` is the text whose SHA-256 is the cell's key. Returns the cell with the hashes of its files.
        Where another process was quicker, its cell stays, unless it is damaged.
        """
        with disk_errors(self.path):
            files = {}
            if items:
                data = items_to_parquet(items)
                files[ITEMS_FILE] = sha = hashlib.sha256(data).hexdigest()
                if not holds(self._items_file(sha), sha):
                    write_atomic(self._items_file(sha), data)
            data = samples_to_parquet(samples)
            files[SAMPLES_FILE] = hashlib.sha256(data).hexdigest()
            cell = replace(cell, files=files)
            with self._appearing(cell.key) as folder:
                write_atomic(folder / SAMPLES_FILE, data)
                if made_of is not None:
                    write_atomic(folder / MADE_OF_FILE, made_of.encode())
                write_atomic(folder / CELL_FILE, summed(cell))
        return cell

    def adopt(self, other: RunDir, cell: Cell) -> None:
        """Take over a finished cell of another run directory, by hard links where the disk allows."""
        with disk_errors(self.path):
            sha = cell.files.get(ITEMS_FILE)
            if sha is not None and not holds(self._items_file(sha), sha):
                link_or_copy(other._items_file(sha), self._items_file(sha))
            with self._appearing(cell.key) as folder:
                for name in (SAMPLES_FILE, MADE_OF_FILE, VERIFIED_FILE, CELL_FILE):
                    if (other._cell_dir(cell.key) / name).exists():
                        link_or_copy(other._cell_dir(cell.key) / name, folder / name)

    def log(self, variant: str) -> Path:
        """Where the libraries' output of a variant goes."""
        return self.path / "logs" / f"{slug(variant, 80)}.log"

    def shards(self, variant: str) -> Path:
        """Where workers of a variant share what they found of cells that are not finished."""
        return self.path / "shards" / slug(variant, 80)

    @property
    def work(self) -> Path:
        """Where workers that this run's command did not start find what is to be done."""
        return self.path / "work"

    def forget_shards(self, variant: str) -> None:
        """Remove what workers shared, for the cells hold it now."""
        shutil.rmtree(self.shards(variant), ignore_errors=True)
        with contextlib.suppress(OSError):
            (self.path / "shards").rmdir()  # the last one's

    def _cell_dir(self, key: str) -> Path:
        return self.path / "cells" / self._name(key)

    def _items_file(self, sha256: str) -> Path:
        return self.path / "items" / f"{self._name(sha256)}.parquet"

    def _name(self, name: str) -> str:
        """A name as it is. Raises QevalError where it would lead out of its folder."""
        if not is_file_name(name) or name.startswith("."):
            raise damaged(self.path / RUN_FILE, f"names a file outside of the run ({name!r})")
        return name

    @contextlib.contextmanager
    def _appearing(self, key: str) -> Iterator[Path]:
        """A directory that becomes the cell's by one rename at the end; another's that was quicker stays."""
        cells = self.path / "cells"
        cells.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=cells, prefix=f".{key[:8]}."))
        shared(folder)
        try:
            yield folder
            if os.path.lexists(self._cell_dir(key)) and self.whole(key) is None:
                with contextlib.suppress(FileNotFoundError):  # another moved it away, for the same reason
                    self._cell_dir(key).rename(folder.with_name(f"{folder.name}.damaged"))
            try:
                folder.rename(self._cell_dir(key))
            except OSError as error:
                if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                    raise
        finally:
            remove(folder)
            remove(folder.with_name(f"{folder.name}.damaged"))


def check_readable(run: Run) -> None:
    """Raises QevalError where the run would be written as something that nothing can read (a NaN)."""
    try:
        msgspec.json.decode(msgspec.json.encode(run), type=Run)
    except (msgspec.MsgspecError, OverflowError) as error:
        raise QevalError(
            f"{run.id} holds something that no run can hold ({error}), so nothing was written.",
            "Check what it was made from.",
        ) from error


# --- the directory of all runs ------------------------------------------------------------------


@dataclass(frozen=True)
class Store:
    """The directory that holds all runs."""

    root: Path

    def run_dir(self, run_id: str) -> RunDir:
        """The directory of a run, whether it exists or not. Raises QevalError for an id that is no name."""
        return RunDir(inside(self.root, run_id))

    def runs(self) -> list[RunDir]:
        """All run directories: the one that began or ended last, then by the time of their last change."""
        found = [(path, when) for path in self._folders() if (when := changed(path / RUN_FILE))]
        last = newest.marked(self.root)
        name = last.run if last else ""
        found.sort(key=lambda one: (one[0].name == name, one[1], one[0].name), reverse=True)
        return [RunDir(path) for path, _ in found]

    def _folders(self) -> list[Path]:
        return [path for path in self.root.iterdir() if path.is_dir()] if self.root.is_dir() else []

    def mark_newest(self, run_id: str) -> None:
        """Remember that a run began or ended now."""
        newest.mark(self.root, run_id)

    def find(self, key: str) -> tuple[RunDir, Cell] | None:
        """A finished, undamaged cell under `key` in any run, of which it is known what items share texts."""
        for file in sorted(self.root.glob(f"*/cells/{key}/{CELL_FILE}")):
            place = RunDir(file.parent.parent.parent)
            cell = place.whole(key)
            if cell is not None:
                return place, cell
        return None

    def open(self, name: str | None) -> RunDir:
        """The run that a person means: a directory, an id below the root, its beginning, or the newest.

        Raises QevalError when there is none, or several.
        """
        if name is None:
            return newest.strictly(self)
        for path in (at_home(name), self.root / name):
            if (path / RUN_FILE).exists():
                return RunDir(path)
        if is_file_name(name) and (self.root / name).is_dir():
            return self.run_dir(
                name
            )  # never taken for the beginning of another's; reading it says what is wrong
        starts = [run for run in self.runs() if run.path.name.startswith(name)]
        if len(starts) == 1:
            return starts[0]
        if starts:
            names = ", ".join(run.path.name for run in starts)
            raise QevalError(f"{name!r} is the start of several runs' names.", f"Write one of: {names}.")
        folder = at_home(name)
        if folder.is_dir() and Store(folder).runs():
            raise QevalError(
                f"{name} holds runs, and is none itself.", f"Say where they are: --runs-dir {quote(name)}"
            )
        if folder.is_dir():
            return RunDir(folder)  # reading it will say what is wrong with it
        known = [run.path.name for run in self.runs()]
        hint = did_you_mean(name, known) or "Make one with: qeval run --model demo"
        raise QevalError(f"There is no run {name!r} in {self.root}.", hint)
