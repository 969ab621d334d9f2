"""Several workers at once: a variant each, and then, where much is left of one, shards of the same.

All of the pool's own work is done in the thread that called it: a thread for each worker only puts what that
one says into a queue. So listeners are called one at a time, and Ctrl-C ends everything from one place.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from qeval.base.messages import Done, Event, Failed, Fed, Job, Note, Progress, Todo
from qeval.base.packing import Packing
from qeval.base.records import Result
from qeval.run import sharing
from qeval.run.ahead import read_ahead
from qeval.run.broken import Broken
from qeval.run.executors import End, Execute, Prepare
from qeval.run.seats import Seat

_LESS = " with half as much at once, which moves sums in the last digits"
_TICK_SECONDS = 0.5


class Hands(NamedTuple):
    """What the pool works with: an executor's functions, and who is told of a job's events and its Result."""

    execute: Execute
    end: End
    prepare: Prepare
    hear: Callable[[Job, Event], None]
    done: Callable[[Job, Result], None]


@dataclass(eq=False)
class Worker:
    """A process at work on a crew's variant."""

    seat: Seat
    crew: Crew
    job: Job
    began: float
    first: float | None = None  # when its first requests were answered
    failed: Failed = field(default_factory=lambda: Failed(""))


@dataclass(eq=False)
class Crew:
    """A variant and all who work on it. `total` and `done` are requests, `taken` those of them that helpers
    answered, `helped` what each helper has told of."""

    job: Job
    lead: Worker | None = None
    helpers: list[Worker] = field(default_factory=list)
    packing: Packing | None = None
    total: int = 0
    done: int = 0
    taken: int = 0
    helped: dict[int, int] = field(default_factory=dict)
    deaths: int = 0
    undone: int = 0
    mourned: int = 0  # helpers that died
    mourned_undone: int = 0  # before they answered anything
    halved: bool = False  # memory ran out, and it was tried again with half as much at once
    shared_out: bool = False  # a helper found nothing that nobody is at
    over: bool = False

    @property
    def name(self) -> str:
        """The variant's."""
        return self.job.variant.name

    @property
    def shown(self) -> int:
        """Requests that are answered, by whomever."""
        return sharing.answered(self.total, self.done, self.taken, self.helped.values())

    def wants_help(self, now: float) -> bool:
        """Whether what is left takes longer than a further worker needs before it begins."""
        lead = self.lead
        if lead is None or lead.first is None or self.shared_out or self.packing is None:
            return False
        if not self.packing.rung:
            return False
        spent, loading = now - lead.first, lead.first - lead.began
        return sharing.worth(self.total, self.shown, spent, loading, len(self.helpers)) is not None


