"""Who finds nothing to do says on whom it waits, at once and then once a minute."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from qeval.base.messages import Event, Job
from qeval.base.records import Result, Scheme, Variant
from qeval.base.settings import Settings
from qeval.cli.main import main
from qeval.run import planning, taking
from qeval.run.awaited import EVERY_SECONDS, Awaited
from qeval.store.leases import MOST_SECONDS, SECONDS, Holder, Holders, Leases, machine
from qeval.store.runs import RunDir
from qeval.store.work import Part, Plan, Work

RTN, BNB4 = (Variant(name, "toy", Scheme(name)) for name in ("rtn", "bnb4"))


class _OverError(Exception):
    """The test has seen enough."""


class Heard:
    """What a listener was told, a line each."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, variant: Variant, event: Event) -> None:
        self.lines.append(f"[{variant.name}] {event.text}")

    def new(self) -> list[str]:
        """What was told since the last call."""
        lines, self.lines = self.lines, []
        return lines


def far(holders: Holders, pid: int, **told: object) -> Holder:
    """A process of another machine that was heard of just now."""
    holder = Holder(f"far-{pid}", "far", "far/0/1", pid, **told)
    holders.write(holder)
    return holder


def awaited(holders: Holders, *, follows: bool = False) -> tuple[Awaited, Heard, list[float]]:
    heard, clock = Heard(), [0.0]
    return Awaited(holders, heard, follows, lambda: clock[0]), heard, clock


@pytest.fixture
def holders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Holders:
    """Those of a place where each was heard of 40 s ago."""
    monkeypatch.setattr(Holders, "silent", lambda *_: 40.0)
    return Holders(tmp_path / "holders")


def test_it_is_said_once_and_again_after_a_minute(holders: Holders) -> None:
    far(holders, 7, variant="rtn", part="lead")
    one, heard, clock = awaited(holders)
    one.say([RTN, BNB4])
    said = heard.new()
    who = "process 7 on far, last heard of 40 s ago"
    assert said == [f"[rtn] Waiting for {who}; it is presumed dead after 2 min of silence."]
    clock[0] = EVERY_SECONDS - 1
    one.say([RTN, BNB4])
    assert heard.new() == []
    clock[0] = EVERY_SECONDS
    one.say([RTN, BNB4])
    assert heard.new() == said


def test_another_process_is_said_at_once_and_who_leads_comes_first(holders: Holders) -> None:
    far(holders, 1, variant="rtn", part="help")
    one, heard, _ = awaited(holders)
    one.say([RTN])
    far(holders, 2, variant="rtn", part="lead")
    far(holders, 3)
    one.say([RTN])
    first, second = heard.new()
    assert first.startswith("[rtn] Waiting for process 1 on far, last heard")
    assert second.startswith("[rtn] Waiting for process 2 on far and 1 more, last heard")


def test_what_comes_further_is_said_again_only_where_nobody_follows_it(holders: Holders) -> None:
    for follows, lines in ((False, 1), (True, 0)):
        far(holders, 7, variant="rtn", part="lead", done=1)
        one, heard, clock = awaited(holders, follows=follows)
        one.say([RTN])
        heard.new()
        far(holders, 7, variant="rtn", part="lead", done=2)
        clock[0] = EVERY_SECONDS
        one.say([RTN])
        assert len(heard.new()) == lines
        clock[0] = 2 * EVERY_SECONDS
        one.say([RTN])
        assert len(heard.new()) == 1, "it came no further"


def test_those_at_no_variant_are_said_where_nobody_else_is_and_oneself_never(holders: Holders) -> None:
    holders.write(Holder("me", "here", machine(), os.getpid(), variant="rtn"))
    one, heard, _ = awaited(holders)
    one.say([RTN])
    assert heard.new() == []
    far(holders, 9)
    one.say([RTN])
    [line] = heard.new()
    assert "process 9 on far, at no variant, last heard of" in line


def test_that_nobody_is_there_is_said_once_and_again_when_somebody_has_gone(holders: Holders) -> None:
    waiting, heard, clock = awaited(holders)
    for at, told in ((0.0, ["[rtn] Nobody."]), (59.0, []), (60.0, ["[rtn] Nobody."])):
        clock[0] = at
        waiting.nobody(RTN, "Nobody.")
        assert heard.new() == told
    far(holders, 7, variant="rtn")
    waiting.say([RTN])
    heard.new()
    waiting.nobody(RTN, "Nobody.")
    assert heard.new() == ["[rtn] Nobody."]


