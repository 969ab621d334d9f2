"""A worker that nobody conducts: it takes variants, then shards of others' variants, until none is left."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from qeval.ask.placing import cores
from qeval.base import next_steps
from qeval.base.errors import LostDeviceError, QevalError
from qeval.base.messages import Done, Event, Failed, Fed, Job, Note, Progress, Todo
from qeval.base.places import at_home, cache_dir, tasks_dir
from qeval.base.records import Result
from qeval.load.toy import is_toy
from qeval.run import gpus, sharing
from qeval.run.awaited import Awaited, Listener
from qeval.run.executors import EXECUTORS
from qeval.run.paths import where_it_was_made
from qeval.run.seats import Seat
from qeval.run.versions import check_same
from qeval.store.leases import SECONDS, Beating, Holder, Leases, beating, holder_of, machine
from qeval.store.runs import RunDir
from qeval.store.standing import standing, whereabouts
from qeval.store.work import Part, Plan, Work

LOOK_SECONDS = 1.0
"""How often a worker that found nothing to do looks again."""


def work(place: RunDir, listen: Listener, seconds: float = SECONDS, device: str | None = None) -> bool:
    """Take part in what is planned for a run until each variant has its result; whether none failed.

    `seconds` after its last sign of life a worker is taken for dead. Raises QevalError where nothing is
    planned, for another version of what can change numbers, where what the plan names is not here, and where
    this machine's device is lost.
    """
    plan = planned(place)
    check_same(plan.versions)
    with where_it_was_made(plan, place):
        return _taken_part(place, plan, listen, seconds, device)


def _taken_part(place: RunDir, plan: Plan, listen: Listener, seconds: float, device: str | None) -> bool:
    seat = _seat(plan, device)
    taker = Taker(place, plan, seat, listen, seconds)
    awaited = Awaited(taker.work.holders, listen, follows=False)
    with beating(taker.work.holders, seconds) as one:  # it is at work between two leases too
        taker.beat = one
        while left := taker.left():
            if not (taker.lead(left) or taker.help(left)):
                awaited.say([part.job.variant for part in left])
                time.sleep(LOOK_SECONDS)
    taker.work.clear_after(one.holder.name)
    return "failed" not in taker.outcomes()


def planned(place: RunDir) -> Plan:
    """What is planned for a run. Raises QevalError where this machine does not see the run, or nothing is."""
    if not place.path.is_dir():
        raise QevalError(
            f"There is no {place.path} on {socket.gethostname()}.",
            "The runs directory must lie on a file system that all workers share; ray does without, with"
            " --no-shared-store.",
        )
    plan = Work(place.work).plan()
    if plan is None:
        run, path = place.read(), shlex.quote(str(place.path))
        if all(result.status != "partial" for result in run.results):
            if failed := [result.variant.name for result in run.results if result.status == "failed"]:
                raise QevalError(
                    f"{place.path.name} is finished, and {' and '.join(failed)} failed.",
                    "Score again what failed, in the directory where the run was prepared, with:"
                    f" {next_steps.go_on(run, whereabouts(place, run))}",
                )
            raise QevalError(
                f"{place.path.name} is finished: nothing is left for workers.",
                f"See it with: qeval show {path}",
            )
        raise QevalError(
            f"Nothing is planned for {place.path.name}.",
            f"Plan it with: {next_steps.prepare(run, standing(place, run))}",
        )
    return plan


def _seat(plan: Plan, device: str | None) -> Seat:
    """Where this worker calculates: the device that is named, else what the plan says, where "auto" is the
    first NVIDIA GPU that is seen here, and never the CPU of a machine whose GPU is lost."""
    job = plan.parts[0].job if plan.parts else None
    if job is None or is_toy(job.variant.model):
        return Seat()
    asked = device or job.settings.device
    if asked == "auto" and gpus.visible():
        asked = "cuda:0"
    own = {} if asked.startswith("cuda") else {"OMP_NUM_THREADS": str(_threads(job))}
    return Seat(0, own, None if asked == "auto" else asked)


def _threads(job: Job) -> int:
    """The threads of a plan. Raises QevalError where this machine has fewer cores."""
    wanted = job.threads or 1
    if wanted > cores():
        raise QevalError(
            f"The run has {wanted} threads a worker, and {socket.gethostname()} has {cores()} cores.",
            "Give the worker more cores, or plan the run with fewer --threads.",
        )
    return wanted


class _OverError(Exception):
    """What is helped with is finished."""


@dataclass(eq=False)
class _Ear:
    """What a worker's events come to, beside the sentences: signs of life, and how it ended."""

    job: Job
    work: Work
    mark: str
    beat: Beating
    listen: Listener
    began: float = field(default_factory=time.monotonic)
    first: float | None = None
    failed: Failed = field(default_factory=lambda: Failed(""))
    finished: bool = False

    def __call__(self, event: Event) -> None:
        """Take account of an event and hand it on."""
        variant = self.job.variant
        helps = self.job.part == "help"
        match event:
            case Todo(tasks=tasks):
                self.beat.tell(total=sum(count for _, count in tasks), done=0, taken=0, now=True)
            case Fed(packing=packing) if not helps:
                self.work.keep_packing(variant.name, packing)
            case Progress(task=task, done=done, taken=taken):
                self.first = self.first or time.monotonic()
                spent = time.monotonic() - self.first
                first = self.first - self.began
                self.beat.tell(first=first, spent=spent, task=task, done=done, taken=taken)
            case Failed():
                self.failed = event
            case Done():
                self.finished = True
        if helps and self.work.result(variant.name, self.mark) is not None:
            raise _OverError
        if not helps and not (isinstance(event, Failed) and event.lost):
            self.listen(variant, event)