class Pool:
    """`jobs` in the order in which they are begun; the first one's questions are waited for, for they serve
    the others, and with `gated` its end is. `helps`: several may work at one variant."""

    def __init__(
        self, jobs: Sequence[Job], seats: Sequence[Seat], hands: Hands, *, gated: bool, helps: bool = True
    ) -> None:
        self.waiting = [Crew(job, packing=job.packing) for job in jobs]
        self.first = self.waiting[0] if self.waiting else None
        self.free, self.hands, self.gated, self.helps = list(seats), hands, gated, helps
        self.broken = Broken(seats)
        self.at_work: dict[int, Worker] = {}
        self.told: queue.Queue[tuple[int, Event | Result | BaseException]] = queue.Queue()
        self.numbers = itertools.count()
        self.threads: list[threading.Thread] = []
        self.opened = False  # the others may begin
        self.lost = ""

    def work(self) -> None:
        """Carry out all jobs. What a listener raises, KeyboardInterrupt above all, ends all workers first."""
        try:
            self._fill()
            while self.at_work:
                self._tell()
                self._fill()
            for crew in self.waiting:
                message = f"No device is left for it: {self.lost}"
                self._over(crew, Failed(message), Result(crew.job.variant, "failed", error=message))
        finally:
            self._stop()

    @property
    def best(self) -> Seat | None:
        """A seat that is free, rather one whose GPU never gave up; None where all are lost."""
        return min(self.free, key=lambda seat: (self.broken.times(seat), seat.number), default=None)

    def _tell(self) -> None:
        """Take one message, if there is one soon."""
        try:
            number, told = self.told.get(timeout=_TICK_SECONDS)
        except queue.Empty:
            self._end_helpers()
            return
        if isinstance(told, BaseException):
            raise told
        worker = self.at_work[number]
        if isinstance(told, Result):
            self._ended(number, worker, told)
        elif worker is worker.crew.lead:
            self._heard(worker, told)
        else:
            self._heard_helper(number, worker, told)

    # --- who does what

    def _fill(self) -> None:
        """Give every free seat something to do, if there is anything: to lead a variant, else to help."""
        for helps, found in ((False, self._next), (True, self._in_need)):
            for seat in list(self.free):
                if (crew := found(seat)) is not None:
                    self.free.remove(seat)
                    self._begin(seat, crew, helps=helps)

    def _next(self, seat: Seat) -> Crew | None:
        """The first variant that waits, but for those under which the GPU here gave up, where it waits for
        another one."""
        ready = [crew for crew in self.waiting if self.opened or crew is self.first]
        here = [crew for crew in ready if not self.broken.shuns(crew.name, seat)]
        if not here:
            return None
        self.waiting.remove(here[0])
        return here[0]

    def _in_need(self, seat: Seat) -> Crew | None:
        """The variant of which most is left, if a further worker is worth its while."""
        if not self.helps:
            return None
        now = time.monotonic()
        crews = {id(one.crew): one.crew for one in self.at_work.values() if one.crew.wants_help(now)}
        here = [crew for crew in crews.values() if not self.broken.under(crew.name, seat)]
        return max(here, key=lambda crew: crew.total - crew.shown, default=None)

    def _begin(self, seat: Seat, crew: Crew, *, helps: bool) -> None:
        number = next(self.numbers)
        job = msgspec.structs.replace(crew.job, part="lead", packing=crew.packing)
        if helps:
            job = sharing.as_helper(job, str(number))
        job = seat.seated(job, job.threads)
        worker = Worker(seat, crew, job, time.monotonic())
        if helps:
            crew.helpers.append(worker)
        else:
            crew.lead = worker
        self.at_work[number] = worker
        thread = threading.Thread(target=self._carry_out, args=(number, job), daemon=True)
        self.threads.append(thread)
        thread.start()

    def _carry_out(self, number: int, job: Job) -> None:
        """In a thread of its own: follow a worker to its end."""
        try:
            result = self.hands.execute(job, lambda event: self.told.put((number, event)))
        except BaseException as error:  # noqa: BLE001 - raised again where the pool is at work
            self.told.put((number, error))
        else:
            self.told.put((number, result))

    # --- what they say

    def _heard(self, lead: Worker, event: Event) -> None:
        crew = lead.crew
        match event:
            case Todo(tasks=tasks):
                crew.total, crew.done, crew.taken = sum(count for _, count in tasks), 0, 0
                crew.helped.clear()
                self.opened = self.opened or not self.gated
            case Fed(packing=packing):
                crew.packing = packing
            case Progress(task=task, done=done, taken=taken):
                crew.done, crew.taken = done, taken
                if lead.first is None:
                    lead.first = time.monotonic()
                    self._get_ready(lead)
                event = Progress(task, crew.shown, taken)
            case Failed(lost=lost):
                lead.failed = event
                if lost:
                    return  # whether that is the end of it is seen with its result
        self.hands.hear(crew.job, event)

    def _get_ready(self, lead: Worker) -> None:
        """Have the next variant's worker import its libraries, and its files read, while a GPU is at work."""
        if lead.seat.device is not None and self.waiting and self.opened:
            self.hands.prepare(lead.seat.environment)
            read_ahead(self.waiting[0].job.variant)

    def _heard_helper(self, number: int, helper: Worker, event: Event) -> None:
        crew = helper.crew
        if crew.over:
            self._end_helpers()  # it may only have started when the variant had its end
            return
        match event:
            case Progress(task=task, done=done):
                crew.helped[number] = done
                self.hands.hear(crew.job, Progress(task, crew.shown, crew.taken))
            case Done():
                crew.shared_out = True
            case Failed():
                helper.failed = event

    # --- how they end

    def _ended(self, number: int, worker: Worker, result: Result) -> None:
        del self.at_work[number]
        crew, failed = worker.crew, worker.failed
        helped = crew.helped.get(number, 0) > 0
        gone = self._gone(worker, idle=worker.first is None and not helped)
        if not gone:
            self.free.append(worker.seat)
        if worker is not crew.lead:
            crew.helpers.remove(worker)
            if failed.message and not gone and not crew.over:
                self._helper_failed(crew, failed, idle=not helped)
            return
        crew.lead = None
        if failed.lost and (gone or self._goes_on(crew, worker, failed)):
            self.waiting.insert(0, crew)
            return
        self._over(crew, failed if failed.lost else None, result)

    def _gone(self, worker: Worker, *, idle: bool) -> bool:
        """Whether a worker's seat is given up, which is told: its device is lost, or it is the GPU there that
        gives up, whatever is calculated. `idle`: nothing was answered there."""
        crew, failed = worker.crew, worker.failed
        broke = failed.lost == "gpu" or (failed.lost == "process" and idle)
        if failed.lost != "device" and not (broke and self.broken.at_fault(worker.seat, crew.name)):
            return False
        self.lost = failed.message
        self.broken.give_up(worker.seat)
        gone = f"Worker {worker.seat.number + 1} is given up: {failed.message}"
        self.hands.hear(crew.job, Note(gone))
        return True

    def _helper_failed(self, crew: Crew, failed: Failed, *, idle: bool) -> None:
        """A helper ended early; where that is too often, as of those who lead, the leader goes on alone."""
        crew.mourned += 1
        crew.mourned_undone += idle
        too_many = sharing.too_many(crew.mourned, crew.mourned_undone)
        crew.shared_out = crew.shared_out or not failed.lost or too_many
        self.hands.hear(crew.job, Note(f"A further worker ended early: {failed.message}"))

    def _goes_on(self, crew: Crew, worker: Worker, failed: Failed) -> bool:
        """Whether another worker takes over from one that was lost."""
        crew.deaths += 1
        crew.undone = 0 if worker.first is not None else crew.undone + 1
        if sharing.too_many(crew.deaths, crew.undone):
            return False
        less = ""
        if failed.lost == "memory" and crew.packing is not None:
            if crew.halved:
                return False
            crew.halved, crew.packing = True, crew.packing.halved
            less = _LESS
        self.hands.hear(crew.job, Note(f"{failed.message} Another worker takes over{less}."))
        return True

    def _over(self, crew: Crew, failed: Failed | None, result: Result) -> None:
        """A variant has its result."""
        crew.over = True
        if crew is self.first:
            self.opened = True
        self._end_helpers()
        if failed is not None:
            self.broken.forgive(crew.name)
            self.hands.hear(crew.job, failed)
        self.hands.done(crew.job, result)

    def _end_helpers(self) -> None:
        """End those who help with what is finished; again and again, for one may only be about to start."""
        over = {one.crew.job.variant.name for one in self.at_work.values() if one.crew.over}
        if over:
            self.hands.end(lambda job: job.variant.name in over)

    def _stop(self) -> None:
        """End every worker, and wait until nobody follows one any more."""
        while alive := [thread for thread in self.threads if thread.is_alive()]:  # one may never have begun
            self.hands.end(lambda _: True)
            for thread in alive:
                thread.join(_TICK_SECONDS / len(alive))
