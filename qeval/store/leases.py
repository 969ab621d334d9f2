"""Leases: who is at what, told by files that several machines see, with a time-out for those who die.

    <run>/work/holders/<name>.json   a process that holds leases; written anew every few seconds
    <place>.1.lease, .2.lease ...    the holders of one thing, in turn; the last one has it

Nothing is locked, so that any file system will do that has `link`, `rename` and one clock of its own. A lease
is made by a hard link, which succeeds for one of many. It is never deleted and never taken away: who finds
that the last holder has died makes the next number, which again succeeds for one. How many died of a thing
can so be counted. A holder that was only held up goes on unaware; what it computes is the same, and nothing
in the store suffers from being written twice.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from qeval.base import reading
from qeval.base.files import disk_errors, write_atomic

SECONDS = 120.0
"""After which a holder that says nothing is taken for dead. NFS may show a file to others a minute late."""
_BEATS = 8
"""How often a holder says that it lives within that time."""
MOST_SECONDS = 24 * 3600.0
"""No holder is silent for longer and lives: what says so of itself is damaged."""
_CLOCK_SECONDS = 60.0

State = Literal["at work", "stopped", "died"]


class Holder(msgspec.Struct, frozen=True):
    """A process that holds leases: where it runs (`machine` tells containers of one host apart), how far it
    has come, and how it ended. `first` and `spent` are seconds: until its first requests were answered, and
    since then. `kept` are the results that it has kept, each by the mark of its plan and its variant."""

    name: str
    host: str
    machine: str
    pid: int
    seconds: float = SECONDS
    state: State = "at work"
    variant: str = ""
    part: str = ""
    task: str = ""
    total: int = 0
    done: int = 0
    taken: int = 0
    first: float | None = None
    spent: float = 0.0
    kept: tuple[tuple[str, str], ...] = ()


class _Held(msgspec.Struct, frozen=True):
    """A lease: whose it is, and whether that one has left what it holds in good order."""

    holder: str
    left: bool = False


class Holders:
    """All who hold leases of a run, in `folder`, as they tell of themselves there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ahead: tuple[float, float] | None = None

    def write(self, holder: Holder) -> None:
        """Tell of oneself, and that one lives. Raises QevalError where the disk refuses."""
        with disk_errors(self.folder):
            write_atomic(self._file(holder.name), msgspec.json.encode(holder))

    def read(self, name: str) -> Holder | None:
        """What a holder told last; None where there is none of that name, or it is damaged."""
        try:
            holder = msgspec.json.decode(_content(self._file(name)), type=Holder)
        except (OSError, msgspec.MsgspecError):
            return None
        return holder if holder.seconds <= MOST_SECONDS else None

    def forget(self, name: str) -> None:
        """Nothing is known any more of a holder that has ended."""
        self._file(name).unlink(missing_ok=True)

    def state(self, name: str) -> State:
        """How a holder is: "died" too where it has not been heard of for too long."""
        holder = self.read(name)
        if holder is None:
            return "died"
        return "died" if holder.state == "at work" and not self._lives(holder) else holder.state

    def at_work(self) -> list[Holder]:
        """Those that live."""
        return [one for one in self._all() if one.state == "at work" and self._lives(one)]

    def kept(self, mark: str) -> set[str]:
        """The variants of whose results holders say that they kept them, by the plan of this mark."""
        return {name for one in self._all() for of, name in one.kept if of == mark}

    def _all(self) -> list[Holder]:
        names: list[str] = []
        with contextlib.suppress(FileNotFoundError):  # all may be forgotten while this looks
            names = sorted(file.stem for file in self.folder.glob("*.json"))
        return list(filter(None, map(self.read, names)))

    def _lives(self, holder: Holder) -> bool:
        if holder.machine == machine() and not _there(holder.pid):
            return False
        return self.silent(holder) < holder.seconds

    def silent(self, holder: Holder) -> float:
        """For how many seconds a holder has not been heard of; without end where its file is gone."""
        try:
            told = self._file(holder.name).stat().st_mtime
        except OSError:
            return math.inf
        return max(0.0, self._now() - told)

    def _now(self) -> float:
        """The time by the clock of whoever keeps the files: those of machines differ."""
        if self._ahead is None or time.monotonic() - self._ahead[1] > _CLOCK_SECONDS:
            with disk_errors(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".clock.") as file:
                    file.write(b".")
                    file.flush()
                    os.fsync(file.fileno())
                    self._ahead = (Path(file.name).stat().st_mtime, time.monotonic())
        return self._ahead[0] + time.monotonic() - self._ahead[1]

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.json"