class Taker:
    """A worker of a plan on this machine."""

    def __init__(self, place: RunDir, plan: Plan, seat: Seat, listen: Listener, seconds: float) -> None:
        self.place, self.plan, self.seat = place, plan, seat
        self.listen, self.seconds = listen, seconds
        self.work = Work(place.work)
        self.beat: Beating | None = None
        self.exhausted: set[str] = set()  # leaders of whom nothing is left that nobody is at
        self.deaths: Counter[str] = Counter()  # of helpers here, by their leaders
        self.idle_deaths: Counter[str] = Counter()  # of those that had answered nothing
        self.broken: set[str] = set()  # variants under which the GPU here gave up, or a process at its start
        self.seen: dict[str, Result] = {}  # by variant

    def left(self) -> list[Part]:
        """The parts without a result. Raises QevalError where another plan took this one's place."""
        now = self.work.plan()
        if now is None:
            return []  # it was finished, and is cleared away
        if now.mark != self.plan.mark:
            raise QevalError(
                f"{self.place.path.name} was planned again.",
                f"Start its workers again: qeval worker {shlex.quote(str(self.place.path))}",
            )
        return [part for part in self.plan.parts if self._result(part.job.variant.name) is None]

    def outcomes(self) -> set[str]:
        """The states of the results, those too that were taken up, and cleared away, before they were seen
        here."""
        names = {part.job.variant.name for part in self.plan.parts}
        found: set[str] = {result.status for name in names if (result := self._result(name)) is not None}
        if names <= self.seen.keys():
            return found
        with contextlib.suppress(QevalError):
            run = self.place.read()
            found |= {one.status for one in run.results if one.variant.name in names - self.seen.keys()}
        return found

    def _result(self, name: str) -> Result | None:
        """What came of a variant, which is remembered."""
        if name not in self.seen and (result := self.work.result(name, self.plan.mark)) is not None:
            self.seen[name] = result
        return self.seen.get(name)

    def _keep(self, result: Result) -> None:
        self.work.keep(result, self.plan.mark)
        if self.beat is not None:
            kept = (self.plan.mark, result.variant.name)
            self.beat.tell(kept=(*self.beat.holder.kept, kept))
        self._result(result.variant.name)

    def lead(self, left: list[Part]) -> bool:
        """Whether a variant was found that nobody leads, and scored as far as it went."""
        waiting = {part.job.variant.name for part in left}
        for part in left:
            name = part.job.variant.name
            if part.after in waiting or holder_of(self.work.holders, self.work.lead(name)) is not None:
                continue
            if name in self.broken and self._is_for_others(name):
                continue
            with beating(self.work.holders, self.seconds, variant=name, part="lead") as beat:
                leases = Leases(self.work.holders, beat.holder.name)
                if leases.take(self.work.lead(name)):
                    self._led(part, beat, leases)
                    return True
        return False

    def _led(self, part: Part, beat: Beating, leases: Leases) -> None:
        job = part.job
        lead = self.work.lead(job.variant.name)
        if self._result(job.variant.name) is not None:
            return  # it was finished in between
        if error := _too_many(leases.dead(lead)):
            self._keep(Result(job.variant, "failed", error=error.message))
            self.listen(job.variant, error)
            return
        result, ear = self._carried_out(job, beat, "lead")
        if result.status == "failed":
            result = replace(result, error=f"{result.error} That was on {socket.gethostname()}.")
        if ear.failed.lost == "device":
            raise LostDeviceError(
                ear.failed.message, "The other workers go on; start this one where there is a device."
            )
        self._look_at_itself(ear)
        if ear.failed.lost:
            beat.end("died")
            self.listen(job.variant, Note(f"{ear.failed.message} It is taken up again."))
            return
        self._keep(result)
        leases.leave(lead)

    def help(self, left: list[Part]) -> bool:
        """Whether somebody's variant was found that more can work at, and helped with."""
        wanting = [found for part in left if (found := self._wanting(part)) is not None]
        if not wanting:
            return False
        _, part, leader = max(wanting, key=lambda one: one[0])
        with beating(self.work.holders, self.seconds, variant=part.job.variant.name, part="help") as beat:
            try:
                _, ear = self._carried_out(part.job, beat, "help")
            except _OverError:
                return True
            self._look_at_itself(ear)
            if ear.failed.lost in {"process", "gpu"}:
                beat.end("died")
                self._mourn(leader, idle=not beat.holder.done)
            elif ear.failed.lost:
                raise LostDeviceError(ear.failed.message, "The others go on.")
            if ear.finished or (ear.failed.message and not ear.failed.lost):
                self.exhausted.add(leader)
        return True

    def _look_at_itself(self, ear: _Ear) -> None:
        """Raise LostDeviceError where it is this machine that fails, and not a variant: under two of them the
        GPU gave up here, or the process died before it answered anything, and others are at work who did not
        see that. Else this machine would take variant after variant, until each has failed too often."""
        lost = ear.failed.lost
        if lost != "gpu" and not (lost == "process" and ear.first is None):
            return
        self.broken.add(ear.job.variant.name)
        others, me = self._others(), {_process()}
        if others and sum(self._died_of(name) <= me for name in self.broken) > 1:
            raise LostDeviceError(
                f"{socket.gethostname()} is given up: {ear.failed.message}",
                "The other workers go on; start this one again once the machine is in order.",
            )

    def _is_for_others(self, name: str) -> bool:
        """Whether a variant that this worker led and died of is to be tried by others first, who did not."""
        died = self._died_of(name)
        return _process() in died and bool(self._others() - died)

    def _others(self) -> set[tuple[str, int]]:
        """The processes of other workers, as `_process`."""
        return {(one.machine, one.pid) for one in self.work.holders.at_work()} - {_process()}

    def _died_of(self, name: str) -> set[tuple[str, int]]:
        """The processes of workers that led a variant, and died of it."""
        dead = Leases(self.work.holders, "").dead(self.work.lead(name))
        return {(one.machine, one.pid) for one in dead if one is not None}

    def _mourn(self, leader: str, *, idle: bool) -> None:
        """A helper died; the leader goes on without help where that is too often, as of those who lead."""
        self.deaths[leader] += 1
        self.idle_deaths[leader] += idle
        if sharing.too_many(self.deaths[leader], self.idle_deaths[leader]):
            self.exhausted.add(leader)

    def _wanting(self, part: Part) -> tuple[float, Part, str] | None:
        """How many requests are left of a variant, if a further worker is worth its while."""
        name = part.job.variant.name
        if name in self.broken:
            return None
        leader = holder_of(self.work.holders, self.work.lead(name))
        packing = self.work.packing(name)
        if leader is None or leader.name in self.exhausted or packing is None or not packing.rung:
            return None
        left = worth(leader, self.work.helpers(name))
        return None if left is None else (left, part, leader.name)

    def _carried_out(self, job: Job, beat: Beating, how: str) -> tuple[Result, _Ear]:
        name = job.variant.name
        job = msgspec.structs.replace(
            job,
            runs_dir=str(self.place.path.parent),
            run_id=self.place.path.name,
            tasks_dir=str(tasks_dir()),
            cache_dir=str(cache_dir()),
            packing=self.work.packing(name) or job.packing,
            part="lead",
            holder=beat.holder.name,
            log=str(self.place.log(name)),
        )
        if how == "help":
            job = sharing.as_helper(job, beat.holder.name)
        on_gpu = (self.seat.device or "").startswith("cuda")
        job = self.seat.seated(job, None if on_gpu else job.threads)
        ear = _Ear(job, self.work, self.plan.mark, beat, self.listen)
        return EXECUTORS["local"](job, ear), ear


