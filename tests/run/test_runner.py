"""What a run keeps of its variants: costs that an earlier command stored, and how they are fed."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from qeval.ask import order as orders
from qeval.base import installed
from qeval.base.costs import Cost, Timing
from qeval.base.messages import Fed, Job, Progress
from qeval.base.packing import Packing
from qeval.base.records import Result
from qeval.run import ahead, runner
from qeval.run.executors import EXECUTORS
from qeval.run.seats import Seat
from qeval.store import lock

SCORED = Cost("here", 9.0, 99)
FIRST, SECOND = ({"prefill": Timing(value, value, value, 3, "ms/token")} for value in (1.0, 2.0))


@pytest.fixture
def run(qeval: Any, runs_dir: Path, monkeypatch: pytest.MonkeyPatch):
    """`run(found, cost=None, again=False)`: run one toy variant, whose cost is `found` if it is run at all;
    returns the stored cost and whether it was run."""
    assert qeval
    score = EXECUTORS["local"]  # in this process, which is `qeval`'s doing

    def call(found: Cost | None, *, cost: bool | None = None, again: bool = False) -> tuple[Any, bool]:
        jobs: list[Job] = []

        def execute(job: Job, listen: Any) -> Any:
            jobs.append(job)
            return replace(score(job, listen), cost=found)

        monkeypatch.setitem(EXECUTORS, "local", execute)
        order = an_order(runs_dir, cost=cost, again=again)
        [result] = runner.execute(order, lambda *_: None).read().results
        assert result.cells
        return result.cost, bool(jobs)

    return call


def an_order(runs_dir: Path, *, cost: bool | None = None, again: bool = False) -> orders.Order:
    """One toy variant on one task."""
    asked = dict.fromkeys(("suite", "num_fewshot", "baseline", "revision", "adapter", "gate"))
    return orders.order(
        model="toy[items=5]",
        schemes="fp16",
        tasks="arc_easy",
        limit=None,
        runs_dir=runs_dir,
        command=(),
        verify=0,
        cost=cost,
        again=again,
        no_materialize=False,
        datasets_dir=None,
        **asked,
    )


def test_a_finished_run_is_measured_once_where_that_is_asked_for(run) -> None:
    assert run(SCORED) == (SCORED, True)
    assert run(None) == (SCORED, False)
    assert run(Cost("here", 1.0, None, FIRST), cost=True) == (Cost("here", 1.0, 99, FIRST), True)
    assert run(None, cost=True)[1] is False


@pytest.mark.parametrize(
    ("later", "asked", "kept"),
    [
        (None, None, True),
        (None, True, True),
        (SCORED, False, True),
        (Cost("here", 1.0, 1, SECOND), None, True),  # the quick ones, which nobody asked for
        (Cost("here", notes=("Not measured: it broke.",)), True, True),
        (Cost("here", 1.0, 1, SECOND), True, False),
    ],
)
def test_measures_give_way_only_to_measures_that_were_asked_for(run, later, asked, kept) -> None:
    first = Cost("here", 1.0, 99, FIRST)
    run(first, cost=True)
    assert run(later, cost=asked, again=True) == (first if kept else later, True)


def test_what_other_hardware_took_is_not_mixed_in(run) -> None:
    run(SCORED)
    elsewhere = Cost("elsewhere", 1.0, None, FIRST)
    assert run(elsewhere, cost=True) == (elsewhere, True)


def test_a_failed_measuring_keeps_load_time_and_peak_and_says_why(run) -> None:
    run(SCORED)
    failed = Cost("here", notes=("Not measured: it broke.",))
    assert run(failed, cost=True) == (replace(SCORED, notes=failed.notes), True)


def test_how_a_variant_is_fed_is_kept_though_its_worker_dies(
    qeval: Any, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert qeval
    packing, jobs = Packing("CPU AVX2", 2, 4096, 4, 4, rung="Plain batches"), []

    def dies(_: Job, listen: Any) -> Result:
        listen(Fed(packing))
        raise KeyboardInterrupt

    def looks(job: Job, _: Any) -> Result:
        jobs.append(job)
        return Result(job.variant, "done")

    monkeypatch.setitem(EXECUTORS, "local", dies)
    with pytest.raises(KeyboardInterrupt):
        runner.execute(an_order(runs_dir), lambda *_: None)
    monkeypatch.setitem(EXECUTORS, "local", looks)
    [result] = runner.execute(an_order(runs_dir), lambda *_: None).read().results
    assert [job.packing for job in jobs] == [packing]
    assert result.packing == packing


def test_a_second_command_on_the_same_run_is_refused_and_a_dead_ones_lock_is_not_heeded(
    qeval: Any, runs_dir: Path
) -> None:
    words = ("run", "--model", "toy[items=5]", "--schemes", "fp16", "--tasks", "arc_easy")
    qeval(*words)
    [place] = [file.parent for file in runs_dir.glob("*/run.json")]
    assert not (place / lock.LOCK_FILE).exists()
    with lock.held(place):
        said = qeval(*words, code=1).stderr
    assert f"Another qeval command is at work on {place.name}: process {os.getpid()}." in said
    dead = lock.Holder(os.getpid(), socket.gethostname(), began=1.0)
    (place / lock.LOCK_FILE).write_bytes(msgspec.json.encode(dead))
    assert "finished earlier" in qeval(*words).stderr


@pytest.mark.parametrize(("device", "times"), [("CPU AVX2", 0), ("NVIDIA H100", 1)])
def test_the_next_worker_gets_ready_while_a_gpu_is_at_work(runs_dir: Path, device: str, times: int) -> None:
    order = an_order(runs_dir)
    order = replace(order, variants=(*order.variants, replace(order.variants[0], name="last")))
    ready: list[Mapping[str, str]] = []
    hear = ahead.ahead_of(order, Seat(0, {"SEAT": "0"}), ready.append, lambda *_: None)
    for variant in order.variants:
        hear(variant, Fed(Packing(device, 0, 4096, 4, 4)))
        hear(variant, Progress("task", 1))
        hear(variant, Progress("task", 2))  # once is enough
    assert ready == [{"SEAT": "0"}] * times


def test_a_run_names_every_version_that_scored_it(qeval, runs_dir, monkeypatch) -> None:
    def scored(version: str, *words: str) -> str:
        monkeypatch.setattr(installed, "version", lambda: version)
        qeval("run", "--model", "toy[items=5]", "--tasks", "arc_easy,piqa", *words)
        [file] = runs_dir.glob("*/run.json")
        return msgspec.json.decode(file.read_bytes())["qeval_version"]

    assert scored("1", "--schemes", "fp16") == "1"
    assert scored("2", "--schemes", "fp16") == "1"  # nothing was scored
    assert scored("2", "--schemes", "fp16", "--again") == "1"
    shutil.rmtree(next(runs_dir.glob("*/cells/*")))
    assert scored("2", "--schemes", "fp16") == "1, 2"
    assert "1, 2" in qeval("show").stdout
    assert scored("3", "--schemes", "fp16") == "1, 2"
    shutil.rmtree(next(runs_dir.glob("*/cells")))
    assert scored("2", "--schemes", "fp16") == "2"  # of what 1 scored nothing is left


def test_cells_of_another_run_keep_the_version_that_scored_them(qeval, monkeypatch) -> None:
    """What is taken over is told with the version and the day that it was scored by, in every document."""

    def run(version: str, schemes: str) -> dict[str, Any]:
        monkeypatch.setattr(installed, "version", lambda: version)
        qeval("run", "--model", "toy[items=5]", "--tasks", "arc_easy,piqa", "--schemes", schemes)
        return json.loads(qeval("show", "--json").stdout)

    assert run("1", "fp16")["cautions"] == run("1", "fp16")["cautions"]
    mixed = run("2", "fp16,rtn")
    assert mixed["qeval"] == "1, 2"
    told = {one["name"]: [cell["scored"]["qeval"] for cell in one["cells"]] for one in mixed["variants"]}
    assert told == {"fp16": ["1", "1"], "rtn": ["2", "2"]}
    day = mixed["variants"][0]["cells"][0]["scored"]["when"][:10]
    sentence = f"Scored by qeval 1 on {day}: all 2 tasks of fp16."
    assert sentence in mixed["cautions"]
    shown = qeval("show").stdout
    assert sentence in shown
    assert f"all 2 tasks by qeval 1 on {day}" in shown.split("\nrtn\n")[0]
    assert "all 2 tasks by" not in shown.split("\nrtn\n")[1]
    assert run("3", "rtn,fp16")["qeval"] == "1, 2"  # another run, of which nothing is scored by 3


def test_cells_that_do_not_tell_who_scored_them_are_said_not_to(qeval, runs_dir) -> None:
    qeval("run", "--model", "toy[items=5]", "--tasks", "arc_easy", "--schemes", "fp16")
    for file in runs_dir.glob("*/cells/*/cell.json"):
        told = msgspec.json.decode(file.read_bytes())
        old = {name: told[name] for name in told if name not in {"scored", "checksum"}}
        file.write_bytes(msgspec.json.encode(old))  # as an older version stored it
    for _ in range(2):  # resumed, it is still not known
        qeval("run", "--model", "toy[items=5]", "--tasks", "arc_easy", "--schemes", "fp16,rtn")
        shown = qeval("show", "--json").stdout
        [old], [new] = (one["cells"] for one in json.loads(shown)["variants"])
        assert old["scored"] is None
        assert new["scored"]["qeval"]
        assert "Scored by a version of qeval that is not known: the only task of fp16." in shown
