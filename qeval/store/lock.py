"""One command at a time for a run: a file in its directory says whose it is.

On its own machine a holder is looked for by its process; of other machines, and of other containers, a holder
is known by the time of its file, which it renews, by the clock of whoever keeps the files.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec

from qeval.base import reading
from qeval.base.errors import QevalError
from qeval.base.files import disk_errors, remove_begun
from qeval.store.leases import MOST_SECONDS, SECONDS, machine
from qeval.store.work import PLAN_FILE

LOCK_FILE = ".lock"
_BEATS = 8
"""How often a holder renews its file within the time after which it is taken for dead elsewhere."""


class LockedError(QevalError):
    """Another command is at work on the run."""


class Holder(msgspec.Struct, frozen=True):
    """A process, by when it began too, for numbers are used again, in seconds since its machine did, so that
    no clock that is set matters. `machine` tells containers apart; `mark` is of this very hold; `seconds`
    after its last sign of life it is dead, 0: it gives none, as those of older versions."""

    pid: int
    host: str
    began: float
    machine: str = ""
    mark: str = ""
    seconds: float = 0.0


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Within it, the run in `folder` is this process's; what killed ones had begun to write there is removed.

    Raises QevalError where another command is at work on it. What a dead process left is taken away.
    """
    file, mine = folder / LOCK_FILE, _self()
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            while not _made(file, mine):
                holder = _holder(file)
                if holder == mine:
                    break  # NFS sends `link` twice, and answers that the file is there
                if holder is not None and _lives(holder, file):
                    raise _refusal(holder, file)
                _take_away(file, holder)
    over = threading.Event()
    renewing = threading.Thread(target=_renew, args=(file, mine, over), daemon=True)
    try:
        renewing.start()
        if not (folder / "work" / PLAN_FILE).exists():  # else workers of other machines may be writing there
            remove_begun(folder)
        yield
    finally:
        over.set()
        if _holder(file) == mine:  # not another's, where a person deleted ours
            file.unlink(missing_ok=True)


def is_held(folder: Path) -> bool:
    """Whether a command is at work on the run in `folder`. Raises OSError where that cannot be told."""
    holder = _holder(folder / LOCK_FILE)
    return holder is not None and _lives(holder, folder / LOCK_FILE)


def _renew(file: Path, mine: Holder, over: threading.Event) -> None:
    """Show others that this process lives, until it is over."""
    while not over.wait(mine.seconds / _BEATS):
        _touch(file, mine)


def _touch(file: Path, mine: Holder) -> None:
    with contextlib.suppress(OSError):
        if _holder(file) == mine:
            os.utime(file)


def _take_away(file: Path, dead: Holder | None) -> None:
    """Remove a dead holder's lock. Where another command was quicker, and this is its lock by now, it is put
    back."""
    if file.is_dir():
        file.rmdir()
        return
    aside = file.with_name(f"{LOCK_FILE}.{uuid.uuid4().hex[:8]}")
    with contextlib.suppress(FileNotFoundError):
        file.rename(aside)
        if _holder(aside) != dead:
            with contextlib.suppress(FileExistsError):
                os.link(aside, file)
        aside.unlink()


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


def _made(file: Path, mine: Holder) -> bool:
    """Whether the lock was made, whole from the start; not where there is one."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f"{LOCK_FILE}.")
    try:
        with os.fdopen(handle, "wb") as opened:
            opened.write(msgspec.json.encode(mine))
        os.link(name, file)
    except (FileExistsError, FileNotFoundError):  # another's; or the other just cleared up, ours included
        return False
    finally:
        Path(name).unlink(missing_ok=True)
    return True


def _self() -> Holder:
    began = _began(os.getpid()) or 0.0
    return Holder(os.getpid(), socket.gethostname(), began, machine(), uuid.uuid4().hex, SECONDS)


def _holder(file: Path) -> Holder | None:
    """Whose a lock is; None where it is gone or unreadable."""
    try:
        return msgspec.json.decode(reading.content(file), type=Holder)
    except (OSError, msgspec.MsgspecError):
        return None


def _lives(holder: Holder, file: Path) -> bool:
    """Whether a process is there still, as far as this machine can tell."""
    same_host = holder.host == socket.gethostname()
    if same_host and holder.machine == machine():
        return _began(holder.pid) == holder.began
    if holder.seconds:
        return holder.seconds <= MOST_SECONDS and not _is_silent(file, holder.seconds)
    return not (same_host and _created(holder.pid) != holder.began)  # an older version's


def _is_silent(file: Path, seconds: float) -> bool:
    """Whether a lock was not renewed for so long, by the clock that its times are of."""
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=f"{LOCK_FILE}.") as probe:
        probe.write(b".")
        probe.flush()
        os.fsync(probe.fileno())
        now = Path(probe.name).stat().st_mtime
    try:
        return now - file.stat().st_mtime >= seconds
    except FileNotFoundError:
        return True


_STARTED = 19
"""Where the kernel tells when a process began, behind its name, in ticks since the machine did (proc(5))."""


def _began(pid: int) -> float | None:
    """When a process of this machine began, by a clock that nobody sets where there is one; None where there
    is none."""
    try:
        told = reading.text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
        return int(told[_STARTED]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return _created(pid)


def _created(pid: int) -> float | None:
    """When a process began, in seconds since 1970, by a clock that may have been set since."""
    import psutil  # type: ignore[import-untyped]  # comes with accelerate

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return None


def _refusal(holder: Holder, file: Path) -> LockedError:
    here = holder.host == socket.gethostname() and holder.machine in {"", machine()}
    where = "" if here else f" on {holder.host}"
    gone = f"delete {file}" if not holder.seconds else f"try again in {holder.seconds:.0f} s"
    remedy = "Wait for it, or stop it." if here else f"Wait for it; if it is gone, {gone}."
    return LockedError(
        f"Another qeval command is at work on {file.parent.name}: process {holder.pid}{where}.", remedy
    )
