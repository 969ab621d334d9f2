"""One command at a time for a run."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from qeval.base.errors import Exit, QevalError
from qeval.store import lock


def write(folder: Path, **changes: object) -> Path:
    holder = msgspec.structs.replace(lock._self(), **changes)
    file = folder / lock.LOCK_FILE
    file.write_bytes(msgspec.json.encode(holder))
    return file


def test_a_run_is_one_commands_and_then_anybodys(tmp_path: Path) -> None:
    with lock.held(tmp_path / "run"):
        said = f"at work on run: process {os.getpid()}\\."
        with pytest.raises(QevalError, match=said) as refused, lock.held(tmp_path / "run"):
            raise AssertionError("it was let in")
        assert refused.value.exit_code is Exit.ERROR
        assert refused.value.hint == "Wait for it, or stop it."
    with lock.held(tmp_path / "run"):
        assert [file.name for file in (tmp_path / "run").iterdir()] == [".lock"]
    assert list((tmp_path / "run").iterdir()) == []


def test_it_is_given_up_where_the_work_raises(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), lock.held(tmp_path):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"half a", b'{"pid": "x"}'])
def test_what_is_no_lock_holds_nobody_back(tmp_path: Path, content: bytes) -> None:
    (tmp_path / lock.LOCK_FILE).write_bytes(content)
    with lock.held(tmp_path):
        pass


def test_a_lock_of_a_dead_process_is_stale(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    write(tmp_path, pid=dead.pid)
    with lock.held(tmp_path):
        pass
    write(tmp_path, began=1.0)  # the number is another process's by now
    with lock.held(tmp_path):
        pass


@pytest.mark.parametrize("seconds", [0.0, 120.0])
def test_of_other_machines_processes_nothing_is_known(tmp_path: Path, seconds: float) -> None:
    file = write(tmp_path, host="elsewhere", pid=7, seconds=seconds)
    assert socket.gethostname() != "elsewhere"
    with pytest.raises(QevalError, match="process 7 on elsewhere") as refused, lock.held(tmp_path):
        raise AssertionError("it was let in")
    remedy = "try again in 120 s" if seconds else f"delete {file}"
    assert remedy in refused.value.hint


def test_a_lock_that_nobody_needs_to_renew_within_a_day_is_damaged(tmp_path: Path) -> None:
    write(tmp_path, host="elsewhere", machine="elsewhere/0/1", pid=7, seconds=1e9)
    with lock.held(tmp_path):
        pass


@pytest.mark.parametrize(
    "where", [{"host": "elsewhere", "machine": "elsewhere/0/1"}, {"machine": "here/0/1"}]
)
@pytest.mark.parametrize(("silent", "let_in"), [(60, False), (121, True)])
def test_a_lock_of_another_machine_or_container_holds_while_it_is_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: dict[str, str], silent: int, let_in: bool
) -> None:
    """A process of its number may be anybody here. Times are those of the disk, whatever this clock says."""
    file = write(tmp_path, pid=2**22 - 1, **where)
    then = (tmp_path / lock.LOCK_FILE).stat().st_mtime - silent
    os.utime(file, (then, then))
    monkeypatch.setattr(time, "time", lambda: 4e9)
    if let_in:
        with lock.held(tmp_path):
            pass
        return
    with pytest.raises(QevalError, match="is at work"), lock.held(tmp_path):
        raise AssertionError("it was let in")
    assert [one.name for one in tmp_path.iterdir()] == [lock.LOCK_FILE]


def test_of_older_versions_the_process_tells(tmp_path: Path) -> None:
    mine = {"machine": "", "seconds": 0.0}
    write(tmp_path, began=lock._created(os.getpid()), **mine)
    with pytest.raises(QevalError, match="is at work"), lock.held(tmp_path):
        raise AssertionError("it was let in")
    write(tmp_path, began=1.0, **mine)
    with lock.held(tmp_path):
        pass


def test_a_holder_renews_its_own_lock_and_no_others(tmp_path: Path) -> None:
    file = write(tmp_path)
    mine = lock._holder(file)
    assert mine is not None
    os.utime(file, (1.0, 1.0))
    lock._touch(file, msgspec.structs.replace(mine, mark="another"))
    assert file.stat().st_mtime == 1.0
    lock._touch(file, mine)
    assert file.stat().st_mtime > 1.0
    file.unlink()
    lock._touch(file, mine)
    assert not file.exists()


def test_a_clock_that_is_set_meanwhile_lets_no_second_command_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the time of day, a process begins at another time once the clock was set."""
    with lock.held(tmp_path):
        monkeypatch.setattr(psutil.Process, "create_time", lambda _: 4e9)
        monkeypatch.setattr(psutil, "boot_time", lambda: 4e9)
        with pytest.raises(QevalError, match="is at work"), lock.held(tmp_path):
            raise AssertionError("it was let in")
    assert list(tmp_path.iterdir()) == [], "it did not know its own"


def test_a_link_that_nfs_made_twice_is_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = os.link

    def twice(source: str, target: Path) -> None:
        usual(source, target)
        usual(source, target)  # whose answer is that the file is there

    monkeypatch.setattr(os, "link", twice)
    with lock.held(tmp_path):
        assert [one.name for one in tmp_path.iterdir()] == [lock.LOCK_FILE]
    assert list(tmp_path.iterdir()) == []


def test_of_two_machines_that_find_a_dead_ones_lock_one_takes_it(tmp_path: Path) -> None:
    """The second one looked before the first one took it, and comes to take it away afterwards."""
    dead = lock._holder(write(tmp_path, began=1.0))
    file = write(tmp_path, host="first", machine="first/0/1")
    first = lock._holder(file)
    lock._take_away(file, dead)
    assert lock._holder(file) == first
    lock._take_away(file, first)
    lock._take_away(file, first)  # it is gone
    assert list(tmp_path.iterdir()) == []


def test_whose_lock_was_cleared_away_half_made_tries_again(tmp_path: Path, monkeypatch) -> None:
    link, tries = os.link, []

    def cleared(source: str, target: Path) -> None:
        tries.append(source)
        if len(tries) == 1:
            Path(source).unlink()
        link(source, target)

    monkeypatch.setattr(os, "link", cleared)
    with lock.held(tmp_path):
        assert len(tries) == 2
        assert [file.name for file in tmp_path.iterdir()] == [lock.LOCK_FILE]


def test_of_two_that_find_a_dead_ones_lock_one_takes_it(tmp_path: Path, monkeypatch) -> None:
    """The second waits while the first looks, so that it cannot take away what the first one made."""
    write(tmp_path, began=1.0)
    holder, looked, over, entered, refused = lock._holder, threading.Event(), threading.Event(), [], []

    def slowly(file: Path):
        found = holder(file)
        looked.set()
        time.sleep(0.05)
        return found

    def take() -> None:
        try:
            with lock.held(tmp_path):
                entered.append(1)
                over.wait(300)  # until the other one is refused
        except QevalError as error:
            refused.append(error)
            over.set()

    monkeypatch.setattr(lock, "_holder", slowly)
    first, second = threading.Thread(target=take), threading.Thread(target=take)
    first.start()
    looked.wait(300)
    second.start()
    first.join()
    second.join()
    assert (len(entered), len(refused)) == (1, 1)


def test_anothers_lock_stays_where_ours_was_deleted(tmp_path: Path) -> None:
    with lock.held(tmp_path):
        other = write(tmp_path, began=1.0)
    assert other.exists()
