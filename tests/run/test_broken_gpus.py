"""A GPU that is taken away in the middle: its work goes to the others, and nothing is started for ever."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qeval.base.errors import BrokenDeviceError, LostDeviceError
from qeval.base.messages import Done, Event, Failed, Fed, Finished, Job, Note, Progress, Todo
from qeval.base.packing import Packing
from qeval.base.records import Cell, Result, Samples, Scheme, Task, Variant
from qeval.base.repeats import scorings
from qeval.base.settings import Settings
from qeval.run import pool, runner, taking
from qeval.run.broken import Broken
from qeval.run.executors import EXECUTORS
from qeval.run.seats import Seat, Seats
from qeval.score import toy, worker
from qeval.store.leases import Holder, Leases
from qeval.store.runs import RunDir
from qeval.store.work import Part, Plan, Work

GPUS = tuple(Seat(number, {"SEAT": str(number)}, "cuda:0") for number in range(3))
CPUS = tuple(Seat(number, {"SEAT": str(number)}) for number in range(2))
FED = Fed(Packing("H100", 0, 8, 4, 4, rung="tree"))
CUDA = "The GPU failed in the middle of the work: CUDA error: an illegal memory access was encountered."
TASKS = tuple(Task(name, "acc") for name in ("arc_easy", "piqa", "boolq"))
Listen = Callable[[Event], None]
MOST = 60
"""Starts after which a test says that it would go on for ever."""


def a_job(name: str, place: Path) -> Job:
    variant = Variant(name, "toy[items=5]", Scheme("fp16" if name == "fp16" else "rtn"))
    log = str(place / f"{name}.log")
    return Job(str(place), "r", variant, {"n": name}, {}, TASKS, Settings(), "", str(place), log)


class Machine:
    """Fake workers that store the toy's answers, task after task, on seats whose GPUs are taken away.

    `works`: how many tasks the GPU of each seat still answers before it fails; those that are not named last.
    `bad` are variants under which every GPU fails.
    """

    def __init__(self, place: Path, works: dict[str, int] | None = None, bad: tuple[str, ...] = ()) -> None:
        self.place, self.works, self.bad, self.lost = place, works or {}, bad, "gpu"
        self.starts: list[tuple[str, str, str]] = []
        self.said: list[Event] = []
        self.results: dict[str, Result] = {}
        self.guard = threading.Lock()

    def execute(self, job: Job, listen: Listen) -> Result:
        seat, name = job.environment["SEAT"], job.variant.name
        with self.guard:
            self.starts.append((name, seat, job.part))
            assert len(self.starts) < MOST, "it is started for ever"
        store, cells = RunDir(self.place / "r"), list[Cell]()
        listen(Todo(tuple((task.name, 5) for task in job.tasks), 0))
        listen(FED)
        for done, task in enumerate(job.tasks, 1):
            if name in self.bad or not self._answers(seat):
                listen(Failed(CUDA, lost=self.lost))
                return Result(job.variant, "failed", tuple(cells), error=CUDA)
            cells.append(self._stored(store, name, task))
            listen(Finished(cells[-1]))
            listen(Progress(task.name, 5 * done))
        listen(Done())
        return Result(job.variant, "done", tuple(cells))

    def _answers(self, seat: str) -> bool:
        with self.guard:
            left = self.works.get(seat, MOST)
            self.works[seat] = left - 1
            return left > 0

    @staticmethod
    def _stored(store: RunDir, name: str, task: Task) -> Cell:
        key = f"{name}-{task.name}"
        if (found := store.whole(key)) is not None:
            return found
        samples: Samples
        samples, items = toy.score(task, Scheme("rtn"), toy_settings(), 1)
        cell = Cell(key, task, len(samples), len(samples), float(samples.value.mean()), texts=len(samples))
        return store.add(cell, samples, items)

    def run(self, *names: str, seats: tuple[Seat, ...] = GPUS[:2]) -> dict[str, str]:
        def hear(_: Job, event: Event) -> None:
            self.said.append(event)

        def done(job: Job, result: Result) -> None:
            self.results[job.variant.name] = result

        hands = pool.Hands(self.execute, lambda _: None, lambda _: None, hear, done)
        pool.Pool([a_job(name, self.place) for name in names], seats, hands, gated=False).work()
        return {name: result.status for name, result in self.results.items()}

    @property
    def notes(self) -> list[str]:
        return [event.text for event in self.said if isinstance(event, Note)]

    def bytes(self) -> dict[str, bytes]:
        found = (self.place / "r").glob("cells/*/samples.parquet")
        return {file.parent.name: file.read_bytes() for file in found}


def toy_settings():
    from qeval.load.toy import parse

    return parse("toy[items=5]")


NAMES = ("fp16", "a", "b", "c")


@pytest.mark.parametrize("tasks", [0, 1, 2, 5])
def test_a_gpu_that_fails_at_every_start_after_it_worked_leaves_its_work_to_the_others(
    tmp_path: Path, tasks: int
) -> None:
    whole, found = Machine(tmp_path / "whole"), Machine(tmp_path / "lost", {"1": tasks})
    everything = dict.fromkeys(NAMES, "done")
    assert whole.run(*NAMES) == everything
    assert found.run(*NAMES) == everything
    assert found.bytes() == whole.bytes()
    assert len(found.bytes()) == len(NAMES) * len(TASKS)
    broken = [start for start in found.starts if start[1] == "1"]
    assert len(broken) <= tasks + 2, "it was begun there again and again"
    assert all(
        note in {f"{CUDA} Another worker takes over.", f"Worker 2 is given up: {CUDA}"}
        for note in found.notes
    )
    assert found.notes.count(f"Worker 2 is given up: {CUDA}") <= 1
    assert not [event for event in found.said if isinstance(event, Failed)]


def test_the_only_variant_goes_on_elsewhere_and_one_sentence_tells_it(tmp_path: Path) -> None:
    found = Machine(tmp_path, {"0": 1})
    assert found.run("fp16") == {"fp16": "done"}
    assert found.starts == [("fp16", "0", "lead"), ("fp16", "1", "lead")]
    assert found.notes == [f"{CUDA} Another worker takes over."]
    assert len(found.results["fp16"].cells) == len(TASKS)


def test_with_one_gpu_it_is_tried_again_there_and_not_for_ever(tmp_path: Path) -> None:
    found = Machine(tmp_path, {"0": 1})
    assert found.run("fp16", "a", seats=GPUS[:1]) == {"fp16": "failed", "a": "failed"}
    assert Counter(name for name, _, _ in found.starts) == {"fp16": 3, "a": 2}
    assert [event.message for event in found.said if isinstance(event, Failed)] == [CUDA, CUDA]


def test_a_variant_that_breaks_every_gpu_fails_alone(tmp_path: Path) -> None:
    found = Machine(tmp_path, bad=("a",))
    assert found.run(*NAMES) == {"fp16": "done", "a": "failed", "b": "done", "c": "done"}
    leads = Counter(name for name, _, part in found.starts if part == "lead")
    assert leads == {"fp16": 1, "a": 2, "b": 1, "c": 1}
    assert len({seat for name, seat, _ in found.starts if name == "a"}) == 2, "it was not tried elsewhere"
    assert found.notes == [f"{CUDA} Another worker takes over."]


def test_several_such_variants_do_the_others_no_harm(tmp_path: Path) -> None:
    found = Machine(tmp_path, bad=("a", "b"))
    assert found.run(*NAMES) == {"fp16": "done", "a": "failed", "b": "failed", "c": "done"}


def test_whose_fault_it_is() -> None:
    broken = Broken(GPUS)
    zero, one, two = GPUS
    assert not broken.at_fault(zero, "a")
    assert broken.shuns("a", zero)
    assert not broken.shuns("a", one)
    assert not broken.at_fault(one, "a"), "a breaks whatever it is on"
    assert not broken.at_fault(one, "b")
    assert not broken.at_fault(zero, "b")
    assert broken.shuns("a", zero)
    assert not broken.at_fault(two, "a")
    assert not broken.shuns("a", zero), "there is no better one"
    broken.forgive("a")
    broken.forgive("b")
    assert not broken.under("a", zero)
    assert not broken.at_fault(zero, "c")
    assert broken.at_fault(zero, "d"), "two that broke no other"
    broken.give_up(zero)
    broken.give_up(one)
    assert not broken.at_fault(two, "c")
    assert not broken.at_fault(two, "d"), "it is the last one"
    assert not Broken(CPUS).at_fault(CPUS[0], "a")


@pytest.mark.parametrize("dead", [3, 5, 7])
def test_devices_that_are_gone_are_held_against_no_variant(tmp_path: Path, dead: int) -> None:
    seats = tuple(Seat(number, {"SEAT": str(number)}, "cuda:0") for number in range(8))
    found = Machine(tmp_path, {str(number): 0 for number in range(dead)})
    found.lost = "device"
    assert found.run("fp16", "a", seats=seats) == {"fp16": "done", "a": "done"}
    assert len(found.notes) == dead


@pytest.mark.parametrize(
    ("seats", "lost", "answers", "most"),
    [(GPUS[:2], "gpu", 3, 1), (GPUS[:2], "gpu", 0, 1), (CPUS, "process", 3, 4), (CPUS, "process", 0, 2)],
)
def test_helpers_that_fail_are_not_started_for_ever(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seats: tuple[Seat, ...],
    lost: str,
    answers: int,
    most: int,
) -> None:
    helped, over = itertools.count(), threading.Event()

    def execute(job: Job, listen: Listen) -> Result:
        if job.part == "help":
            if next(helped) >= MOST:
                over.set()
            listen(Progress("task", answers))
            listen(Failed(CUDA, lost=lost))
            return Result(job.variant, "failed", error=CUDA)
        listen(Todo((("task", 100),), 0))
        listen(FED)
        listen(Progress("task", 10))
        assert over.wait(120)
        listen(Done())
        return Result(job.variant, "done")

    def hear(_: Job, event: Event) -> None:
        if isinstance(event, Note):
            notes.append(event.text)

    notes: list[str] = []
    asked = itertools.count()

    def wants(crew: pool.Crew, _: float) -> bool:
        wanted = bool(crew.lead and crew.lead.first and not crew.helpers and not crew.shared_out)
        if crew.shared_out or (wanted and next(asked) >= MOST):
            over.set()  # nobody was begun in spite of so many questions
        return wanted

    monkeypatch.setattr(pool.Crew, "wants_help", wants)
    monkeypatch.setattr(pool, "_TICK_SECONDS", 0.001)
    results: list[Result] = []
    hands = pool.Hands(
        execute, lambda _: None, lambda _: None, hear, lambda _, result: results.append(result)
    )
    pool.Pool([a_job("fp16", tmp_path)], seats, hands, gated=False).work()
    assert next(helped) == most
    assert [result.status for result in results] == ["done"]
    assert notes == [f"A further worker ended early: {CUDA}"] * most


def test_what_comes_after_the_variants_sits_where_the_device_is_not_lost(
    qeval: Any, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Repeats, and what is measured of fidelity, had the first seat."""
    usual, sat = EXECUTORS["local"], list[tuple[str, str]]()

    def execute(job: Job, listen: Listen) -> Result:
        sat.append((job.variant.name, job.environment["SEAT"]))
        if job.environment["SEAT"] == "0":
            listen(Failed("There is no device 'cuda:0' here.", lost="device"))
            return Result(job.variant, "failed", error="There is no device 'cuda:0' here.")
        return usual(job, listen)

    monkeypatch.setattr(runner, "_seated", lambda _: Seats(GPUS[:2]))
    monkeypatch.setitem(EXECUTORS, "local", execute)
    words = ("--model", "toy[items=5]", "--schemes", "fp16,rtn", "--tasks", "arc_easy")
    qeval("run", *words, "--repeat-baseline")
    assert [seat for _, seat in sat].count("0") == 1
    assert len({name for name, _ in sat}) == 3, "nothing was repeated"
    [file] = runs_dir.glob("*/run.json")
    assert {one.status for one in scorings(RunDir(file.parent).read())} == {"done"}


