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


def test_of_other_machines_nothing_is_known(tmp_path: Path) -> None:
    file = write(tmp_path, host="elsewhere", pid=7)
    assert socket.gethostname() != "elsewhere"
    with pytest.raises(QevalError, match="process 7 on elsewhere") as refused, lock.held(tmp_path):
        raise AssertionError("it was let in")
    assert f"delete {file}" in refused.value.hint


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
