"""Workers that nobody conducts: what they take, whom they help, and what becomes of it where one dies."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import msgspec
import psutil
import pytest
from tiny_models import save_model

from qeval.base.errors import QevalError
from qeval.base.messages import Event, Failed, Job, Note, Progress
from qeval.base.records import Result, Scheme, Variant
from qeval.base.settings import Settings
from qeval.run import gpus, planning, taking
from qeval.run import versions as checked
from qeval.run.executors import EXECUTORS, local
from qeval.run.taking import shown_of, worth
from qeval.store.leases import Holder, Holders, Leases, machine
from qeval.store.runs import RunDir
from qeval.store.work import Part, Plan, Work

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SLOW = Path(__file__).parents[1] / "helpers" / "slow_worker.py"
TOY = ("run", "--model", "toy[items=20]", "--schemes", "fp16,rtn,bnb4", "--tasks", "arc_easy,piqa")


def prepared(qeval, *words: object) -> RunDir:
    return RunDir(Path(qeval(*words, "--prepare").stdout.strip()))


def result_of(place: RunDir, name: str) -> Result | None:
    work = Work(place.work)
    return work.result(name, work.plan().mark)


def samples(place: Path) -> dict[str, str]:
    files = place.glob("cells/*/samples.parquet")
    return {file.parent.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def a_worker(place: RunDir, *words: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        (sys.executable, "-m", "qeval", "worker", str(place.path), "--timeout", "60", *words),
        env={**os.environ, **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


def test_what_is_prepared_is_scored_by_workers_and_finished_by_the_same_command(
    qeval, runs_dir: Path, tmp_path: Path
) -> None:
    place = prepared(qeval, *TOY)
    assert not list(place.path.glob("cells/*"))
    assert "no worker" in _flat(qeval(*TOY, "--finish", code=1).stderr.lower())
    qeval("worker", place.path)
    found = qeval(*TOY, "--finish")
    assert "bnb4" in found.stdout
    assert not place.work.exists()
    qeval(*TOY, "--runs-dir", tmp_path / "whole")
    [whole] = (tmp_path / "whole").glob("toy*")
    assert samples(place.path) == samples(whole)
    assert [one.status for one in place.read().results] == ["done"] * 3
    assert "finished" in qeval("worker", place.path, code=1).stderr
    assert runs_dir in place.path.parents


def test_a_plain_command_takes_up_what_workers_left_and_scores_the_rest(
    qeval, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = prepared(qeval, *TOY)
    usual, done = EXECUTORS["local"], []

    def two_only(job, listen) -> Result:
        done.append(job.variant.name)
        if len(done) == 3:
            raise KeyboardInterrupt
        return usual(job, listen)

    with monkeypatch.context() as patch:
        patch.setitem(EXECUTORS, "local", two_only)
        assert "Stopped." in qeval("worker", place.path, code=130).stderr
    said = qeval(*TOY).stderr
    assert "[fp16] finished earlier" in said
    assert "[rtn] finished earlier" in said
    assert "[bnb4] done" in said
    assert not place.work.exists()


def test_a_missing_variant_is_an_incomplete_run_and_never_passes(qeval, tmp_path: Path) -> None:
    gate = tmp_path / "gate.toml"
    gate.write_text("[[rule]]\nmax_drop = 99.0\n")
    words = ("run", "--model", "toy", "--schemes", "fp16,rtn", "--tasks", "arc_easy", "--gate", gate)
    place = prepared(qeval, *words)
    [base, other] = Work(place.work).plan().parts
    assert (base.after, other.after) == ("", "fp16")
    qeval(*words, "--finish", code=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(taking.Taker, "left", _first_only(taking.Taker.left))
        qeval("worker", place.path)
    found = qeval(*words, "--finish", code=1)
    assert "PASS" not in found.stdout
    said = " ".join(found.stderr.split())
    assert "[rtn] No worker finished it. Go on with the same command without --finish, or with:" in said
    assert f"qeval worker {place.path}" in said
    qeval("worker", place.path)
    assert "PASS" in qeval(*words, "--finish").stdout


def _first_only(usual):
    return lambda taker: [part for part in usual(taker) if part.job.variant.name == "fp16"]


def test_a_variant_that_fails_is_the_only_one(qeval) -> None:
    words = ("run", "--model", "toy[items=20,fail=rtn]", *TOY[3:])
    place = prepared(qeval, *words)
    assert "told to fail" in qeval("worker", place.path, code=1).stderr
    assert "[rtn] FAILED" in qeval(*words, "--finish", code=1).stderr
    assert [one.status for one in place.read().results] == ["done", "failed", "done"]


def test_a_leader_that_is_killed_is_followed_by_another_one(qeval) -> None:
    place = prepared(qeval, "run", "--model", "toy[items=20,delay=1]", *TOY[3:])
    names, led = ("fp16", "rtn", "bnb4"), list[str]()
    for _ in names:
        if not led:  # between two variants it leads none
            _killed_at_its_next_cell(place)
            led = [name for name in names if _leases(place, name) and result_of(place, name) is None]
    assert len(led) == 1  # the first, where the machine is not too busy
    before = len(_leases(place, *led))
    two = a_worker(place, "--verbose")
    said = two.communicate(timeout=300)[1]
    assert two.returncode == 0, said
    assert f"[{led[0]}] arc_easy" in said
    assert len(_leases(place, *led)) == before + 1
    assert [result_of(place, name).status for name in names] == ["done"] * 3


def _leases(place: RunDir, name: str) -> list[Path]:
    return list((place.work / name).glob("lead.*.lease"))


def _killed_at_its_next_cell(place: RunDir) -> None:
    """Start a worker, and kill it with all that it started, itself first, once it has finished a task."""

    def cells() -> int:
        found = place.path.glob("cells/*/cell.json")
        return sum(not file.parent.name.startswith(".") for file in found)

    before, one, until = cells(), a_worker(place), time.monotonic() + 300
    while cells() == before:
        assert time.monotonic() < until, "no cell was written"
        time.sleep(0.02)
    parent = psutil.Process(one.pid)
    for process in [parent, *parent.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    one.communicate()


def test_a_worker_that_is_told_to_end_leaves_no_process_and_its_work_at_once(qeval) -> None:
    place = prepared(qeval, "run", "--model", "toy[items=20,delay=200]", *TOY[3:])
    one = a_worker(place)
    assert one.stderr is not None
    assert "2 tasks to score" in one.stderr.readline()
    begun = psutil.Process(one.pid).children(recursive=True)
    start = time.monotonic()
    one.send_signal(signal.SIGTERM)
    assert "Stopped." in one.communicate(timeout=120)[1]
    assert one.returncode == 143
    assert time.monotonic() - start < 60
    assert psutil.wait_procs(begun, 120)[1] == []
    work = Work(place.work)
    assert work.holders.at_work() == []
    leases = Leases(work.holders, "next")
    assert leases.dead(work.lead("fp16")) == []
    assert leases.take(work.lead("fp16"))


def test_a_variant_that_kills_its_workers_fails(qeval, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(job, listen) -> Result:
        listen(Failed("It was killed.", lost="process"))
        return Result(job.variant, "failed", error="It was killed.")

    place = prepared(qeval, "run", "--model", "toy", "--schemes", "fp16", "--tasks", "arc_easy")
    monkeypatch.setitem(EXECUTORS, "local", dies)
    said = qeval("worker", place.path, code=1).stderr
    assert said.count("It is taken up again.") == 2
    assert "2 workers died of it" in said
    assert result_of(place, "fp16").status == "failed"


def test_a_device_that_is_lost_ends_its_worker_and_leaves_the_variant(
    qeval, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(job, listen) -> Result:
        listen(Failed("There is no device.", lost="device"))
        return Result(job.variant, "failed", error="There is no device.")

    place = prepared(qeval, "run", "--model", "toy", "--schemes", "fp16", "--tasks", "arc_easy")
    monkeypatch.setitem(EXECUTORS, "local", lost)
    assert "There is no device." in qeval("worker", place.path, code=1).stderr
    assert result_of(place, "fp16") is None
    monkeypatch.undo()
    assert taking.work(place, lambda *_: None)


@pytest.mark.parametrize(
    ("name", "here"), [("qeval", "0.0"), ("Python", "2.7"), ("torch", "1.0"), ("lm_eval", None)]
)
def test_other_versions_are_refused_by_name(qeval, name: str, here: str | None) -> None:
    place = prepared(qeval, *TOY)
    file = place.work / "plan.json"
    told = json.loads(file.read_text())
    wanted = told["versions"].pop(name)
    told["versions"] |= {} if here is None else {name: here}
    file.write_text(json.dumps(told))
    said = qeval("worker", place.path, code=1).stderr
    assert f"{name} {wanted} instead of {here or 'none'}" in said


@pytest.mark.parametrize("here", ["0.1", None])
def test_other_versions_of_what_makes_a_variant_are_refused(
    monkeypatch: pytest.MonkeyPatch, here: str | None
) -> None:
    has = {"bitsandbytes": "0.48", "peft": "0.17", "torch": "2.9"}
    monkeypatch.setattr(checked, "version_of", has.get)
    made_of = {"versions": {"torch": "2.9", "bitsandbytes": "0.48"}}
    job = Job("", "r", Variant("v", "m", Scheme("bnb4")), made_of, {}, (), Settings(), "", "", "")
    wanted = checked.versions([job])
    assert (wanted["bitsandbytes"], wanted.get("peft")) == ("0.48", None)
    checked.check_same(wanted)
    monkeypatch.setattr(checked, "version_of", {**has, "bitsandbytes": here}.get)
    with pytest.raises(QevalError, match=f"bitsandbytes {here or 'is missing'} instead of 0.48"):
        checked.check_same(wanted)


def test_the_plan_tells_the_versions_of_what_makes_its_variants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = SimpleNamespace(policy=None, baseline="v")
    place = SimpleNamespace(write=lambda _: None, work=tmp_path, shards=lambda _: tmp_path / "none")
    monkeypatch.setattr(checked, "version_of", {"hqq": "0.2"}.get)
    made_of = {"versions": {"hqq": "0.2"}}
    job = Job("", "r", Variant("v", "m", Scheme("hqq")), made_of, {}, (), Settings(), "", "", "")
    planning.plan(order, None, [job], place)
    assert Work(tmp_path).plan().versions["hqq"] == "0.2"


def test_a_run_that_this_machine_does_not_see_and_one_that_nobody_planned(qeval, tmp_path: Path) -> None:
    assert "nowhere on " in qeval("worker", tmp_path / "nowhere", code=1).stderr
    (tmp_path / "empty").mkdir()
    assert "is not a run" in qeval("worker", tmp_path / "empty", code=1).stderr
    place = prepared(qeval, *TOY)
    (place.work / "plan.json").write_text("{}")
    assert "damaged" in qeval("worker", place.path, code=1).stderr
    qeval(*TOY)
    assert "is finished: nothing is left for workers" in qeval("worker", place.path, code=1).stderr


def test_a_worker_that_comes_late_finds_nothing_planned_once_a_command_scores_the_rest(
    qeval, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both would score the same, each by locks of its own that the other does not see."""
    place = prepared(qeval, *TOY)
    taker = a_taker(place)
    taker._keep(Result(taker.plan.parts[1].job.variant, "failed", error="A worker found that."))
    usual, late = EXECUTORS["local"], []

    def scores(job: Job, listen) -> Result:
        with pytest.raises(QevalError, match="Nothing is planned"):
            taking.planned(place)
        late.append([one.error for one in place.read().results])
        return usual(job, listen)

    monkeypatch.setitem(EXECUTORS, "local", scores)
    qeval(*TOY)
    assert len(late) == 3
    assert late[0] == [None, "A worker found that.", None], "what workers left was lost"