def _process() -> tuple[str, int]:
    """What tells this process from all others."""
    return machine(), os.getpid()


def _too_many(dead: list[Holder | None]) -> Failed | None:
    """Why nobody takes a variant up any more, of which these workers died."""
    undone = [one for one in dead if one is None or not one.done]
    if not sharing.too_many(len(dead), len(undone)):
        return None
    where = sorted({one.host for one in dead if one is not None})
    there = f" ({', '.join(where)})" if where else ""
    return Failed(f"{len(dead)} workers died of it{there}, most often because memory ran out.")


def worth(leader: Holder, helpers: list[Holder]) -> float | None:
    """The requests that are left of a leader's variant, if they take longer than a further worker needs
    before it begins; else None."""
    if leader.first is None:
        return None
    shown = shown_of(leader, helpers)
    return sharing.worth(leader.total, shown, leader.spent, leader.first, len(helpers))


def shown_of(leader: Holder, helpers: list[Holder]) -> int:
    """Requests of a leader's variant that are answered, by whomever."""
    helped = (one.done for one in helpers)
    return sharing.answered(leader.total, leader.done, leader.taken, helped)


def store_of(run: Path) -> RunDir:
    """The run that a worker was sent to, by its directory."""
    return RunDir(Path(os.path.abspath(at_home(run))))  # noqa: PTH100 - a link keeps its name
