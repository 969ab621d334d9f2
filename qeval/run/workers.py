"""A process that scores, followed to its end: what executors share that start one on this machine."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import msgspec

from qeval.base.messages import Done, Event, Failed, Fed, Finished, Job, Stopped
from qeval.base.private import withheld
from qeval.base.records import Result

Listener = Callable[[Event], None]
WORKER = (sys.executable, "-m", "qeval.score.worker")
"""The command that scores: a Job on its standard input, Events on its standard output."""
AHEAD = "--ahead"
"""Has the worker import what it will need before it reads its job."""
_GRACE_SECONDS = 10.0
_SHELL_ADDS = 128  # to the number of the signal that its command died of, for an exit code of its own
_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


class Waiting:
    """A worker that was started before its job is known, for it has much to import. What it prints until then
    is lost, and it ends by itself when nobody has a job for it."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start one, unless one waits already or none is to be had."""
        if self.process is None:
            with contextlib.suppress(OSError):
                self.process = subprocess.Popen(
                    (*WORKER, AHEAD),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                )

    def taken(self) -> subprocess.Popen[bytes] | None:
        """The one that waits, if it is alive; it is the caller's from now on."""
        process, self.process = self.process, None
        if process is not None and process.poll() is not None:
            _stop(process)
            return None
        return process

    def stop(self) -> None:
        """End the one that waits, if there is one."""
        process, self.process = self.process, None
        if process is not None:
            _stop(process)


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
    try:
        _send(process, job)
        result = follow(process.stdout or (), job, listen)
        code = process.wait()
    finally:
        _stop(process)
    if result.status != "partial":
        return result
    return _fail(job, Failed(_death(code), f"Its last words are in {job.log}."), listen, result)


def follow(lines: Iterable[bytes], job: Job, listen: Listener) -> Result:
    """What a worker's lines add up to; "partial" where they break off before it announced its end.

    A line that is no event, such as what a shell in front of the worker prints, goes to the job's log.
    """
    result = Result(variant=job.variant, status="partial")
    for line in lines:
        event = _event(line)
        if event is None:
            _keep(line, job)
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


def _keep(line: bytes, job: Job) -> None:
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
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=noise)


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
        _end_family(process.pid)
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def _end_family(pid: int) -> None:
    import psutil  # type: ignore[import-untyped]

    parent = psutil.Process(pid)
    family = [*parent.children(recursive=True), parent]
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    for process in psutil.wait_procs(family, _GRACE_SECONDS)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