@pytest.mark.parametrize(("late", "status"), [(3, "done"), (10**6, "partial")])
def test_a_result_that_its_worker_kept_is_waited_for_where_it_is_not_seen_yet(
    qeval, monkeypatch: pytest.MonkeyPatch, late: int, status: str
) -> None:
    """NFS shows a new file a minute late, and a file that is known already, as its worker's, at once."""
    place = prepared(qeval, *TOY)
    taking.work(place, lambda *_: None)
    assert Work(place.work).holders.kept("another") == set()
    usual, looks = Work.result, [0]

    def result(work: Work, name: str, mark: str) -> Result | None:
        looks[0] += name == "rtn"
        return None if name == "rtn" and looks[0] <= late else usual(work, name, mark)

    monkeypatch.setattr(Work, "result", result)
    monkeypatch.setattr(planning, "LOOK_SECONDS", 0)
    qeval(*TOY, "--finish", code=0 if status == "done" else 1)
    assert [one.status for one in place.read().results] == ["done", status, "done"]


def test_a_command_does_not_disturb_workers(qeval) -> None:
    place = prepared(qeval, *TOY)
    Work(place.work).holders.write(Holder("one", "far", "far/0/1", 1, variant="fp16"))
    for more in ((), ("--prepare",)):
        assert "Workers are at work on" in qeval(*TOY, *more, code=1).stderr
    mark = Work(place.work).plan().mark
    Work(place.work).holders.write(Holder("one", "far", "far/0/1", 1, state="stopped"))
    prepared(qeval, *TOY)
    assert Work(place.work).plan().mark != mark


