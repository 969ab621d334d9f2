"""A process of its own on this machine."""

from __future__ import annotations

from collections.abc import Mapping

from qeval.base.messages import Job
from qeval.base.records import Result
from qeval.run.workers import WORKER, Listener, Waiting, score_in

_waiting = Waiting()


def prepare(environment: Mapping[str, str]) -> None:
    """Have a worker in this environment import its libraries while something else is done here."""
    _waiting.start(environment)


def give_up() -> None:
    """Nothing more is to be scored: workers that wait end."""
    _waiting.stop()


def execute(job: Job, listen: Listener) -> Result:
    """Score in a fresh Python process, so that a crash or an out-of-memory kill fails this variant alone."""
    return score_in(WORKER, job, listen, _waiting.taken(job.environment))
