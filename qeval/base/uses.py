"""Who uses an entry of the cache: a shared lock beside it, which the system lets go with the process."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

_HELD: dict[str, int] = {}
_WITHOUT_LOCKS = 86_400.0
"""Seconds since its last use in which an entry counts as used, where files cannot be locked."""


def hold(entry: Path) -> None:
    """Say, until this process ends, that it uses an entry or is about to make it; it counts as used now.

    Where a command is removing it, waits until it is gone. Nothing is said where files cannot be locked.
    """
    with contextlib.suppress(OSError):
        os.utime(entry)
    lock = _lock(entry)
    if str(lock) in _HELD:
        return
    with contextlib.suppress(OSError, ImportError):
        import fcntl

        lock.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH)
        except OSError:
            os.close(handle)
            raise
        _HELD[str(lock)] = handle


def is_free(entry: Path, used: float) -> bool:
    """Whether no other process uses an entry at this moment; nothing is written for it."""
    if not _lock(entry).exists():
        return True
    with unused(entry, used) as free:
        return free


@contextlib.contextmanager
def unused(entry: Path, used: float) -> Iterator[bool]:
    """Whether no other process uses an entry; then none begins to within the block. `used` is when it was
    used last, in seconds since 1970; it decides where files cannot be locked."""
    old = time.time() - used > _WITHOUT_LOCKS
    own = _HELD.get(str(_lock(entry)))
    try:
        import fcntl

        handle = os.open(_lock(entry), os.O_RDWR | os.O_CREAT, 0o666) if own is None else own
    except (ImportError, OSError):
        yield old
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except OSError as error:
            free = old and error.errno not in {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}
        yield free
    finally:
        if own is None:
            os.close(handle)
        else:
            with contextlib.suppress(OSError):
                fcntl.flock(own, fcntl.LOCK_SH)


def _lock(entry: Path) -> Path:
    """The file whose lock says it; it stays, empty, for a lock on a file that was removed holds nobody."""
    return entry.with_name(f".{entry.name}.used.lock")
