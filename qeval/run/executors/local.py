"""Executors: where a Variant is scored. Each takes a Job and a listener and returns the variant's Result.

An executor starts the worker somewhere, hands its events to the listener as they come, and turns whatever
happens, a crash included, into a Result. To add one: write a function with the signature of `local` and
one line in EXECUTORS; tests/test_executors.py runs all of them against the same contract.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec

from qeval.base.messages import Done, Event, Failed, Finished, Job, Stopped
from qeval.base.records import Result

Listener = Callable[[Event], None]
_GRACE_SECONDS = 10.0
_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


def local(job: Job, listen: Listener) -> Result:
    """Score in a process of its own on this machine.

    A crash or an out-of-memory kill of that process fails this variant alone. KeyboardInterrupt stops the
    process and is raised again.
    """
    log = Path(job.log)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as noise:
        process = subprocess.Popen(
            [sys.executable, "-m", "qeval.score.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=noise,
        )
    try:
        return _follow(process, job, listen)
    finally:
        _stop(process)


def _follow(process: subprocess.Popen[bytes], job: Job, listen: Listener) -> Result:
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the worker was started without pipes")
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(msgspec.json.encode(job))
        process.stdin.close()
    result = Result(variant=job.variant, status="partial")
    ended = False
    for line in process.stdout:
        event = _decoder.decode(line)
        result = _after(event, result)
        ended = ended or isinstance(event, Done | Failed | Stopped)
        listen(event)
    code = process.wait()
    if not ended:
        failed = Failed(_death(code), f"Its last words are in {job.log}.")
        listen(failed)
        result = _after(failed, result)
    return result


def _after(event: Event, result: Result) -> Result:
    if isinstance(event, Finished):
        return replace(result, cells=(*result.cells, event.cell))
    if isinstance(event, Failed):
        return replace(result, status="failed", error=f"{event.message} {event.hint}".strip())
    if isinstance(event, Stopped):
        return replace(
            result, status="stopped", provenance=event.provenance, error=event.text, stop=event.stop
        )
    if isinstance(event, Done):
        return replace(result, status="done", provenance=event.provenance, cost=event.cost)
    return result


def _death(code: int) -> str:
    if code == -signal.SIGKILL:
        return "The scoring process was killed, most often because memory ran out."
    if code < 0:
        return f"The scoring process died of {signal.Signals(-code).name}."
    return f"The scoring process ended with code {code} before it was done."


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()


EXECUTORS: dict[str, Callable[[Job, Listener], Result]] = {"local": local}
