"""How an unfinished run stands, by its lock, its workers and its plan, and how that is said."""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from factories import first_samples, make_cell

from qeval.base import next_steps
from qeval.base.hashing import digest, digested
from qeval.base.next_steps import UNKNOWN, Standing
from qeval.base.records import Cell, Result, Run, Scheme, Suite, Task, Variant
from qeval.store import lock
from qeval.store.leases import Holder
from qeval.store.runs import RunDir
from qeval.store.standing import standing, standings
from qeval.store.work import Plan, Work

RTN = Variant("rtn", "toy", Scheme("rtn"))
RUN = Run(
    "r", "", "toy", Suite("s", ()), "rtn", (Result(RTN, "partial"),), command=("qeval", "run", "--prepare")
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    (tmp_path / "my runs" / "r").mkdir(parents=True)
    monkeypatch.setenv("QEVAL_RUNS_DIR", str(tmp_path / "my runs"))
    return RunDir(tmp_path / "my runs" / "r")


def planned(place: RunDir, *, worker: float = 0.0) -> None:
    """Plan the run; where a worker has so many seconds, one of another machine is at it."""
    work = Work(place.work)
    work.write(Plan((), {}, "mark"))
    if worker:
        work.holders.write(Holder("far-7", "far", "far/0/1", 7, worker))


def test_one_whose_lock_is_held_is_at_work_and_then_interrupted(place: RunDir) -> None:
    with lock.held(place.path):
        found = standing(place, RUN)
        assert found.state == "at work"
        told = next_steps.unfinished(RUN, found)
        assert told == "The run is still at work. Unfinished: rtn. Wait for it."
    found = standing(place, RUN)
    assert found.state == "interrupted"
    assert next_steps.unfinished(RUN, found) == (
        "The run was interrupted. Unfinished: rtn. Go on with: qeval run"
    )
    assert list(place.path.iterdir()) == []


def test_one_that_is_planned_is_prepared_unless_workers_are_at_it(place: RunDir) -> None:
    planned(place)
    found = standing(place, RUN)
    assert found.state == "prepared"
    told = next_steps.unfinished(RUN, found)
    worker = f"qeval worker '{place.path}'"
    assert told.endswith(f"rtn. Go on with: {worker}, then: qeval run --finish")
    planned(place, worker=120.0)
    found = standing(place, RUN)
    assert found.state == "workers"
    assert next_steps.unfinished(RUN, found) == (
        "Workers are at work on the run. Unfinished: rtn. Wait for them with: qeval run --finish"
    )
    with lock.held(place.path):  # by the command that will finish it
        assert standing(place, RUN).state == "at work"
    planned(place, worker=1e9)
    assert standing(place, RUN).state == "prepared"


def test_one_whose_workers_are_waited_for_and_are_not_there_wants_one(place: RunDir) -> None:
    planned(place)
    with lock.held(place.path):
        told = next_steps.unfinished(RUN, standing(place, RUN))
    assert told.startswith("A command waits for the workers of the run, and nobody is at work on it.")
    assert told.endswith(f"Start a worker with: qeval worker '{place.path}'")


@pytest.mark.parametrize(("status", "failed"), [("done", ""), ("failed", ", and rtn failed")])
def test_one_of_which_workers_left_nothing_is_scored_and_not_finished(
    place: RunDir, status: str, failed: str
) -> None:
    planned(place)
    work = Work(place.work)
    work.keep(Result(RTN, status), "of an earlier plan")
    assert standing(place, RUN).state == "prepared"
    work.keep(Result(RTN, status), "mark")
    assert next_steps.unfinished(RUN, standing(place, RUN)) == (
        f"The run is scored, not finished{failed}. Finish it with: qeval run --finish"
    )


BNB4 = Variant("bnb4", "toy", Scheme("bnb4"))
A, B, LAW, MATHS = (
    Task(name, "acc", group="mmlu" if name.startswith("mmlu_") else None)
    for name in ("a", "b", "mmlu_law", "mmlu_maths")
)
KNOWN = replace(
    RUN,
    suite=Suite("s", (A, B, Task("mmlu", "acc"))),
    results=tuple(Result(one, "partial", variant_digest=digest({"scheme": one.name})) for one in (RTN, BNB4)),
)


def cell_of(place: RunDir, scheme: str, task: Task) -> Cell:
    """Store a cell of the variant of a scheme."""
    samples = first_samples(task, 8, np.random.default_rng(0))
    told = digested({"task": msgspec.to_builtins(task), "variant": {"scheme": scheme}})
    key = hashlib.sha256(told.encode()).hexdigest()
    return place.add(make_cell(key, task, samples), samples, (), told)


def test_the_tasks_that_an_interrupted_variant_has_are_told_and_those_that_it_lacks(place: RunDir) -> None:
    for task in (A, LAW):
        cell_of(place, "rtn", task)
    cell_of(place, "hqq", B)  # of nobody here
    damaged = cell_of(place, "bnb4", B)
    (place.path / "cells" / damaged.key / "cell.json").write_text("{")
    found = standing(place, KNOWN)
    assert {name: {task.name for task in tasks} for name, tasks in found.kept.items()} == {
        "rtn": {"a", "mmlu_law"}
    }
    told = next_steps.unfinished(KNOWN, found)
    assert told.startswith(
        "The run was interrupted. Unfinished: rtn (scored: a, 1 of mmlu's tasks; missing: b,"
    )
    assert "missing: b, the rest of mmlu), bnb4. Go on with: " in told
    assert next_steps.not_yet("rtn", "", found) == "the run was interrupted before rtn was fully scored."
    assert next_steps.not_yet("bnb4", "", found) == "the run was interrupted before bnb4 was scored."


def test_a_group_is_whole_where_a_finished_variant_has_no_more_of_it(place: RunDir) -> None:
    for task in (A, B, LAW, MATHS):
        cell_of(place, "rtn", task)
    cells = tuple(cell_of(place, "bnb4", task) for task in (A, B, LAW, MATHS))
    run = replace(KNOWN, results=(KNOWN.results[0], Result(BNB4, "done", cells)))
    told = next_steps.unfinished(run, standing(place, run))
    assert "Unfinished: rtn (every task is scored). Go on" in told


def test_what_workers_have_finished_of_a_prepared_run_is_told(place: RunDir) -> None:
    planned(place)
    cells = tuple(cell_of(place, "rtn", task) for task in (A, B))
    Work(place.work).keep(Result(RTN, "done", cells), "mark")
    told = next_steps.unfinished(KNOWN, standing(place, KNOWN))
    assert (
        "nobody is at work on it. Unfinished: rtn (scored: a, b; missing: mmlu), bnb4. Go on with: " in told
    )


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("qeval", "run", "-m", "x"), "-m x --runs-dir '{}'"),
        (("qeval", "run", "--runs-dir", "other", "-m", "x"), "-m x --runs-dir '{}'"),
        (("qeval", "run", "--runs-dir=my runs", "-m", "x"), "'--runs-dir=my runs' -m x"),
    ],
)
def test_a_command_that_would_look_elsewhere_is_told_where_the_run_is(
    place: RunDir, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], words: str
) -> None:
    monkeypatch.delenv("QEVAL_RUNS_DIR")
    monkeypatch.chdir(place.path.parents[1])
    run = replace(RUN, command=command)
    found = standing(place, run)
    assert next_steps.go_on(run, found) == f"qeval run {words.format(place.path.parent)}"


