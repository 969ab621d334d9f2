"""A process of its own on this machine."""

from __future__ import annotations

from qeval.base.messages import Job
from qeval.base.records import Result
from qeval.run.workers import WORKER, Listener, Waiting, score_in

_waiting = Waiting()


def prepare() -> None:
    """Have a worker import its libraries while something else is done here."""
    _waiting.start()


def give_up() -> None:
    """Nothing more is to be scored: the worker that waits ends."""
    _waiting.stop()


def execute(job: Job, listen: Listener) -> Result:
    """Score in a fresh Python process, so that a crash or an out-of-memory kill fails this variant alone."""
    return score_in(WORKER, job, listen, _waiting.taken())
