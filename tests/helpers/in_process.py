"""An executor for tests: what a worker does, in this process."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import msgspec


def in_this_process(nursery, job, listen):
    """An executor that starts no process: the worker's own code, with the same messages and the same log.

    A real model is still scored in a process of its own, which is forked.
    """
    from qeval.base import messages
    from qeval.base.records import Result
    from qeval.load.toy import is_toy
    from qeval.run import workers
    from qeval.score import worker

    if not is_toy(job.variant.model):
        return workers.score_in(nursery.command(), job, listen)
    result = Result(variant=job.variant, status="partial")
    screen = sys.stderr

    def hear(event: messages.Event) -> None:
        nonlocal result
        event = msgspec.json.decode(msgspec.json.encode(event), type=messages.Event)
        result = workers.after(event, result)
        with contextlib.redirect_stderr(screen):
            listen(event)

    log = Path(job.log)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as noise, contextlib.redirect_stderr(noise):
        worker.answer(msgspec.json.decode(msgspec.json.encode(job), type=messages.Job), hear)
    return result