def test_one_that_is_forgotten_meanwhile_is_not_waited_for(
    holders: Holders, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = [far(holders, 7, variant="rtn")]
    one, heard, _ = awaited(holders)
    holders.forget("far-7")
    monkeypatch.undo()
    monkeypatch.setattr(holders, "at_work", lambda: there)
    one.say([RTN])
    assert heard.new() == []


@pytest.mark.parametrize(
    ("seconds", "alive"), [(SECONDS, True), (MOST_SECONDS, True), (MOST_SECONDS + 1, False), (1e9, False)]
)
def test_a_holder_that_may_be_silent_for_more_than_a_day_is_damaged(
    tmp_path: Path, seconds: float, alive: bool
) -> None:
    holders = Holders(tmp_path / "holders")
    far(holders, 7, seconds=seconds)
    Leases(holders, "far-7").take(tmp_path / "4")
    assert (holders.read("far-7") is not None) is alive
    assert bool(holders.at_work()) is alive
    assert Leases(holders, "me").take(tmp_path / "4") is not alive


def test_no_worker_asks_for_more_than_that() -> None:
    found = CliRunner().invoke(main, ["worker", "run", "--timeout", str(MOST_SECONDS + 1)])
    assert found.exit_code == 2
    assert "--timeout" in found.output


@pytest.fixture
def led_elsewhere(tmp_path: Path) -> RunDir:
    """A run whose only variant a process of another machine leads."""
    place = RunDir(tmp_path / "runs" / "r")
    work = Work(place.work)
    job = Job("", "r", RTN, {}, {}, (), Settings(), "", "", "")
    work.write(Plan((Part(job),), {}, "mark"))
    far(work.holders, 7, variant="rtn", part="lead")
    Leases(work.holders, "far-7").take(work.lead("rtn"))
    return place


def _by_worker(place: RunDir, heard: Heard) -> None:
    taking.work(place, heard)


def _by_finish(place: RunDir, heard: Heard) -> None:
    run = SimpleNamespace(results=(Result(RTN, "partial"),))
    planning.followed(SimpleNamespace(cost=None, wait=False), run, place, heard, None)


@pytest.mark.parametrize("waits", [_by_worker, _by_finish])
def test_a_worker_and_finish_say_on_whom_they_wait(
    led_elsewhere: RunDir, monkeypatch: pytest.MonkeyPatch, waits: Callable[[RunDir, Heard], None]
) -> None:
    looks, heard = [2], Heard()

    def sleep(_seconds: float) -> None:
        looks[0] -= 1
        if not looks[0]:
            raise _OverError

    monkeypatch.setattr(taking, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    monkeypatch.setattr(planning, "time", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(taking, "check_same", lambda _: None)  # any versions will do
    monkeypatch.setattr("qeval.run.awaited.EVERY_SECONDS", 1e9)
    with pytest.raises(_OverError):
        waits(led_elsewhere, heard)
    [line] = heard.lines
    assert line.startswith("[rtn] Waiting for process 7 on far, last heard of ")


@pytest.mark.parametrize(
    ("alive", "said"),
    [
        (
            None,
            "Nobody is at work on the run. Ctrl-C ends the waiting; a worker is started with: qeval worker ",
        ),
        (lambda: True, "No worker is at work yet: the job waits in the queue."),
    ],
)
def test_a_finish_that_waits_for_nobody_says_so_and_how_to_start_somebody(
    led_elsewhere: RunDir, monkeypatch: pytest.MonkeyPatch, alive: Callable[[], bool] | None, said: str
) -> None:
    def sleep(_seconds: float) -> None:
        raise _OverError

    heard, place = Heard(), led_elsewhere
    Work(place.work).holders.forget("far-7")
    monkeypatch.setattr(planning, "time", SimpleNamespace(sleep=sleep))
    run = SimpleNamespace(results=(Result(BNB4, "done"), Result(RTN, "partial")))
    with pytest.raises(_OverError):
        planning.followed(SimpleNamespace(cost=None, wait=True), run, place, heard, alive)
    assert heard.lines == [f"[rtn] {said}{place.path if alive is None else ''}"]