def test_the_best_seat_is_one_whose_gpu_never_gave_up(tmp_path: Path) -> None:
    hands = pool.Hands(lambda *_: Result(a_job("a", tmp_path).variant, "done"), *[lambda *_: None] * 4)
    one = pool.Pool([], GPUS, hands, gated=False)
    assert one.best == GPUS[0]
    one.broken.at_fault(GPUS[0], "a")
    assert one.best == GPUS[1]
    one.free.clear()
    assert one.best is None


def test_a_gpu_that_gave_up_is_told_from_one_that_is_not_there() -> None:
    assert worker._lost(BrokenDeviceError("", "")) == "gpu"
    assert worker._lost(LostDeviceError("", "")) == "device"


# --- workers that nobody conducts


def planned(tmp_path: Path, *names: str) -> tuple[RunDir, Work]:
    place = RunDir(tmp_path / "r")
    parts = tuple(Part(a_job(name, tmp_path)) for name in names)
    Work(place.work).write(Plan(parts, {}, "mark"))
    return place, Work(place.work)


def another(work: Work) -> None:
    """Somebody else is at work."""
    work.holders.write(Holder("other", "far", "far/0/1", 7))


def a_taker(place: RunDir, heard: list[Event] | None = None) -> taking.Taker:
    said = [] if heard is None else heard
    plan = Work(place.work).plan()
    assert plan is not None
    return taking.Taker(place, plan, Seat(), lambda _, event: said.append(event), 60)