def test_a_worker_that_ends_when_all_is_forgotten_leaves_nothing(qeval, monkeypatch) -> None:
    place = prepared(qeval, *TOY)

    def forgotten(taker: taking.Taker) -> list[Part]:
        taker.work.forget()  # by a command that took it for dead
        return []

    monkeypatch.setattr(taking.Taker, "left", forgotten)
    taking.work(place, lambda *_: None)
    assert not place.work.exists()


def test_workers_of_a_plan_that_was_replaced_end(qeval) -> None:
    place = prepared(qeval, *TOY)
    work = Work(place.work)
    taker = taking.Taker(place, work.plan(), taking.Seat(), lambda *_: None, 60)
    assert len(taker.left()) == 3
    prepared(qeval, *TOY)
    with pytest.raises(QevalError, match="planned again"):
        taker.left()
    work.forget()
    assert taker.left() == []


def a_taker(place: RunDir) -> taking.Taker:
    return taking.Taker(place, Work(place.work).plan(), taking.Seat(), lambda *_: None, 60)


def test_a_worker_is_at_work_between_two_leases(qeval, monkeypatch: pytest.MonkeyPatch) -> None:
    place = prepared(qeval, *TOY)
    seen = []

    def nothing(taker: taking.Taker, _: list[Part]) -> bool:
        seen.append([one.host for one in taker.work.holders.at_work()])
        for part in taker.plan.parts:
            taker.work.keep(Result(part.job.variant, "done"), taker.plan.mark)
        return False

    monkeypatch.setattr(taking.Taker, "lead", nothing)
    monkeypatch.setattr(taking, "LOOK_SECONDS", 0.01)
    assert taking.work(place, lambda *_: None)
    assert [len(hosts) for hosts in seen] == [1]
    assert Work(place.work).holders.at_work() == []


