"""A job carried out on another machine: what is done there, line by line, whoever brings the lines home."""

from __future__ import annotations

import contextlib
import queue
import shutil
import socket
import tempfile
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec

from qeval.base import reading
from qeval.base.errors import QevalError
from qeval.base.files import disk_errors, write_atomic
from qeval.base.messages import Event, Failed, Finished, Job
from qeval.base.places import cache_dir, tasks_dir
from qeval.base.records import Cell
from qeval.run.versions import check_same
from qeval.run.workers import end
from qeval.store.leases import SECONDS, Beating, Holders
from qeval.store.runs import CELL_FILE, ITEMS_FILE, RunDir
from qeval.store.work import Work

MARK_FILE = "mark"
_marking = threading.Lock()
_LOOK_SECONDS = 0.2


class Sent(msgspec.Struct, frozen=True):
    """A job on its way. `mark` is what its run's folder `work` holds, where the store is shared; else `files`
    are those of the run that it needs, by their place in its directory. `gpus`: how many it was given."""

    job: Job
    versions: dict[str, str]
    mark: str = ""
    files: dict[str, bytes] = {}
    gpus: int = 0


class Said(msgspec.Struct, frozen=True):
    """What comes back: an event, the files that belong to it, and what was printed, where the store is not
    shared."""

    event: Event | None = None
    files: dict[str, bytes] = {}
    log: bytes = b""


def carry_out(sent: bytes) -> Iterator[bytes]:
    """Score the job of a Sent on this machine, and say what happens, each time a Said, in msgpack.

    What is raised into it, and closing it, ends the process that scores first. Raises nothing itself: what is
    wrong with this machine is a Failed event.
    """
    given = msgspec.msgpack.decode(sent, type=Sent)
    try:
        check_same(given.versions)
        if given.mark:
            yield from _in_the_store(given)
        else:
            yield from _in_a_store_of_its_own(given)
    except QevalError as error:
        yield _said(placed(Failed(error.message, error.hint)))


def _in_the_store(given: Sent) -> Iterator[bytes]:
    job = given.job
    place = RunDir(Path(job.runs_dir) / job.run_id)
    try:
        seen = reading.text(place.work / MARK_FILE) == given.mark
    except OSError:
        seen = False
    if not seen:
        raise QevalError(
            f"{socket.gethostname()} does not see the run in {place.path}.",
            "Name a --runs-dir on a file system that all nodes share, or add --no-shared-store.",
        )
    beat = Beating(Work(place.work).holders, SECONDS, job.holder, variant=job.variant.name, part=job.part)
    beat.begin()
    try:
        for event in _events(_here(job, given.gpus)):
            yield _said(event)
            if isinstance(event, Failed) and event.lost in {"process", "gpu"}:
                beat.end("died")
    finally:
        if beat.holder.state == "at work":
            beat.end("stopped")


def _in_a_store_of_its_own(given: Sent) -> Iterator[bytes]:
    with _folder() as folder:
        place = RunDir(folder / given.job.run_id)
        unpack(given.files, place.path)
        log = place.log(given.job.variant.name)
        job = msgspec.structs.replace(given.job, runs_dir=str(folder), log=str(log), part="whole", holder="")
        for event in _events(_here(job, given.gpus)):
            files = pack(place, event.cell) if isinstance(event, Finished) else {}
            yield _said(event, files)
        yield msgspec.msgpack.encode(Said(log=_content(log)))


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A folder that is removed again. Raises QevalError where there is no room for one."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="qeval-"))
    except OSError as error:
        raise QevalError(
            f"{socket.gethostname()} has no room for temporary files: {error.strerror}.",
            "Free some space, or set TMPDIR.",
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _here(job: Job, gpus: int) -> Job:
    """The job as it is done on this machine: with the GPUs that it was given, or with the run's threads."""
    on_gpu = gpus > 0
    settings, environment = job.settings, dict(job.environment)
    if on_gpu:
        settings = replace(settings, device="cuda:0")
    else:
        environment["OMP_NUM_THREADS"] = str(job.threads or 1)
    return msgspec.structs.replace(
        job,
        settings=settings,
        environment=environment,
        threads=None if on_gpu else job.threads,
        tasks_dir=str(tasks_dir()),
        cache_dir=str(cache_dir()),
    )


def _events(job: Job) -> Iterator[Event]:
    """The events of a job, as they come; whoever is told of an exception meanwhile ends its process."""
    from qeval.run.executors import local  # whose neighbours import this module

    told: queue.SimpleQueue[Event | None] = queue.SimpleQueue()

    def follow() -> None:
        try:
            local.execute(job, told.put)
        finally:
            told.put(None)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        while True:
            with contextlib.suppress(queue.Empty):  # an exception is raised in between only
                event = told.get(timeout=_LOOK_SECONDS)
                if event is None:
                    return
                yield placed(event)
    finally:
        while thread.is_alive():
            end(lambda one: one == job)
            thread.join(_LOOK_SECONDS)


def placed(event: Event) -> Event:
    """A failure tells at its end on which machine it was; how it begins is known to others."""
    where = socket.gethostname()
    if isinstance(event, Failed) and where not in event.message.split():
        return msgspec.structs.replace(event, hint=f"{event.hint} That was on {where}.".strip())
    return event


def _said(event: Event, files: dict[str, bytes] | None = None) -> bytes:
    return msgspec.msgpack.encode(Said(event, files or {}))


# --- what travels where no store is shared


def pack(place: RunDir, *cells: Cell) -> dict[str, bytes]:
    """The files of cells, by their place in the run's directory."""
    found = {}
    for cell in cells:
        folder = place.path / "cells" / cell.key
        items = place.path / "items" / f"{cell.files.get(ITEMS_FILE, '')}.parquet"
        for file in (*folder.glob("*"), items):
            if file.is_file():
                found[str(file.relative_to(place.path))] = _content(file)
    return found


def unpack(files: dict[str, bytes], folder: Path) -> None:
    """Write files to their places in a folder, a cell's header last. Raises QevalError for a name that leads
    out of it, and where the disk refuses."""
    for name in sorted(files, key=lambda name: name.endswith(CELL_FILE)):
        parts = Path(name).parts
        if Path(name).is_absolute() or ".." in parts:
            raise QevalError(
                f"A worker sent a file called {name!r}.", "Look at the machine that it came from."
            )
        with disk_errors(folder):
            write_atomic(folder / name, files[name])


def _content(file: Path) -> bytes:
    with contextlib.suppress(OSError):
        return reading.content(file, None)
    return b""


def marked(place: RunDir) -> str:
    """The mark in a run by which other machines see that it is the same; drawn where there is none yet."""
    with _marking:
        try:
            return reading.text(place.work / MARK_FILE)
        except OSError:
            drawn = uuid.uuid4().hex
            with disk_errors(place.work):
                write_atomic(place.work / MARK_FILE, drawn.encode())
            return drawn


def lost(place: RunDir, holder: str) -> None:
    """A holder is known to be gone, with its machine: what it has is anybody's at once."""
    holders: Holders = Work(place.work).holders
    known = holders.read(holder)
    if known is not None and known.state == "at work":
        holders.write(msgspec.structs.replace(known, state="died"))
