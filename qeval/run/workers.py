"""A process that scores, followed to its end: what executors share that start one on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import msgspec

from qeval.base.messages import Done, Event, Failed, Fed, Finished, Job, Stopped
from qeval.base.private import withheld
from qeval.base.records import Result
from qeval.base.waiting import briefly

Listener = Callable[[Event], None]
WORKER = (sys.executable, "-m", "qeval.score.worker")
"""The command that scores: a Job on its standard input, Events on its standard output."""
AHEAD = "--ahead"
"""Has the worker import what it will need before it reads its job."""
_GRACE_SECONDS = 10.0
_SHELL_ADDS = 128  # to the number of the signal that its command died of, for an exit code of its own
_CLEARED = frozenset({"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"})
"""What launchers tell one process of many; libraries that inherit it wait for the others."""
_at_work: dict[subprocess.Popen[bytes], Job] = {}
_guard = threading.Lock()
_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


def environment(own: Mapping[str, str]) -> dict[str, str]:
    """The environment of a worker: that of the command, but for what launchers set, and what is its own. Its
    threads wait briefly for one another unless either says otherwise."""
    whole = {name: value for name, value in os.environ.items() if name not in _CLEARED} | dict(own)
    return briefly(whole)


class Waiting:
    """Workers that were started before their jobs are known, for they have much to import, one at most for
    each environment. What they print until then is lost, and they end by themselves when nobody has a job."""

    def __init__(self) -> None:
        self.processes: dict[frozenset[tuple[str, str]], subprocess.Popen[bytes]] = {}

    def start(self, own: Mapping[str, str]) -> None:
        """Start one in this environment, unless one waits there already or none is to be had."""
        if frozenset(own.items()) not in self.processes:
            with contextlib.suppress(OSError):
                self.processes[frozenset(own.items())] = subprocess.Popen(
                    (*WORKER, AHEAD),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env=environment(own),
                )

    def taken(self, own: Mapping[str, str]) -> subprocess.Popen[bytes] | None:
        """The one that waits in this environment, if it is alive; it is the caller's from now on."""
        process = self.processes.pop(frozenset(own.items()), None)
        if process is not None and process.poll() is not None:
            _stop(process)
            return None
        return process

    def stop(self) -> None:
        """End all that wait."""
        while self.processes:
            _stop(self.processes.popitem()[1])


def score_in(
    command: Sequence[str], job: Job, listen: Listener, ready: subprocess.Popen[bytes] | None = None
) -> Result:
    """Start a command that becomes WORKER, or starts it with the same standard input and output, and hand on
    its events as they come; `ready` is such a process that was started ahead.

    Whatever becomes of the process, a crash included, is the Result of this one variant. Where `listen`
    raises, KeyboardInterrupt above all, the process and all that it started are ended first.
    """
    try:
        _log(job).close()  # now it is there
        process = ready or _start(command, job)
    except OSError as error:
        return _fail(job, Failed(f"{command[0]} cannot be started: {error.strerror}."), listen)
    with _guard:
        _at_work[process] = job
    try:
        _send(process, job)
        result = follow(process.stdout or (), job, listen)
        code = process.wait()
    finally:
        with _guard:
            del _at_work[process]
        _stop(process)
    if result.status != "partial":
        return result
    last = f"Its last words are in {job.log}."
    return _fail(job, Failed(_death(code), last, lost="process"), listen, result)


def end(which: Callable[[Job], bool]) -> None:
    """End the processes that `score_in` follows in other threads, and all that they started, whose jobs are
    such; each comes back there as one that died."""
    with _guard:
        found = [process for process, job in _at_work.items() if which(job)]
    _end_families([process.pid for process in found if process.poll() is None])


def follow(lines: Iterable[bytes], job: Job, listen: Listener) -> Result:
    """What a worker's lines add up to; "partial" where they break off before it announced its end.

    A line that is no event, such as what a shell in front of the worker prints, goes to the job's log.
    """
    result = Result(variant=job.variant, status="partial")
    for line in lines:
        event = _event(line)
        if event is None:
            keep_in_log(line, job)
            continue
        result = after(event, result)
        listen(event)
    return result


def _event(line: bytes) -> Event | None:
    """The event of a line; None for other text, and for a line without an end: its writer died in it."""
    if not line.endswith(b"\n"):
        return None
    try:
        return _decoder.decode(line)
    except msgspec.DecodeError:
        return None


def keep_in_log(line: bytes, job: Job) -> None:
    """Write what was printed to the end of the job's log, without secrets."""
    with _log(job) as log:
        log.write(withheld(line.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape"))


def after(event: Event, result: Result) -> Result:
    """The result, once this event has been told."""
    if isinstance(event, Finished):
        return replace(result, cells=(*result.cells, event.cell))
    if isinstance(event, Fed):
        return replace(result, packing=event.packing)
    if isinstance(event, Failed):
        return replace(result, status="failed", error=f"{event.message} {event.hint}".strip())
    if isinstance(event, Stopped):
        return replace(
            result, status="stopped", provenance=event.provenance, error=event.text, stop=event.stop
        )
    if isinstance(event, Done):
        return replace(
            result, status="done", provenance=event.provenance, cost=event.cost, seconds=event.seconds
        )
    return result


def _start(command: Sequence[str], job: Job) -> subprocess.Popen[bytes]:
    with _log(job) as noise:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=noise,
            env=environment(job.environment),
        )


def _log(job: Job) -> BinaryIO:
    """The job's log, open at its end."""
    path = Path(job.log)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("ab")


def _send(process: subprocess.Popen[bytes], job: Job) -> None:
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError), process.stdin:
            process.stdin.write(msgspec.json.encode(job))


def _fail(job: Job, failed: Failed, listen: Listener, result: Result | None = None) -> Result:
    listen(failed)
    return after(failed, result or Result(variant=job.variant, status="partial"))


def _death(code: int) -> str:
    number = -code if code < 0 else code - _SHELL_ADDS
    if number == signal.SIGKILL:
        return "The scoring process was killed, most often because memory ran out."
    if number in set(signal.Signals):
        return f"The scoring process died of {signal.Signals(number).name}."
    return f"The scoring process ended with code {code} before it was done."


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the process and its descendants, gently at first; nothing happens to one that has ended."""
    if process.poll() is None:
        _end_families([process.pid])
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def _end_families(pids: Iterable[int]) -> None:
    import psutil  # type: ignore[import-untyped]

    family = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            parent = psutil.Process(pid)
            family += [*parent.children(recursive=True), parent]
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    for process in psutil.wait_procs(family, _GRACE_SECONDS)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
