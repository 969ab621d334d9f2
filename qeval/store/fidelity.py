"""What was measured of fidelity in a run: a directory for each variant and protocol, beside the cells.

    <runs>/<run id>/fidelity/<key>/positions.parquet   a row a position
    <runs>/<run id>/fidelity/<key>/measured.json       the header; the directory appears by one rename
    <runs>/<run id>/fidelity/streams/<sha256>.parquet  the tokens, shared by the variants

run.json does not tell of it, so that it can be measured after the fact, of any run, and again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from qeval.base import reading
from qeval.base.errors import QevalError
from qeval.base.fidelity import Measured, Positions, Stream
from qeval.base.files import disk_errors, write_atomic
from qeval.base.hashing import digest
from qeval.base.names import inside
from qeval.store.checking import table_of
from qeval.store.checksums import damaged, decode, holds, summed
from qeval.store.positions import (
    positions_from_parquet,
    positions_to_parquet,
    stream_from_parquet,
    stream_to_parquet,
)

if TYPE_CHECKING:
    from qeval.base.records import Result, Run
    from qeval.store.runs import RunDir

FOLDER = "fidelity"
HEADER, POSITIONS, STREAM = "measured.json", "positions.parquet", "stream.parquet"


def measured(run: Path) -> tuple[Measured, ...]:
    """Everything that was measured in a run's directory and whose header is whole, in the order in which it
    was measured."""
    found = [one for one in map(_header, _headers(run)) if isinstance(one, Measured)]
    return tuple(sorted(found, key=lambda one: (one.created, one.key)))


def sound(run: Path) -> tuple[tuple[Measured, ...], tuple[str, ...]]:
    """What was measured in a run's directory and can be read to its last position, and a sentence with its
    remedy for each damaged file, which is named from the run's own name on."""
    broken = [one for one in map(_header, _headers(run)) if isinstance(one, QevalError)]
    whole_ones = []
    for one in measured(run):
        try:
            positions(run, one)
            stream(run, one)
        except QevalError as error:
            broken.append(error)
        else:
            whole_ones.append(one)
    told = (str(error).replace(f"{run.parent}{os.sep}", "") for error in broken)
    return tuple(whole_ones), tuple(dict.fromkeys(told))


def _headers(run: Path) -> list[Path]:
    """The headers in a run's directory, but for those that are being written."""
    found = sorted((run / FOLDER).glob(f"*/{HEADER}"))
    return [file for file in found if not file.parent.name.startswith(".")]


def _header(file: Path) -> Measured | QevalError | None:
    """A header, or what is wrong with it; None where it is gone by now or of another directory."""
    try:
        one = decode(reading.content(file), Measured, file)
    except FileNotFoundError:
        return None
    except QevalError as error:
        return error
    except OSError as error:
        return damaged(file, f"cannot be read: {reading.told(error)}")
    return one if one.key == file.parent.name else None


def of_run(place: RunDir, run: Run) -> tuple[tuple[Measured, ...], tuple[str, ...]]:
    """What was measured of the very variants that a run's cells are of, as far as the cells tell: not what
    others of the same name left there. With it what is damaged, see `sound`."""
    known = {result.variant.name: identities(place, result) for result in run.results}

    def is_of(name: str, sha256: str) -> bool:
        return known.get(name, frozenset()) <= {sha256}

    found, broken = sound(place.path)
    mine = (
        one
        for one in found
        if is_of(one.variant, one.variant_digest) and is_of(one.baseline, one.baseline_digest)
    )
    return tuple(mine), broken


def identities(place: RunDir, result: Result) -> frozenset[str]:
    """The hashes of what the cells of a result say that its variant is: one where all of them are of the
    same, none where no cell tells."""
    told = []
    for cell in result.cells:
        with contextlib.suppress(QevalError):
            told.append(place.made_of(cell).get("variant"))
    return frozenset(digest(one) for one in told if one)


def whole(run: Path, key: str) -> Measured | None:
    """What was measured under a key, where all of it is there and undamaged."""
    found = next((one for one in measured(run) if one.key == key), None)
    if found is not None:
        with contextlib.suppress(QevalError):
            positions(run, found)
            stream(run, found)
            return found
    return None


def positions(run: Path, one: Measured) -> Positions:
    """The positions of what was measured. Raises QevalError where they are missing or were changed."""
    file = inside(run / FOLDER, one.key) / POSITIONS
    return table_of(
        file, (one.files or {}).get(POSITIONS, ""), lambda data: positions_from_parquet(data, one.n)
    )


def stream(run: Path, one: Measured) -> Stream:
    """The token stream of what was measured. Raises QevalError where it is missing or was changed."""
    file = _stream_file(run, one.stream)
    found = table_of(file, (one.files or {}).get(STREAM, ""), stream_from_parquet)
    if found.sha256 != one.stream or found.n != one.n:
        raise damaged(file, "is another stream")
    return found


def add(run: Path, one: Measured, columns: Positions, tokens: Stream) -> Measured:
    """Store what was measured, in the place of what the same variant had under the protocol before; returns
    it with the hashes of its files."""
    with disk_errors(run):
        data = stream_to_parquet(tokens)
        sums = {STREAM: hashlib.sha256(data).hexdigest()}
        if not holds(_stream_file(run, one.stream), sums[STREAM]):
            write_atomic(_stream_file(run, one.stream), data)
        data = positions_to_parquet(columns)
        one = replace(one, files={**sums, POSITIONS: hashlib.sha256(data).hexdigest()})
        before = [old for old in measured(run) if _place(old) == _place(one)]
        with _appearing(run / FOLDER, one.key) as folder:
            write_atomic(folder / POSITIONS, data)
            write_atomic(folder / HEADER, summed(one))
        for old in before:
            if old.key != one.key:
                shutil.rmtree(inside(run / FOLDER, old.key), ignore_errors=True)
        for folder in _damaged_of(run, one):
            shutil.rmtree(folder, ignore_errors=True)
    return one


def _damaged_of(run: Path, one: Measured) -> list[Path]:
    """The directories whose damaged headers still say that they are of what `one` now takes the place of."""
    broken = [file for file in _headers(run) if isinstance(_header(file), QevalError)]
    return [file.parent for file in broken if _place_told(file) == _place(one)]


def _place_told(file: Path) -> tuple[str, str, str] | None:
    """What a damaged header says that it is of; None where that cannot be told."""
    try:
        told = json.JSONDecoder().raw_decode(reading.content(file).decode(errors="replace"))[0]
        return told["protocol"]["name"], told["variant"], told["role"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError, QevalError):
        return None


def _place(one: Measured) -> tuple[str, str, str]:
    return one.protocol.name, one.variant, one.role


def _stream_file(run: Path, sha256: str) -> Path:
    return inside(run / FOLDER / "streams", f"{sha256}.parquet")


@contextlib.contextmanager
def _appearing(root: Path, key: str) -> Iterator[Path]:
    """A directory that takes the place of `key` by one rename at the end."""
    root.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=root, prefix=f".{key[:8]}."))
    folder.chmod(0o755)
    old = folder.with_name(f"{folder.name}.old")
    try:
        yield folder
        if (root / key).exists():
            (root / key).rename(old)
        folder.rename(root / key)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