def fails(lost: str) -> Callable[[Job, Listen], Result]:
    def execute(job: Job, listen: Listen) -> Result:
        listen(Todo((("task", 5),), 0))
        listen(Failed(CUDA, lost=lost))
        return Result(job.variant, "failed", error=CUDA)

    return execute


@pytest.mark.parametrize("lost", ["gpu", "process"])
def test_a_machine_whose_gpu_fails_under_two_variants_leaves_them_to_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    place, work = planned(tmp_path, "fp16", "a", "b")
    another(work)
    monkeypatch.setitem(EXECUTORS, "local", fails(lost))
    taker = a_taker(place)
    assert taker.lead(taker.left())
    with pytest.raises(LostDeviceError, match="is given up: The GPU failed"):
        taker.lead(taker.left())
    assert [part.job.variant.name for part in taker.left()] == ["fp16", "a", "b"], "nobody's result is that"
    leases = Leases(work.holders, "next")
    assert [len(leases.dead(work.lead(name))) for name in ("fp16", "a", "b")] == [1, 0, 0]
    assert leases.take(work.lead("a"))


def test_a_worker_that_died_of_a_variant_leaves_it_to_the_others_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, work = planned(tmp_path, "a")
    another(work)
    monkeypatch.setitem(EXECUTORS, "local", fails("gpu"))
    taker = a_taker(place)
    assert taker.lead(taker.left())
    assert not taker.lead(taker.left()), "it tried again"
    work.holders.write(Holder("other", "far", "far/0/1", 7, state="stopped"))
    assert taker.lead(taker.left()), "nobody else is there"
    assert taker.lead(taker.left())
    result = work.result("a", "mark")
    assert result is not None
    assert "2 workers died of it" in str(result.error)


