"""The contract of every executor: events in order, cells on disk, a crash is a Result and not a crash."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from qeval.ask import suites
from qeval.base.messages import Done, Event, Failed, Finished, Job, Planned
from qeval.base.records import Scheme, Settings, Suite, Task, Variant
from qeval.run.executors.local import EXECUTORS
from qeval.store.runs import Store

TASKS = (Task("arc_challenge", "acc_norm"), Task("hellaswag", "acc_norm"))


@pytest.fixture(params=sorted(EXECUTORS))
def execute(request: pytest.FixtureRequest):
    return EXECUTORS[request.param]


def a_job(runs_dir: Path, model: str = "toy[items=20]", tasks: tuple[Task, ...] = TASKS) -> Job:
    return Job(
        runs_dir=str(runs_dir),
        run_id="r",
        variant=Variant("bnb4", model, Scheme("bnb4")),
        identity={"model": model},
        context={},
        tasks=tasks,
        settings=Settings(),
        tasks_dir=str(suites.tasks_dir()),
        cache_dir=str(runs_dir),
        log=str(runs_dir / "r" / "logs" / "bnb4.log"),
    )


def test_a_variant_is_scored_and_told_of_in_order_and_a_second_time_found(execute, runs_dir: Path) -> None:
    events: list[Event] = []
    result = execute(a_job(runs_dir), events.append)
    assert result.status == "done"
    assert [cell.task.name for cell in result.cells] == ["arc_challenge", "hellaswag"]
    kinds = [type(event) for event in events]
    assert kinds[0] is Planned
    assert kinds[-1] is Done
    assert kinds.count(Finished) == 2
    place = Store(runs_dir).run_dir("r")
    for cell in result.cells:
        assert len(place.samples(cell)) == cell.n == 20
    second = execute(a_job(runs_dir), events.append)
    assert second.cells == result.cells
    assert Planned((), 2) in events


def test_a_failure_is_a_result_with_a_sentence(execute, runs_dir: Path) -> None:
    result = execute(a_job(runs_dir, "toy[fail=bnb4]"), lambda _: None)
    assert result.status == "failed"
    assert "told to fail" in str(result.error)
    assert "Traceback" in (runs_dir / "r" / "logs" / "bnb4.log").read_text()


def _children() -> list[int]:
    mine = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, rest = path.read_text().split(" ", 1)
        except OSError:
            continue
        if int(rest.rsplit(")", 1)[1].split()[1]) == os.getpid():
            mine.append(int(pid))
    return mine


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to find the process")
def test_a_killed_process_keeps_what_it_finished(execute, runs_dir: Path) -> None:
    before = set(_children())

    def kill(event: Event) -> None:
        if isinstance(event, Finished):
            for pid in set(_children()) - before:
                os.kill(pid, signal.SIGKILL)

    events: list[Event] = []
    result = execute(a_job(runs_dir, "toy[items=20,delay=0.5]"), lambda e: (events.append(e), kill(e)))
    assert result.status == "failed"
    assert "killed" in str(result.error)
    assert [cell.task.name for cell in result.cells] == ["arc_challenge"]
    assert isinstance(events[-1], Failed)


def test_stopping_the_listener_stops_the_process(execute, runs_dir: Path) -> None:
    def stop(_: Event) -> None:
        raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        execute(a_job(runs_dir, "toy[items=20,delay=30]"), stop)
    assert time.monotonic() - start < 15


def test_two_at_once_share_a_store(execute, runs_dir: Path) -> None:
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(execute(a_job(runs_dir), lambda _: None)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.status for result in results] == ["done"] * 2
    scores = {tuple(cell.score for cell in result.cells) for result in results}
    assert len(scores) == 1


def test_a_suite_of_groups(execute, runs_dir: Path) -> None:
    suite = Suite("s", (Task("mmlu", "acc", limit=2),))
    result = execute(a_job(runs_dir, tasks=suite.tasks), lambda _: None)
    assert len(result.cells) == 57
    assert {cell.task.group for cell in result.cells} == {"mmlu"}
