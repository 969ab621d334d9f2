"""How an unfinished run stands, by its lock, its workers and its plan, and how that is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from qeval.base import next_steps
from qeval.base.next_steps import UNKNOWN, Standing
from qeval.base.records import Result, Run, Scheme, Suite, Variant
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
def place(tmp_path: Path) -> RunDir:
    (tmp_path / "my runs" / "r").mkdir(parents=True)
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
    assert standing(place, RUN).state == "at work"
    planned(place, worker=1e9)
    assert standing(place, RUN).state == "prepared"


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
        ("prepared", "the run is prepared, and rtn is not scored on a yet."),
    ],
)
def test_what_is_not_scored_yet_says_why(state: str, said: str) -> None:
    assert next_steps.not_yet("rtn", " on a", Standing(state)) == said
