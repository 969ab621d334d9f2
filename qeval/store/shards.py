"""Answers that workers of one variant share: a file for each finished shard, a lock for each that is at work.

    <runs>/<run id>/shards/<variant>/<digest>/<n>.shard   the answers of shard n, with a checksum
    <runs>/<run id>/shards/<variant>/<digest>/<n>.tries   a byte for each worker that began it
    <runs>/<run id>/shards/<variant>/<digest>/lock        byte n is locked by the worker that is at shard n
    <runs>/<run id>/shards/<variant>/<digest>/<n>.1.lease instead, on several machines (`store.leases`)

The digest is of everything that can change the answers, and of the requests. A lock goes with the process
that holds it, however that ends. Once the cells are stored the folder is removed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from pathlib import Path

import msgspec

from qeval.base import reading
from qeval.base.files import disk_errors, write_atomic
from qeval.store.leases import Leases

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
"""What a file system answers that knows no locks, or whose server has none to give."""
TRIES = 3
"""Workers that may die of one shard."""
_SUM = hashlib.sha256().digest_size


class Answered(msgspec.Struct, frozen=True):
    """The answers of a shard called `name`, which was fed in pieces of at most `size`, `tokens` in all.

    `requests` are int64 and `log_likelihoods` float64, as bytes; `greedy` is a byte each.
    """

    name: str
    size: int
    tokens: int
    requests: bytes
    log_likelihoods: bytes
    greedy: bytes


class Shards:
    """The shards of one list of requests, by their numbers. `helps`: whoever opens this leaves to others
    what they are at, and begins at the end. `leases` take the place of locks, which end at a machine."""

    def __init__(self, folder: Path, *, helps: bool, leases: Leases | None = None) -> None:
        self.folder, self.helps, self.leases = folder, helps, leases
        self._lock: int | None = None
        self._mine: set[int] = set()

    def read(self, number: int, name: str) -> Answered | None:
        """The answers of a finished shard; None where there are none, or those of another shard."""
        try:
            data = reading.content(self._file(number), None)
            found = msgspec.msgpack.decode(data[_SUM:], type=Answered)
        except (OSError, msgspec.MsgspecError):
            return None
        whole = hashlib.sha256(data[_SUM:]).digest() == data[:_SUM]
        return found if whole and found.name == name else None

    def take(self, number: int) -> bool:
        """Whether the shard is this process's from now on; it is not while another is at it."""
        if self.leases is not None:
            taken = self.leases.take(self._place(number))
            self._mine |= {number} if taken else set()
            return taken
        import fcntl

        try:
            fcntl.lockf(self._opened(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
        except (BlockingIOError, PermissionError):
            return False
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise  # else it is anybody's: what two workers score is the same file
        self._mine.add(number)
        return True

    def is_suspect(self, number: int) -> bool:
        """Whether somebody who had begun a shard, which was taken now, did not come back."""
        if self.leases is not None:
            return bool(self.leases.dead(self._place(number)))
        tries = self._file(number).with_suffix(".tries")
        return tries.exists() and tries.stat().st_size > 0

    def begin(self, number: int) -> bool:
        """Count a try at a shard that was taken; whether it did not kill too many workers before."""
        if self.leases is not None:
            return len(self.leases.dead(self._place(number))) < TRIES
        with disk_errors(self.folder):
            file = self._file(number).with_suffix(".tries")
            if file.exists() and file.stat().st_size >= TRIES:
                self._mine.discard(number)  # the count stays
                return False
            with file.open("ab") as tries:
                tries.write(b".")
        return True

    def write(self, number: int, answered: Answered) -> None:
        """Keep the answers of a shard."""
        data = msgspec.msgpack.encode(answered)
        with disk_errors(self.folder):
            write_atomic(self._file(number), hashlib.sha256(data).digest() + data)

    def leave(self, number: int) -> None:
        """A shard that was taken did not kill this process; it is anybody's again."""
        self._mine.discard(number)
        if self.leases is not None:
            self.leases.leave(self._place(number))
            return
        import fcntl

        self._file(number).with_suffix(".tries").unlink(missing_ok=True)
        if self._lock is not None:
            with contextlib.suppress(OSError):  # where there are no locks
                fcntl.lockf(self._lock, fcntl.LOCK_UN, 1, number)

    def close(self) -> None:
        """Leave what was taken."""
        for number in list(self._mine):
            self.leave(number)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _opened(self) -> int:
        if self._lock is None:
            with disk_errors(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        return self._lock

    def _place(self, number: int) -> Path:
        return self.folder / str(number)

    def _file(self, number: int) -> Path:
        return self.folder / f"{number}.shard"


def forget_tries(folder: Path) -> None:
    """Count anew what shards below a variant's folder do to workers: those of an earlier command were also
    ended by whoever stopped it."""
    for kind in ("tries", "lease"):
        for file in folder.glob(f"*/*.{kind}"):
            file.unlink(missing_ok=True)
