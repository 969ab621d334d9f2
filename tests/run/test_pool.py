"""The pool: who scores what and when, and what becomes of it where a worker or a device is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from qeval.base.messages import Done, Event, Failed, Fed, Job, Note, Progress, Todo
from qeval.base.packing import Packing
from qeval.base.records import Result, Scheme, Variant
from qeval.base.settings import Settings
from qeval.run import pool
from qeval.run.seats import Seat

SEATS = tuple(Seat(number, {"SEAT": str(number)}) for number in range(4))
GPUS = tuple(Seat(number, {"SEAT": str(number)}, "cuda:0") for number in range(2))
FED = Fed(Packing("CPU", 1, 8, 4, 4, rung="tree"))
Play = Callable[[Job, Callable[[Event], None]], Result]


def a_job(name: str, place: Path) -> Job:
    variant = Variant(name, "toy", Scheme("fp16"))
    log = str(place / f"{name}.log")
    return Job(str(place), "r", variant, {}, {}, (), Settings(), "", str(place), log)


class Stage:
    """A pool whose workers are played by a function; `began` are (variant, part, seat) in order."""

    def __init__(self, place: Path, play: Play) -> None:
        self.place, self.play = place, play
        self.began: list[tuple[str, str, str]] = []
        self.ended = threading.Event()
        self.said: list[tuple[str, Event]] = []
        self.results: dict[str, Result] = {}
        self.guard = threading.Lock()
        self.prepared: list[Mapping[str, str]] = []

    def execute(self, job: Job, listen: Callable[[Event], None]) -> Result:
        with self.guard:
            self.began.append((job.variant.name, job.part, job.environment["SEAT"]))
        return self.play(job, listen)

    def hear(self, job: Job, event: Event) -> None:
        self.said.append((job.variant.name, event))

    def done(self, job: Job, result: Result) -> None:
        assert job.variant.name not in self.results
        self.results[job.variant.name] = result

    def end(self, which: Callable[[Job], bool]) -> None:
        assert callable(which)
        self.ended.set()

    def run(self, *names: str, seats: tuple[Seat, ...] = SEATS[:2], gated: bool = False) -> dict[str, str]:
        hands = pool.Hands(self.execute, self.end, self.prepared.append, self.hear, self.done)
        jobs = [a_job(name, self.place) for name in names]
        before = set(threading.enumerate())
        try:
            pool.Pool(jobs, seats, hands, gated=gated).work()
        finally:
            assert set(threading.enumerate()) <= before, "somebody is followed still"
        return {name: result.status for name, result in self.results.items()}


def done(job: Job, listen: Callable[[Event], None]) -> Result:
    listen(Todo((("task", 10),), 0))
    listen(Progress("task", 10))
    listen(Done())
    return Result(job.variant, "done")


def test_every_variant_has_a_worker_and_the_first_ones_questions_come_first(tmp_path: Path) -> None:
    asked = threading.Event()

    def play(job: Job, listen: Callable[[Event], None]) -> Result:
        if job.variant.name == "base":
            assert not asked.wait(0.05), "another one began"
        asked.set()
        return done(job, listen)

    stage = Stage(tmp_path, play)
    assert stage.run("base", "a", "b", "c") == dict.fromkeys(("base", "a", "b", "c"), "done")
    assert stage.began[0] == ("base", "lead", "0")
    assert sorted(name for name, _, _ in stage.began) == ["a", "b", "base", "c"]  # two at once: either first
    assert {seat for _, _, seat in stage.began} == {"0", "1"}


def test_variants_are_begun_in_their_order(tmp_path: Path) -> None:
    stage = Stage(tmp_path, done)
    stage.run("base", "a", "b", "c", seats=SEATS[:1])
    assert [name for name, _, _ in stage.began] == ["base", "a", "b", "c"]


def test_where_variants_may_stop_early_the_baseline_is_finished_first(tmp_path: Path) -> None:
    over: list[str] = []

    def play(job: Job, listen: Callable[[Event], None]) -> Result:
        assert job.variant.name == "base" or over == ["base"] or "base" in over
        result = done(job, listen)
        over.append(job.variant.name)
        return result

    assert set(Stage(tmp_path, play).run("base", "a", "b", gated=True).values()) == {"done"}
    assert over[0] == "base"


def test_a_variant_that_fails_is_the_only_one(tmp_path: Path) -> None:
    def play(job: Job, listen: Callable[[Event], None]) -> Result:
        if job.variant.name == "base":
            listen(Failed("It broke."))
            return Result(job.variant, "failed", error="It broke.")
        return done(job, listen)

    stage = Stage(tmp_path, play)
    assert stage.run("base", "a") == {"base": "failed", "a": "done"}
    assert [event for name, event in stage.said if name == "base"] == [Failed("It broke.")]


@pytest.mark.parametrize(
    ("scores", "deaths", "status", "times"),
    [(True, 3, "done", 4), (True, 9, "failed", 4), (False, 1, "done", 2), (False, 9, "failed", 2)],
)
def test_a_worker_that_dies_is_followed_by_another_so_often(
    tmp_path: Path, scores: bool, deaths: int, status: str, times: int
) -> None:
    left = [deaths]

    def play(job: Job, listen: Callable[[Event], None]) -> Result:
        if job.variant.name == "base" and left[0]:
            left[0] -= 1
            listen(Todo((("task", 10),), 0))
            if scores:
                listen(Progress("task", 1))
            listen(Failed("It was killed.", lost="process"))
            return Result(job.variant, "failed", error="It was killed.")
        return done(job, listen)

    stage = Stage(tmp_path, play)
    assert stage.run("base", "a") == {"base": status, "a": "done"}
    assert [name for name, _, _ in stage.began].count("base") == times
    failures = [event for _, event in stage.said if isinstance(event, Failed)]
    assert len(failures) == (status == "failed")
    notes = [event.text for _, event in stage.said if isinstance(event, Note)]
    assert notes == ["It was killed. Another worker takes over."] * (times - 1)


def test_the_work_of_a_lost_gpu_goes_to_the_rest(tmp_path: Path) -> None:
    def play(job: Job, listen: Callable[[Event], None]) -> Result:
        if job.environment["SEAT"] == "0":
            listen(Failed("There is no device 'cuda:0' here.", lost="device"))
            return Result(job.variant, "failed", error="There is no device 'cuda:0' here.")
        return done(job, listen)

    stage = Stage(tmp_path, play)
    assert stage.run("base", "a") == {"base": "done", "a": "done"}
    assert [seat for _, _, seat in stage.began] == ["0", "1", "1"]
    assert Note("Worker 1 is given up: There is no device 'cuda:0' here.") in [
        event for _, event in stage.said
    ]


@pytest.mark.parametrize(("times", "status"), [(1, "done"), (2, "failed")])
def test_where_memory_ran_out_it_is_tried_once_more_with_half(
    tmp_path: Path, times: int, status: str
) -> None:
    packings: list[Packing | None] = []

    def play(job: Job, listen: Callable[[Event], None]) -> Result:
        packings.append(job.packing)
        listen(Todo((("task", 10),), 0))
        listen(FED if job.packing is None else Fed(job.packing))
        listen(Progress("task", 1))
        if len(packings) <= times:
            listen(Failed("Memory ran out.", lost="memory"))
            return Result(job.variant, "failed", error="Memory ran out.")
        return done(job, listen)

    stage = Stage(tmp_path, play)
    assert stage.run("base", seats=SEATS[:1]) == {"base": status}
    assert packings == [None, FED.packing.halved]
    assert FED.packing.halved.rung == "tree"
    assert not FED.packing.halved.same_as(FED.packing)
    notes = [event.text for _, event in stage.said if isinstance(event, Note)]
    with_less = "Another worker takes over with half as much at once, which moves sums in the last digits."
    assert notes == [f"Memory ran out. {with_less}"]


@pytest.mark.parametrize(("seats", "ready"), [(GPUS, True), (SEATS[:2], False)])
def test_the_next_variants_process_gets_ready_while_a_gpu_is_at_work(
    tmp_path: Path, seats: tuple[Seat, ...], ready: bool
) -> None:
    def play(job: Job, listen: Callable[[Event], None]) -> Result:
        listen(Todo((("task", 10),), 0))
        listen(Progress("task", 1))
        return done(job, listen)

    stage = Stage(tmp_path, play)
    stage.run("base", "a", "b", seats=seats)
    assert bool(stage.prepared) == ready
    assert all(environment in [seat.environment for seat in seats] for environment in stage.prepared)


def test_without_any_gpu_left_every_variant_says_so(tmp_path: Path) -> None:
    def play(job: Job, listen: Callable[[Event], None]) -> Result:
        listen(Failed("It is gone.", lost="device"))
        return Result(job.variant, "failed", error="It is gone.")

    stage = Stage(tmp_path, play)
    assert stage.run("base", "a") == {"base": "failed", "a": "failed"}
    assert {result.error for result in stage.results.values()} == {"No device is left for it: It is gone."}


def test_a_person_who_stops_it_ends_every_worker(tmp_path: Path) -> None:
    def play(job: Job, listen: Callable[[Event], None]) -> Result:
        listen(Todo((("task", 10),), 0))
        assert stage.ended.wait(300)
        listen(Failed("It was ended.", lost="process"))
        return Result(job.variant, "failed")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    stage = Stage(tmp_path, play)
    stage.hear = stop
    with pytest.raises(KeyboardInterrupt):
        stage.run("base", "a")
    assert stage.results == {}


@pytest.mark.parametrize("why", [RuntimeError("can't start new thread"), KeyboardInterrupt()])
def test_a_thread_that_never_began_keeps_no_other_worker_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: BaseException
) -> None:
    """A thread that never began cannot be waited for."""
    begun: list[threading.Thread] = []

    class Unlucky(threading.Thread):
        def start(self) -> None:
            begun.append(self)
            if len(begun) > 1:
                raise why
            super().start()

    def play(job: Job, listen: Callable[[Event], None]) -> Result:
        listen(Todo((("task", 10),), 0))
        assert stage.ended.wait(300)
        return Result(job.variant, "failed")

    stage = Stage(tmp_path, play)
    monkeypatch.setattr(threading, "Thread", Unlucky)
    with pytest.raises(type(why)):
        stage.run("base", "a")
    assert len(begun) == 2
    assert stage.ended.is_set()
    assert stage.results == {}


def test_a_helper_that_only_starts_when_the_variant_has_its_end_is_ended_as_soon_as_it_speaks(
    tmp_path: Path,
) -> None:
    """There is no quiet moment in which to look for it while others speak."""
    stage = Stage(tmp_path, done)
    hands = pool.Hands(stage.execute, stage.end, stage.prepared.append, stage.hear, stage.done)
    one = pool.Pool([], SEATS, hands, gated=False)
    crew = a_crew(tmp_path, over=True)
    helper = pool.Worker(SEATS[1], crew, crew.job, began=0.0)
    one.at_work[7] = helper
    one._heard_helper(7, helper, Progress("task", 3))
    assert stage.ended.is_set()
    assert stage.said == []


def test_what_an_executor_raises_is_raised(tmp_path: Path) -> None:
    def play(*_: object) -> Result:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Stage(tmp_path, play).run("base", "a")


def test_who_has_nothing_else_to_do_helps_and_all_together_are_one_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helped = threading.Event()

    def play(job: Job, listen: Callable[[Event], None]) -> Result:
        if job.part == "help":
            assert job.packing == FED.packing
            assert job.verify == 0
            assert Path(job.log).name == "base-1.log"
            listen(Fed(Packing("another", 0, 0, 0, 0)))
            listen(Note("as the others say"))
            listen(Progress("task", 30))
            helped.set()
            assert stage.ended.wait(300)
            listen(Failed("It was ended.", lost="process"))
            return Result(job.variant, "failed")
        listen(Todo((("task", 100),), 0))
        listen(FED)
        listen(Progress("task", 10))
        assert helped.wait(300)
        listen(Progress("task", 50, taken=20))
        listen(Done())
        return Result(job.variant, "done")

    monkeypatch.setattr(
        pool.Crew, "wants_help", lambda crew, _: bool(crew.lead and crew.lead.first and not crew.helpers)
    )
    stage = Stage(tmp_path, play)
    assert stage.run("base") == {"base": "done"}
    assert stage.began == [("base", "lead", "0"), ("base", "help", "1")]
    assert [event for _, event in stage.said if isinstance(event, Fed)] == [FED]
    assert not [event for _, event in stage.said if isinstance(event, Note)]
    counts = [event.done for _, event in stage.said if isinstance(event, Progress)]
    assert counts == [10, 40, 60]  # 50, of which 20 are among the 30


def a_crew(tmp_path: Path, **changes: object) -> pool.Crew:
    """A variant of 1000 requests of which 100 are answered after 10 s, and 20 s before for its loading."""
    job = a_job("base", tmp_path)
    crew = pool.Crew(job, total=1000, done=100, packing=FED.packing)
    crew.lead = pool.Worker(SEATS[0], crew, job, began=0.0, first=20.0)
    for name, value in changes.items():
        setattr(crew, name, value)
    return crew


@pytest.mark.parametrize(
    ("changes", "wants"),
    [
        ({}, True),  # 90 s are left, 45 s each
        ({"done": 400}, False),  # 15 s are left
        ({"done": 0}, False),  # nothing is known
        ({"shared_out": True}, False),
        ({"packing": None}, False),
        ({"packing": Packing("CPU", 1, 1, 1, 4)}, False),  # the path is not known yet
        ({"lead": None}, False),
    ],
)
def test_a_further_worker_begins_only_where_more_is_left_than_its_loading(
    tmp_path: Path, changes: dict[str, object], wants: bool
) -> None:
    assert a_crew(tmp_path, **changes).wants_help(30.0) is wants
