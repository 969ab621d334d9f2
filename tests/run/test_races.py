"""Workers that meet: two that start at once, one that was only slow, one that died before it could tell."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from qeval.base.messages import Done, Event, Failed, Finished, Job, Progress, Todo
from qeval.base.records import Cell, Result, Scheme, Task, Variant
from qeval.base.settings import Settings
from qeval.load.toy import parse
from qeval.run import pool, taking
from qeval.run.executors import EXECUTORS
from qeval.run.seats import Seat
from qeval.score import toy
from qeval.store import leases
from qeval.store.leases import Holders, Leases
from qeval.store.runs import RunDir
from qeval.store.shards import TRIES, Answered, Shards
from qeval.store.work import Part, Plan, Work

Listen = Callable[[Event], None]
SOME = Answered("name", 4, 99, b"12345678", b"87654321", b"\1")
TASKS = tuple(Task(name, "acc") for name in ("arc_easy", "piqa"))


def a_job(name: str, place: Path) -> Job:
    variant = Variant(name, "toy[items=5]", Scheme("rtn"))
    log = str(place / f"{name}.log")
    return Job(str(place), "r", variant, {"n": name}, {}, TASKS, Settings(), "", str(place), log)


@pytest.fixture
def place(tmp_path: Path) -> RunDir:
    """A run of which two variants are planned."""
    found = RunDir(tmp_path / "r")
    Work(found.work).write(Plan(tuple(Part(a_job(name, tmp_path)) for name in ("a", "b")), {}, "mark"))
    return found


def a_taker(place: RunDir) -> taking.Taker:
    plan = Work(place.work).plan()
    assert plan is not None
    return taking.Taker(place, plan, Seat(), lambda *_: None, 60)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`elsewhere(host)`: from now on this process is one of that machine's."""

    def move(host: str) -> None:
        monkeypatch.setattr(leases.socket, "gethostname", lambda: host)
        monkeypatch.setattr(leases, "machine", lambda: f"{host}/0/1")

    return move


@pytest.mark.parametrize("hosts", [("one", "one"), ("one", "two")])
def test_a_worker_that_is_started_twice_takes_each_variant_once(
    place: RunDir, monkeypatch: pytest.MonkeyPatch, elsewhere: Callable[[str], None], hosts: tuple[str, str]
) -> None:
    """The second one begins while the first is at work, and finds the other variant, then none."""
    led: list[str] = []

    def execute(job: Job, listen: Listen) -> Result:
        led.append(job.variant.name)
        listen(Todo((("task", 5),), 0))
        if len(led) == 1:
            elsewhere(hosts[1])
            second = a_taker(place)
            assert second.lead(second.left())
            assert [part.job.variant.name for part in second.left()] == ["a"]
            assert not second.lead(second.left())
            elsewhere(hosts[0])
        listen(Done())
        return Result(job.variant, "done")

    monkeypatch.setitem(EXECUTORS, "local", execute)
    elsewhere(hosts[0])
    first = a_taker(place)
    assert first.lead(first.left())
    assert led == ["a", "b"]
    assert first.left() == []
    assert not first.outcomes() - {"done"}


def test_who_was_only_slow_goes_on_and_what_both_keep_is_the_same(
    place: RunDir, elsewhere: Callable[[str], None]
) -> None:
    """Its time ran out in the middle of a shard: another one takes that over, and then it wakes."""
    holders = Holders(place.work / "holders")

    def a_book(host: str) -> tuple[leases.Beating, Shards]:
        elsewhere(host)
        beat = leases.Beating(holders, 60, host)
        holders.write(beat.holder)
        return beat, Shards(place.path / "shards", helps=False, leases=Leases(holders, host))

    beat, slow = a_book("slow")
    assert slow.take(1)
    assert slow.begin(1)
    then = time.time() - 61
    os.utime(holders.folder / "slow.json", (then, then))
    _, other = a_book("other")
    assert other.take(1)
    assert other.begin(1)
    assert other.is_suspect(1)
    beat.tell(now=True)
    slow.write(1, SOME)
    slow.leave(1)
    slow.close()
    assert not other.is_suspect(1), "it lives"
    _, third = a_book("third")
    assert third.read(1, "name") == SOME
    assert not third.take(1), "who was slow gave away what was another's by now"
    other.write(1, SOME)
    other.close()
    assert third.take(1)
    assert third.read(1, "name") == SOME


@pytest.mark.parametrize("leased", [True, False])
def test_a_shard_that_was_kept_and_not_told_of_is_read_and_kills_nobody(place: RunDir, leased: bool) -> None:
    """Its worker died between the two, again and again."""
    holders = Holders(place.work / "holders")
    for number in range(TRIES + 1):
        beat = leases.Beating(holders, 60, f"worker-{number}")
        holders.write(beat.holder)
        own = Leases(holders, f"worker-{number}") if leased else None
        book = Shards(place.path / "shards", helps=False, leases=own)
        if number == TRIES:
            assert book.read(1, "name") == SOME, "before anybody asks how many died of it"
            return
        assert book.take(1)
        assert book.begin(1)
        book.write(1, SOME)
        beat.tell(now=True, state="died")
        if book._lock is not None:
            os.close(book._lock)  # as the system does with what a process had


def test_a_cell_that_was_kept_and_not_told_of_is_found_by_the_next(tmp_path: Path) -> None:
    kept = RunDir(tmp_path / "r")
    scored: list[str] = []

    def stored(name: str) -> Cell:
        if (found := kept.whole(name)) is not None:
            return found
        scored.append(name)
        samples, items = toy.score(Task(name, "acc"), Scheme("rtn"), parse("toy[items=5]"), 1)
        cell = Cell(
            name,
            Task(name, "acc"),
            len(samples),
            len(samples),
            float(samples.value.mean()),
            texts=len(samples),
        )
        return kept.add(cell, samples, items)

    def execute(job: Job, listen: Listen) -> Result:
        listen(Todo((("arc_easy", 5), ("piqa", 5)), 0))
        cells = [stored("arc_easy")]
        if len(scored) == 1 and not kept.whole("piqa"):
            stored("piqa")  # and then it died, of both of which it never told
            listen(Failed("It was killed.", lost="process"))
            return Result(job.variant, "failed", error="It was killed.")
        cells.append(stored("piqa"))
        for cell in cells:
            listen(Finished(cell))
            listen(Progress(cell.task.name, 5))
        listen(Done())
        return Result(job.variant, "done", tuple(cells))

    results: list[Result] = []
    hands = pool.Hands(execute, *[lambda *_: None] * 3, lambda _, result: results.append(result))
    pool.Pool([a_job("a", tmp_path)], [Seat(0), Seat(1)], hands, gated=False).work()
    assert [(one.status, len(one.cells)) for one in results] == [("done", 2)]
    assert scored == ["arc_easy", "piqa"], "something was scored twice"
