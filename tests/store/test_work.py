"""What workers have to do, and what came of it, while others write and remove the same files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from qeval.base.records import Result, Scheme, Variant
from qeval.store import work as works
from qeval.store.work import Plan, Work

VARIANT = Variant("v", "toy", Scheme("rtn"))
DONE, FAILED = Result(VARIANT, "done"), Result(VARIANT, "failed", error="It was taken for dead.")


@pytest.mark.parametrize("first", [DONE, FAILED])
def test_a_failure_takes_no_other_results_place_whoever_is_quicker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: Result
) -> None:
    """The other one keeps its result between this one's last look and its writing."""
    work, usual, left = Work(tmp_path), works.write_atomic, [FAILED if first is DONE else DONE]

    def late(path: Path, data: bytes) -> None:
        while left:
            work.keep(left.pop(), "mark")
        usual(path, data)

    monkeypatch.setattr(works, "write_atomic", late)
    work.keep(first, "mark")
    assert work.result("v", "mark") == DONE
    assert work.result("v", "another") is None


def test_a_failure_alone_is_the_result(tmp_path: Path) -> None:
    Work(tmp_path).keep(FAILED, "mark")
    assert Work(tmp_path).result("v", "mark") == FAILED


def test_who_is_killed_while_all_is_forgotten_leaves_no_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan without its leases and results would be worked at anew, and the stopped would count as dead."""
    work = Work(tmp_path / "work")
    work.forget()
    work.write(Plan((), {}, "mark"))
    work.keep(DONE, "mark")

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        work.forget()
    assert work.plan() is None
    monkeypatch.undo()
    work.forget()
    assert not work.path.exists()