@pytest.mark.parametrize("seen", [True, False])
def test_a_failure_is_remembered_though_it_was_cleared_away(
    qeval, monkeypatch: pytest.MonkeyPatch, seen: bool
) -> None:
    place = prepared(qeval, *TOY)
    usual = taking.Taker.left

    def then_forgotten(taker: taking.Taker) -> list[Part]:
        for part in taker.plan.parts:
            status = "failed" if part.job.variant.name == "rtn" else "done"
            taker.work.keep(Result(part.job.variant, status, error="No."), taker.plan.mark)
        left = usual(taker) if seen else []
        if seen:
            taker.work.forget()
        else:
            qeval(*TOY, "--finish", code=1)
        return left

    monkeypatch.setattr(taking.Taker, "left", then_forgotten)
    monkeypatch.setattr(planning, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(Holders, "at_work", lambda _: [])
    assert not taking.work(place, lambda *_: None)


def test_results_of_another_plan_are_not_believed(qeval, monkeypatch: pytest.MonkeyPatch) -> None:
    place = prepared(qeval, *TOY)
    late = a_taker(place)
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)  # as where something cannot be deleted
    late._keep(Result(late.plan.parts[0].job.variant, "failed", error="It was long ago."))
    prepared(qeval, *TOY)
    assert len(a_taker(place).left()) == 3
    late._keep(Result(late.plan.parts[1].job.variant, "failed", error="It is late."))
    assert len(a_taker(place).left()) == 3
    said = qeval(*TOY, "--finish", code=1).stderr
    assert "long ago" not in said
    assert "late" not in said