class Leases:
    """The leases of the holder called `name`, among all `holders`."""

    def __init__(self, holders: Holders, name: str) -> None:
        self.holders, self.name = holders, name

    def take(self, place: Path) -> bool:
        """Whether what `place` stands for is this holder's from now on; it is not while another one lives."""
        number, last = _last(place)
        if last is not None and not last.left:
            if last.holder == self.name:
                return True
            if self.holders.state(last.holder) == "at work":
                return False
        return _made(_file(place, number + 1), _Held(self.name))

    def leave(self, place: Path) -> None:
        """What this holder has is anybody's again, and did it no harm."""
        number, last = _last(place)
        if last is not None and last.holder == self.name:
            with disk_errors(place.parent):
                write_atomic(_file(place, number), msgspec.json.encode(_Held(self.name, left=True)))

    def dead(self, place: Path) -> list[Holder | None]:
        """Those who died of it, or at it; None for one of whom nothing is known."""
        found = []
        for number in range(1, _last(place)[0] + 1):
            held = _read(_file(place, number))
            if held is not None and not held.left and self.holders.state(held.holder) == "died":
                found.append(self.holders.read(held.holder))
        return found


def holder_of(holders: Holders, place: Path) -> Holder | None:
    """Who has what `place` stands for now, and lives."""
    last = _last(place)[1]
    if last is None or last.left or holders.state(last.holder) != "at work":
        return None
    return holders.read(last.holder)


def _last(place: Path) -> tuple[int, _Held | None]:
    """The number of the last lease, 0 for none, and what it says; what cannot be read was never finished by a
    holder that lives, for it appears whole."""
    number = 0
    while _file(place, number + 1).exists():
        number += 1
    return number, _read(_file(place, number)) if number else None


def _read(file: Path) -> _Held | None:
    try:
        return msgspec.json.decode(_content(file), type=_Held)
    except (OSError, msgspec.MsgspecError):
        return None


def _content(file: Path) -> bytes:
    """What a file holds. On NFS, one that is replaced while it is read is stale; then it is opened anew, lest
    whoever renews it seem dead."""
    for _ in range(_BEATS):
        try:
            return reading.content(file)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
    return reading.content(file)


def _file(place: Path, number: int) -> Path:
    return place.with_name(f"{place.name}.{number}.lease")


def _made(file: Path, held: _Held) -> bool:
    """Whether the file was made, whole from the start; not where another one was quicker."""
    with disk_errors(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=".lease.")
        try:
            with os.fdopen(handle, "wb") as opened:
                opened.write(msgspec.json.encode(held))
            with contextlib.suppress(FileExistsError):
                os.link(name, file)
            # NFS may send `link` twice and answer that the file is there: the count of names tells.
            return Path(name).stat().st_nlink > 1
        finally:
            Path(name).unlink()


# --- whoever keeps a holder alive


class Beating:
    """A holder that is heard of as long as this is open; `tell` changes what it says of itself."""

    def __init__(
        self, holders: Holders, seconds: float = SECONDS, name: str | None = None, **told: str
    ) -> None:
        name = name or f"{_word(socket.gethostname())}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self.holders = holders
        here = Holder(name, socket.gethostname(), machine(), os.getpid(), seconds)
        self.holder = msgspec.structs.replace(here, **told)
        self._guard, self._over = threading.Lock(), threading.Event()
        self._pen = threading.Lock()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def tell(self, *, now: bool = False, **told: object) -> None:
        """Say this from the next beat on, or at once."""
        with self._guard:
            self.holder = msgspec.structs.replace(self.holder, **told)
        if now:
            self._write()

    def end(self, state: State) -> None:
        """The holder has ended so; it is told at once."""
        self._over.set()
        self._thread.join()
        self.tell(state=state, now=True)

    def _beat(self) -> None:
        while not self._over.wait(self.holder.seconds / _BEATS):
            with contextlib.suppress(Exception):  # a disk that is full now may not be the next time
                self._write()

    def _write(self) -> None:
        """Write what is known now: one after the other, so that nothing older comes after it."""
        with self._pen:
            with self._guard:
                holder = self.holder
            self.holders.write(holder)

    def begin(self) -> None:
        """Be heard of from now on. Raises QevalError where the disk refuses."""
        self.holders.write(self.holder)
        self._thread.start()


@contextlib.contextmanager
def beating(holders: Holders, seconds: float = SECONDS, **told: str) -> Iterator[Beating]:
    """A holder of leases that lives within this; what raises has stopped it, and it did not die of work."""
    one = Beating(holders, seconds, None, **told)
    one.begin()
    try:
        yield one
    finally:
        if one.holder.state == "at work":
            one.end("stopped")


def machine() -> str:
    """What tells machines and containers apart whose processes have numbers of their own."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(reading.text(Path("/proc/sys/kernel/random/boot_id")).strip()[:8])
        parts.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    return "/".join(parts)


def _there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _word(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in text)[:40] or "host"
