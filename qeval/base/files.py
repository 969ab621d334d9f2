"""Files and directories that appear whole or not at all, and what to say when the disk refuses."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from qeval.base.errors import QevalError

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_IN_THE_WAY = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY}


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write below `path` into one sentence and a remedy."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise QevalError(
                f"The disk that holds {path} is full.",
                "Free some space and run the same command again: what is finished is kept.",
            ) from error
        if isinstance(error, PermissionError) or error.errno == errno.EROFS:
            raise QevalError(f"{path} cannot be written.", "Name another place with --runs-dir.") from error
        named = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else path
        if error.errno in _IN_THE_WAY and path in named.parents:
            raise QevalError(
                f"{named} cannot be used: {error.strerror}.", "Move away what is there, and run it again."
            ) from error
        raise QevalError(f"{path} cannot be used: {error.strerror}.", "Name another place.") from error


def is_full(error: Exception) -> bool:
    """Whether an error says that there is no space left; libraries in Rust tell it in their text alone."""
    told = error.errno in _NO_SPACE if isinstance(error, OSError) else False
    return told or any(f"(os error {number})" in str(error) for number in _NO_SPACE)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old one or the whole new one, even after a power cut. An empty
    directory in its place gives way; one that holds something is an OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(_mode(path))
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _remove_left_over(path)


_UMASK = os.umask(0o077)  # asked for once, where no other thread makes a file
os.umask(_UMASK)


def shared(folder: Path) -> None:
    """Let a directory that was made for one person alone be as open as any that is made here."""
    folder.chmod(0o777 & ~_UMASK)


def _mode(path: Path) -> int:
    """What a file at `path` may be read and written by: what held for it before, or for any that is new."""
    with contextlib.suppress(OSError):
        found = path.stat()
        if stat.S_ISREG(found.st_mode):
            return stat.S_IMODE(found.st_mode) | stat.S_IRUSR | stat.S_IWUSR  # else it would stay unreadable
    return 0o666 & ~_UMASK


_STALE_SECONDS = 600.0
"""Far more than a file server that is busy takes to put a file on its disk."""
_RANDOM = "[a-z0-9_]{8}"
"""What tempfile makes names different by."""
_TEMPORARY = re.compile(
    r"\.(?:lock|(?:run|cell|made-of|verified)\.json|(?:samples|[0-9a-f]{64})\.parquet|\d+\.shard)"
    rf"\.(?:{_RANDOM}|\d+)|\.[0-9a-f]{{8}}\.{_RANDOM}(?:\.damaged)?"
)
"""The names of what is only there while a store is written to."""


def _remove_left_over(path: Path) -> None:
    """Remove what a process that was killed had begun of this file, ten minutes ago or more: whoever writes
    now is quicker. The time is that of this file, for machines that share a disk may have other clocks."""
    begun = re.compile(rf"\.{re.escape(path.name)}\.{_RANDOM}")
    with contextlib.suppress(OSError), os.scandir(path.parent) as found:
        now = path.stat().st_mtime
        for other in found:
            with contextlib.suppress(OSError):  # its writer was done with it
                if begun.fullmatch(other.name) and other.stat().st_mtime < now - _STALE_SECONDS:
                    Path(other).unlink()


def remove_begun(folder: Path) -> None:
    """Remove what killed processes had begun below a folder of the store that nobody else writes to; a worker
    whose command was killed may still end there, and what it takes away meanwhile is passed over."""
    for place, folders, names in os.walk(folder):
        begun = [name for name in (*folders, *names) if _TEMPORARY.fullmatch(name)]
        folders[:] = [name for name in folders if name not in begun]
        for name in begun:
            remove(Path(place, name))


def remove(path: Path) -> None:
    """Remove a file, a link or a directory with all that is in it; what cannot be removed stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def changed(file: Path) -> int | None:
    """When a regular file was changed, in nanoseconds; None where there is none, 1 where nobody may look."""
    try:
        found = file.stat()
    except PermissionError:
        return 1
    except OSError:
        return None
    return max(found.st_mtime_ns, 1) if stat.S_ISREG(found.st_mode) else None


def link_or_copy(source: Path, target: Path) -> None:
    """Have a file at `target` too, in the place of whatever is there but a directory that holds something."""
    if target.is_dir() and not target.is_symlink():
        target.rmdir()
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")  # of this very call
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
    temporary.replace(target)


def write_text(path: Path, text: str) -> None:
    """Write a report whole or not at all, as UTF-8. Raises what `write_bytes` raises."""
    write_bytes(path, text.encode("utf-8", "replace"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write what a person asked for to the place that was named, directories above it made where they are
    missing: a file whole or not at all, first beside its place and then moved there; a link's target, not the
    link; a device or a FIFO written through and left what it is.

    Raises:
        QevalError: the place cannot be written, `path` is a directory, or nobody reads the FIFO.
    """
    if path.is_dir():
        raise QevalError(f"{path} is a directory.", "Name a file, for example report.html in it.")
    try:
        open_already = path.is_absolute() and path.parts[1:2] in {("dev",), ("proc",)}  # /dev/stdout, a file
        if path.exists() and (open_already or not path.is_file()):
            _write_through(path, data)
        else:
            write_atomic(path.resolve(), data)
    except (OSError, RuntimeError) as error:  # a circle of links is a RuntimeError before Python 3.13
        raise _unwritable(path, error) from error


def _write_through(path: Path, data: bytes) -> None:
    """Write to what is no plain file. A FIFO that nobody reads is an error, where opening it would wait."""
    handle = os.open(path, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))
    os.set_blocking(handle, True)
    with os.fdopen(handle, "wb", buffering=0) as file:
        left = memoryview(data)
        while left:
            left = left[file.write(left) :]


def _unwritable(path: Path, error: OSError | RuntimeError) -> QevalError:
    if isinstance(error, OSError) and error.errno == errno.ENXIO:
        return QevalError(f"Nothing reads from {path}.", "Start the reader first, or name a file.")
    why = getattr(error, "strerror", None) or "it cannot be written"
    return QevalError(
        f"{path} cannot be written: {why}.", "Name another place with -o, or free some space there."
    )


def build_directory(target: Path, build: Callable[[Path], None]) -> Path:
    """`target`, made by `build` in a directory beside it and renamed when complete, if it is not there.

    Of several processes one builds and the others wait; what a killed one left behind is removed by the
    next. Raises QevalError where the place cannot be written to or is full.
    """
    if target.is_dir():
        return target
    from filelock import FileLock  # a dependency of huggingface_hub; needed only where something is built

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f".{target.name}.lock")):
            if not target.is_dir():
                _build(target, build)
    except OSError as error:
        raise QevalError(
            f"{target.parent} cannot be written to: {error.strerror or error}.",
            "Free some space there, or name another cache directory.",
        ) from error
    return target


def _build(target: Path, build: Callable[[Path], None]) -> None:
    prefix = f".{target.name}.partial-"
    for leftover in target.parent.glob(f"{prefix}*"):  # we hold the lock, so nobody is writing to it
        shutil.rmtree(leftover, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        build(partial)
        shared(partial)
        partial.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
