"""One command at a time for a run: a file in its directory says whose it is."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from qeval.base import reading
from qeval.base.errors import QevalError
from qeval.base.files import disk_errors, remove_begun
from qeval.store.work import PLAN_FILE

LOCK_FILE = ".lock"


class LockedError(QevalError):
    """Another command is at work on the run."""


class Holder(msgspec.Struct, frozen=True):
    """A process, by when it began too, for numbers are used again."""

    pid: int
    host: str
    began: float


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Within it, the run in `folder` is this process's; what killed ones had begun to write there is removed.

    Raises QevalError where another command is at work on it. What a dead process of this machine left is
    taken away; of other machines nothing is known.
    """
    file = folder / LOCK_FILE
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            while not _made(file):
                holder = _holder(file)
                if holder is not None and _lives(holder):
                    raise _refusal(holder, file)
                file.rmdir() if file.is_dir() else file.unlink(missing_ok=True)
    try:
        if not (folder / "work" / PLAN_FILE).exists():  # else workers of other machines may be writing there
            remove_begun(folder)
        yield
    finally:
        if _holder(file) == _self():  # not another's, where a person deleted ours
            file.unlink(missing_ok=True)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Within it no other process of this machine looks at the lock: of two that find a dead one's, the second
    would take away the first one's. The system ends it with the process; not every file system has it, nor
    has Windows."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _made(file: Path) -> bool:
    """Whether the lock was made, whole from the start; not where there is one."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f"{LOCK_FILE}.")
    try:
        with os.fdopen(handle, "wb") as opened:
            opened.write(msgspec.json.encode(_self()))
        os.link(name, file)
    except (FileExistsError, FileNotFoundError):  # another's; or the other just cleared up, ours included
        return False
    finally:
        Path(name).unlink(missing_ok=True)
    return True


def _self() -> Holder:
    return Holder(os.getpid(), socket.gethostname(), _began(os.getpid()) or 0.0)


def _holder(file: Path) -> Holder | None:
    """Whose a lock is; None where it is gone or unreadable."""
    try:
        return msgspec.json.decode(reading.content(file), type=Holder)
    except (OSError, msgspec.MsgspecError):
        return None


def _lives(holder: Holder) -> bool:
    """Whether a process is there still, as far as this machine can tell."""
    return holder.host != socket.gethostname() or _began(holder.pid) == holder.began


def _began(pid: int) -> float | None:
    """When a process of this machine began; None where there is none."""
    import psutil  # type: ignore[import-untyped]  # comes with accelerate

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return None


def _refusal(holder: Holder, file: Path) -> LockedError:
    here = holder.host == socket.gethostname()
    where = "" if here else f" on {holder.host}"
    remedy = "Wait for it, or stop it." if here else f"Wait for it; if it is gone, delete {file}."
    return LockedError(
        f"Another qeval command is at work on {file.parent.name}: process {holder.pid}{where}.", remedy
    )