def test_of_workers_that_all_died_of_a_variant_one_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, work = planned(tmp_path, "a")
    other = Leases(work.holders, "other")
    work.holders.write(Holder("other", "far", "far/0/1", 7))
    assert other.take(work.lead("a"))
    work.holders.write(Holder("other", "far", "far/0/1", 7, state="died", done=3))
    work.holders.write(Holder("same", "far", "far/0/1", 7))  # the same process, at something else
    monkeypatch.setitem(EXECUTORS, "local", fails("gpu"))
    taker = a_taker(place)
    assert taker.lead(taker.left())
    assert taker.lead(taker.left()), "everybody waits for somebody else"


def test_variants_that_break_everywhere_end_no_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, work = planned(tmp_path, "a", "b", "c")
    another(work)
    for name in ("a", "b"):
        work.holders.write(Holder(f"of-{name}", "far", "far/0/1", 7, state="died", done=3))
        assert Leases(work.holders, f"of-{name}").take(work.lead(name))
    usual = fails("gpu")

    def execute(job: Job, listen: Listen) -> Result:
        return Result(job.variant, "done") if job.variant.name == "c" else usual(job, listen)

    monkeypatch.setitem(EXECUTORS, "local", execute)
    taker = a_taker(place)
    for _ in range(MOST):
        if left := taker.left():
            assert taker.lead(left)
    found = {name: work.result(name, "mark") for name in ("a", "b", "c")}
    assert {name: one and one.status for name, one in found.items()} == {
        "a": "failed",
        "b": "failed",
        "c": "done",
    }
