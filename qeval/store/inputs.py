"""What enters a baseline's head, kept for its variants to be compared with; torch is not needed to look after
it.

    <cache>/fidelity/<key>/inputs.bin         the states, position after position, as they lie in memory
    <cache>/fidelity/<key>/head.safetensors   the head's weights
    <cache>/fidelity/<key>/stream.parquet     the tokens
    <cache>/fidelity/<key>/kept.json          what they are, with the hash of each file and of itself

The key is the hash of everything that can change the states. An entry appears whole or not at all, a damaged
one counts as missing, and where a limit is set the one that was longest unused gives way.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from qeval.base import contents, numbers, places, reading, uses
from qeval.base.errors import QevalError
from qeval.base.fidelity import Stream
from qeval.base.files import build_directory, disk_errors, write_atomic
from qeval.store.positions import stream_from_parquet

FOLDER = places.INPUTS
STATES, HEAD, STREAM, HEADER = "inputs.bin", "head.safetensors", "stream.parquet", "kept.json"
LIMIT = 64 << 30
"""The most bytes that all entries take, where nobody says otherwise."""


class Kept(msgspec.Struct, frozen=True):
    """An entry: `positions` states of `width` numbers of the type `dtype`, of `windows` windows fed `batch`
    at once, of the stream whose hash is `stream`; the head's `vocabulary` after padded rows (`cut`) are left
    out. `proof` holds the log-probabilities of the first window's tokens as the process that made it saw
    them. `head` are the class and the configuration of the model. `files` maps names to SHA-256."""

    key: str
    stream: str
    positions: int
    windows: int
    width: int
    dtype: str
    batch: int
    vocabulary: int
    cut: int
    checked: float
    proof: tuple[float, ...]
    architecture: str
    config: dict[str, Any]
    files: dict[str, str] = {}
    notes: tuple[str, ...] = ()


def folder_of(cache_dir: Path, key: str) -> Path:
    """The directory of an entry."""
    return cache_dir / FOLDER / key[:32]


def find(cache_dir: Path, key: str) -> Kept | None:
    """The entry under a key, None where it is missing, damaged, or holds less than it says. It counts as
    used."""
    folder = folder_of(cache_dir, key)
    uses.hold(folder)
    try:
        told = msgspec.json.decode(reading.content(folder / HEADER), type=dict[str, Any])
        kept = msgspec.convert(told["kept"], Kept)
        names = sorted(kept.files)
        known = contents.hashes([folder / name for name in names], cache_dir)
    except (OSError, ValueError, KeyError, QevalError, msgspec.MsgspecError):
        return None
    whole = told.get("sum") == _sum(kept) and kept.key == key and set(names) == {STATES, HEAD, STREAM}
    if not whole or known != [kept.files[name] for name in names]:
        return None
    os.utime(folder / HEADER)
    return kept


def stream_of(cache_dir: Path, kept: Kept) -> Stream:
    """The stream of an entry, as far as its windows go."""
    return stream_from_parquet(reading.content(folder_of(cache_dir, kept.key) / STREAM, None))


def keep(cache_dir: Path, key: str, build: Callable[[Path], Kept]) -> Kept:
    """The entry that `build` makes in a directory, in the place of a damaged one. Raises QevalError where the
    disk is full."""
    target = folder_of(cache_dir, key)
    uses.hold(target)
    if target.exists() and find(cache_dir, key) is None:
        with disk_errors(target):
            shutil.rmtree(target)

    def make(partial: Path) -> None:
        kept = build(partial)
        files = (STATES, HEAD, STREAM)
        hashes = contents.hashes([partial / name for name in files], None)
        kept = msgspec.structs.replace(kept, key=key, files=dict(zip(files, hashes, strict=True)))
        write_atomic(partial / HEADER, msgspec.json.encode({"sum": _sum(kept), "kept": kept}))

    build_directory(target, make)
    found = find(cache_dir, key)
    if found is None:
        raise QevalError(
            f"The content of {target} changed while it was written.", "Run the same command again."
        )
    return found


def make_room(cache_dir: Path, size: int, limit: int) -> None:
    """Remove entries that nobody uses, the longest unused first, until one of `size` bytes fits the limit.

    Raises QevalError where the disk has less left than that.
    """
    root = cache_dir / FOLDER
    entries = sorted(root.glob(f"*/{HEADER}"), key=lambda file: file.stat().st_mtime)
    sizes = {file.parent: sum(part.stat().st_size for part in file.parent.iterdir()) for file in entries}
    for oldest in list(sizes):
        if sum(sizes.values()) + size <= limit:
            break
        with uses.unused(oldest, oldest.stat().st_mtime) as free:
            if free:
                shutil.rmtree(oldest, ignore_errors=True)
                del sizes[oldest]
    with disk_errors(root):
        root.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(root).free < size:
        raise QevalError(
            f"The disk that holds {root} is full: the baseline's head inputs take"
            f" {numbers.in_bytes(size)} there.",
            "Free some space, name another cache with QEVAL_CACHE_DIR, or set --fidelity-cache-limit.",
        )


def _sum(kept: Kept) -> str:
    return hashlib.sha256(msgspec.json.encode(kept)).hexdigest()