def test_a_failure_takes_no_other_results_place(qeval) -> None:
    place = prepared(qeval, *TOY)
    taker = a_taker(place)
    variant = taker.plan.parts[0].job.variant
    taker._keep(Result(variant, "done"))
    a_taker(place)._keep(Result(variant, "failed", error="It was taken for dead."))
    assert result_of(place, variant.name).status == "done"


@pytest.mark.parametrize(("done", "deaths"), [(0, 2), (5, 4)])
def test_helpers_that_die_are_not_replaced_for_ever(
    qeval, monkeypatch: pytest.MonkeyPatch, done: int, deaths: int
) -> None:
    def dies(job: Job, listen) -> Result:
        listen(Progress("arc_easy", done))
        listen(Failed("It was killed.", lost="process"))
        return Result(job.variant, "failed", error="It was killed.")

    place = prepared(qeval, *TOY)
    taker = a_taker(place)
    leader = Holder("leader", "far", "far/0/1", 1, variant="fp16", part="lead", first=1.0, spent=1.0)
    monkeypatch.setitem(EXECUTORS, "local", dies)
    monkeypatch.setattr(
        taker, "_wanting", lambda part: None if leader.name in taker.exhausted else (1.0, part, leader.name)
    )
    tries = 0
    while taker.help(taker.plan.parts[:1]):
        tries += 1
        assert tries < 10
    assert tries == deaths


def test_words_that_have_no_meaning_together_are_refused(qeval) -> None:
    for more in (("--prepare", "--finish"), ("--prepare", "--workers", 1), ("--finish", "--repeat-baseline")):
        assert "exclude each other" in qeval(*TOY, *more, code=2).stderr


@pytest.mark.parametrize(
    ("first", "spent", "done", "helped", "left"),
    [
        (10.0, 100.0, 100, (), 900),
        (10.0, 100.0, 100, (50,), 850),
        (10.0, 100.0, 990, (), None),
        (None, 0.0, 0, (), None),
        (600.0, 100.0, 100, (), None),
    ],
)
def test_help_is_wanted_where_more_is_left_than_loading_takes(
    first: float | None, spent: float, done: int, helped: tuple[int, ...], left: float | None
) -> None:
    leader = Holder("l", "h", machine(), 1, total=1000, done=done, first=first, spent=spent)
    helpers = [Holder("h", "h", machine(), 1, done=count) for count in helped]
    assert worth(leader, helpers) == left
    assert shown_of(leader, helpers) == done + sum(helped)


def _flat(text: str) -> str:
    return " ".join(text.split())


# --- a real, tiny model


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def slowly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(local, "WORKER", (sys.executable, str(SLOW)))
    monkeypatch.setattr(taking, "LOOK_SECONDS", 0.1)
    monkeypatch.setenv("QEVAL_CACHE_DIR", str(tmp_path / "cache"))
    return