@pytest.mark.parametrize(
    ("command", "again", "finish"),
    [
        ("--prepare -m x", "-m x", "-m x --finish"),
        ("-m x --finish --wait", "-m x", "-m x --finish"),
        ("-m x --executor slurm --wait", "-m x --executor slurm --wait", "-m x --finish"),
        ("-m x --executor=slurm --workers 3 --sbatch-args '-p a'", None, "-m x --finish"),
    ],
)
def test_what_goes_on_scores_and_what_finishes_scores_nothing(
    command: str, again: str | None, finish: str
) -> None:
    run = replace(RUN, command=("qeval", "run", *shlex.split(command)))
    assert next_steps.go_on(run) == f"qeval run {again or command}"
    assert next_steps.finish(run) == f"qeval run {finish}"
    assert next_steps.prepare(run) == f"qeval run {finish.replace('--finish', '--prepare')}"


def test_a_run_whose_command_nobody_knows_is_told_in_words() -> None:
    run = replace(RUN, command=())
    assert next_steps.unfinished(run).endswith("Go on with: the same qeval run")
    assert next_steps.finish(run) == "the same qeval run with --finish"


def test_a_place_that_is_not_to_be_told_is_not(place: RunDir) -> None:
    planned(place)
    [found] = standings([replace(RUN, id="run-1")], [(place, RUN)], told=False).values()
    assert "Go on with: qeval worker RUN, then: " in next_steps.unfinished(RUN, found)


@pytest.mark.parametrize("change", [{"source": "lm-eval"}, {"results": (Result(RTN, "done"),)}])
def test_of_a_finished_run_and_an_import_nothing_is_looked_at(
    place: RunDir, monkeypatch: pytest.MonkeyPatch, change: dict[str, object]
) -> None:
    monkeypatch.setattr(lock, "is_held", None)
    assert standing(place, replace(RUN, **change)) == UNKNOWN


def test_where_it_cannot_be_told_both_are_named(place: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(_folder: Path) -> bool:
        raise PermissionError

    monkeypatch.setattr(lock, "is_held", refuses)
    assert standing(place, RUN) == UNKNOWN
    assert "interrupted, or is still at work" in next_steps.unfinished(RUN)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("", "the run was interrupted before rtn was scored on a."),
        ("interrupted", "the run was interrupted before rtn was scored on a."),
        ("at work", "the run is still at work, and rtn is not scored on a yet."),
        ("workers", "the run is still at work, and rtn is not scored on a yet."),
        ("prepared", "the run is prepared, and rtn is not scored on a yet."),
        ("awaited", "the run is prepared, and rtn is not scored on a yet."),
        ("scored", "the run is scored, not finished."),
    ],
)
def test_what_is_not_scored_yet_says_why(state: str, said: str) -> None:
    assert next_steps.not_yet("rtn", " on a", Standing(state)) == said
