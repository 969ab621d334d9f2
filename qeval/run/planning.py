"""A run that others work at: it is planned, followed from afar, and taken up when it is done."""

from __future__ import annotations

import contextlib
import shlex
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from qeval.ask.order import Order
from qeval.base import next_steps
from qeval.base.errors import QevalError
from qeval.base.files import remove_begun
from qeval.base.messages import Done, Event, Failed, Job, Note, Progress, Stopped, Todo
from qeval.base.records import Result, Run, Variant
from qeval.run.awaited import Awaited, Listener
from qeval.run.keeping import learned, with_result
from qeval.run.paths import paths_of
from qeval.run.taking import LOOK_SECONDS, shown_of
from qeval.run.versions import versions
from qeval.store.leases import holder_of
from qeval.store.runs import RunDir
from qeval.store.shards import forget_tries
from qeval.store.work import PLAN_FILE, Part, Plan, Work

_UNSEEN_LOOKS = 120
"""How often a result is looked for that a worker says it has kept: NFS may show a new file a minute late."""


def plan(order: Order, run: Run, jobs: Sequence[Job], place: RunDir) -> None:
    """Write down these jobs for `qeval worker`, in the place of what was planned before, and the run."""
    place.write(run)
    work = Work(place.work)
    work.forget()
    for job in jobs:
        forget_tries(place.shards(job.variant.name))
    gated = order.policy is not None
    parts = tuple(Part(job, order.baseline if gated and _waits(order, job) else "") for job in jobs)
    work.write(Plan(parts, versions(jobs), uuid.uuid4().hex, str(Path.cwd()), paths_of(jobs)))


def _waits(order: Order, job: Job) -> bool:
    return job.variant.name != order.baseline


def taken_up(run: Run, place: RunDir, cost: bool | None) -> Run:
    """The run with all results that workers have left, of what is planned now."""
    work, planned = Work(place.work), None
    with contextlib.suppress(QevalError):  # what is damaged is planned anew
        planned = work.plan()
    for known in run.results if planned else ():
        result = work.result(known.variant.name, planned.mark) if planned else None
        if result is not None and result.variant == known.variant:
            run = with_result(run, result, cost)
    return learned(run)


def withdraw(run: Run, place: RunDir) -> None:
    """Nothing is planned any more, since this command is about to score the rest itself: workers that come
    late would score the same. What was taken up of their results is kept first."""
    if (place.work / PLAN_FILE).exists():
        place.write(run)
        forget(place)


def forget(place: RunDir) -> None:
    """Nothing is planned of a run any more."""
    Work(place.work).forget()


def refuse_workers(order: Order, place: RunDir) -> None:
    """Raise QevalError where workers are at work on a run that a command is about to score."""
    if order.only == "finish":
        return
    if at_work := Work(place.work).holders.at_work():
        hosts = ", ".join(sorted({one.host for one in at_work}))
        raise QevalError(
            f"Workers are at work on {place.path.name}, on {hosts}.",
            f"Stop them, or wait for them with: {shlex.join(next_steps.finishing(order.command))}",
        )


@dataclass
class Followed:
    """A run being followed; `told` are the variants whose results were told, `said` what was told of each."""

    run: Run
    place: RunDir
    cost: bool | None
    listen: Listener
    told: set[str] = field(default_factory=set)
    said: dict[str, tuple[int, int]] = field(default_factory=dict)

    def look(self) -> list[str]:
        """Tell what is new, keep new results; the variants that are planned and have none yet."""
        work = Work(self.place.work)
        planned = work.plan()
        left = []
        for part in planned.parts if planned else ():
            variant = part.job.variant
            result = work.result(variant.name, planned.mark) if planned else None
            if result is None:
                left.append(variant.name)
                self._tell_progress(work, variant)
            elif variant.name not in self.told:
                self._tell_end(variant, result)
        return left

    def kept(self, left: Sequence[str]) -> bool:
        """Whether a worker kept a result of these that is not seen here."""
        work = Work(self.place.work)
        planned = work.plan()
        return planned is not None and not work.holders.kept(planned.mark).isdisjoint(left)

    def _tell_progress(self, work: Work, variant: Variant) -> None:
        leader = holder_of(work.holders, work.lead(variant.name))
        if leader is None or not leader.total:
            return
        total, shown = self.said.get(variant.name, (0, -1))
        now = shown_of(leader, work.helpers(variant.name))
        if leader.total != total:
            self.listen(variant, Todo(((leader.task, leader.total),), 0))
        if (leader.total, now) != (total, shown):
            self.listen(variant, Progress(leader.task, now))
        self.said[variant.name] = (leader.total, now)

    def _tell_end(self, variant: Variant, result: Result) -> None:
        self.told.add(variant.name)
        self.run = learned(with_result(self.run, result, self.cost))
        self.place.write(self.run)
        self.listen(variant, _end_of(result))


def _end_of(result: Result) -> Event:
    if result.status == "stopped" and result.stop is not None:
        return Stopped(result.stop, result.error or "", result.provenance)
    if result.status == "done":
        return Done(result.provenance, result.cost, result.seconds)
    return Failed(result.error or "It was not finished.")


def followed(
    order: Order, run: Run, place: RunDir, listen: Listener, alive: Callable[[], bool] | None
) -> Run:
    """The run with what its workers come to, waited for as long as there are any, or more may come: while
    `alive()` holds, or without that for ever, where the order waits.

    What nobody has finished stays as it is, and is told: it is no result. Scores nothing.
    """
    work = Work(place.work)
    following = Followed(run, place, order.cost, listen)
    awaited = Awaited(work.holders, listen, follows=True)
    variants = [result.variant for result in run.results]
    unseen = _UNSEEN_LOOKS
    while True:
        coming = alive() if alive else order.wait
        at_work = bool(work.holders.at_work())
        left = following.look()
        if not at_work and not (left and coming):
            if not unseen or not following.kept(left):
                break
            unseen -= 1
        awaited.say(variants)
        if left and not at_work:
            told = _QUEUED if alive else _NOBODY.format(shlex.quote(str(place.path)))
            awaited.nobody(next(one for one in variants if one.name in left), told)
        time.sleep(LOOK_SECONDS)
    for result in following.run.results:
        if result.status == "partial":
            listen(result.variant, Note(_LEFT.format(shlex.quote(str(place.path)))))
    if not left:
        work.forget()
        remove_begun(place.path)  # by workers that were killed; none is left
    return following.run


_NOBODY = "Nobody is at work on the run. Ctrl-C ends the waiting; a worker is started with: qeval worker {}"
_QUEUED = "No worker is at work yet: the job waits in the queue."
_LEFT = "No worker finished it. Go on with the same command without --finish, or with: qeval worker {}"