@pytest.mark.torch
@pytest.mark.rare
@pytest.mark.usefixtures("slowly")
def test_several_workers_share_a_variant_and_give_the_bytes_of_one(
    qeval_with_workers, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    qeval = qeval_with_workers
    words = (
        *("run", "--model", llama, "--schemes", "fp32", "--tasks", "qeval_continuations:acc_norm"),
        *("--device", "cpu", "--engine", "plain", "--batch-size", 1, "--limit", 12),
    )
    qeval(*words, "--threads", 1, "--runs-dir", tmp_path / "whole")
    [whole] = (tmp_path / "whole").glob("*/run.json")
    kills = tmp_path / "kills"
    kills.mkdir()
    (kills / "16").write_text("1")
    helped = tmp_path / "helped"
    helped.mkdir()
    monkeypatch.setenv("QEVAL_TEST_KILLS", str(kills))
    monkeypatch.setenv("QEVAL_TEST_HELPERS", str(helped))
    monkeypatch.setattr(taking, "worth", lambda leader, _: leader.total if leader.first else None)
    place = prepared(qeval, *words)
    said: list[Event] = []
    workers = [
        threading.Thread(target=taking.work, args=(place, lambda _, event: said.append(event), 2.0))
        for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (kills / "16").read_text() == "0", "nobody died"
    assert {file.name for file in helped.iterdir()} == {"fp32"}
    found = qeval(*words, "--finish")
    assert "fp32" in found.stdout
    assert samples(place.path) == samples(whole.parent)
    assert not list(place.path.rglob("*.lease"))
    assert not (place.path / "shards").exists()
    logs = {file.name for file in (place.path / "logs").iterdir()}
    assert "fp32.log" in logs
    assert any(re.match(r"fp32-.+\.log", name) for name in logs)
    assert not [event for event in said if isinstance(event, Note) and "unforeseen" in event.text]
    packings = {msgspec.json.encode(result.packing.decided) for result in place.read().results}
    assert len(packings) == 1


@pytest.mark.parametrize(
    ("words", "seen", "device"),
    [
        ((), 0, None),
        ((), 2, "cuda:0"),
        (("--device", "cpu"), 2, "cpu"),
        (("--device", "cuda:1"), 2, "cuda:1"),
    ],
)
def test_a_worker_calculates_where_the_plan_says_and_else_on_the_first_gpu_it_sees(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], seen: int, device: str | None
) -> None:
    monkeypatch.setattr(
        taking.gpus, "visible", lambda: tuple(gpus.Gpu(str(number)) for number in range(seen))
    )
    job = Job(
        "", "r", Variant("v", "some/model", Scheme("fp16")), {}, {}, (), Settings(), "", "", "", threads=1
    )
    plan = Plan((Part(job),), {}, "mark")
    seat = taking._seat(plan, words[1] if words else None)
    assert seat.device == device
    assert ("OMP_NUM_THREADS" in seat.environment) == (device in {None, "cpu"})


def test_a_worker_needs_as_many_cores_as_the_run_has_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taking, "cores", lambda: 1)
    monkeypatch.setattr(taking.gpus, "visible", tuple)
    job = Job(
        "", "r", Variant("v", "some/model", Scheme("fp16")), {}, {}, (), Settings(), "", "", "", threads=2
    )
    with pytest.raises(QevalError, match="2 threads a worker"):
        taking._seat(Plan((Part(job),), {}, "mark"), None)


def test_what_workers_are_writing_is_left_to_them_until_they_are_gone(qeval) -> None:
    place = prepared(qeval, *TOY)
    (place.path / "cells").mkdir()
    begun = place.path / "cells" / ".0123abcd.k3j4h5g6"
    begun.mkdir()
    holders = Work(place.work).holders
    holders.write(Holder("one", "far", "far/0/1", 1, variant="fp16"))
    qeval(*TOY, code=1)
    assert begun.exists()
    holders.write(Holder("one", "far", "far/0/1", 1, state="died"))
    qeval(*TOY, "--finish", code=1)
    assert begun.exists(), "another one may come"
    qeval("worker", place.path)
    qeval(*TOY, "--finish")
    assert not begun.exists()
