"""Leases: one of many gets each, a dead holder's goes on, and those who died of it are counted."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

from qeval.base import reading
from qeval.base.errors import QevalError
from qeval.store import leases
from qeval.store.leases import Beating, Holder, Holders, Leases, beating, holder_of, machine
from qeval.store.shards import TRIES, Shards

ELSEWHERE = {"host": "far", "machine": "far/0/1", "pid": 1}


@pytest.fixture
def holders(tmp_path: Path) -> Holders:
    return Holders(tmp_path / "work" / "holders")


def a_holder(holders: Holders, name: str, **changes: object) -> Leases:
    told = {"host": "here", "machine": machine(), "pid": os.getpid(), **changes}
    holders.write(Holder(name, **told))
    return Leases(holders, name)


def say_nothing(holders: Holders, name: str, seconds: float) -> None:
    """The holder was last heard of so long ago."""
    file = holders.folder / f"{name}.json"
    then = time.time() - seconds
    os.utime(file, (then, then))


def test_one_has_it_until_it_leaves(holders: Holders, tmp_path: Path) -> None:
    place = tmp_path / "shards" / "4"
    one, two = a_holder(holders, "one"), a_holder(holders, "two")
    assert one.take(place)
    assert one.take(place), "it is one's own already"
    assert not two.take(place)
    assert holder_of(holders, place).name == "one"
    two.leave(place)  # which is none of its business
    assert not two.take(place)
    one.leave(place)
    assert holder_of(holders, place) is None
    assert two.take(place)
    assert not one.take(place)
    assert two.dead(place) == []


@pytest.mark.parametrize("end", ["silent", "gone", "died", "unknown"])
def test_what_a_dead_holder_had_goes_on_and_is_counted(holders: Holders, tmp_path: Path, end: str) -> None:
    place = tmp_path / "4"
    where = {} if end == "gone" else ELSEWHERE
    one, two = a_holder(holders, "one", **where), a_holder(holders, "two")
    assert one.take(place)
    assert not two.take(place)
    if end == "silent":
        say_nothing(holders, "one", leases.SECONDS + 1)
    elif end == "gone":
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        a_holder(holders, "one", pid=ended.pid)
    elif end == "died":
        a_holder(holders, "one", state="died", **ELSEWHERE)
    else:
        (holders.folder / "one.json").unlink()
    assert two.take(place)
    assert len(two.dead(place)) == 1
    assert holder_of(holders, place).name == "two"


def test_who_was_stopped_did_not_die_of_it(holders: Holders, tmp_path: Path) -> None:
    one, two = a_holder(holders, "one"), a_holder(holders, "two")
    assert one.take(tmp_path / "4")
    a_holder(holders, "one", state="stopped")
    assert two.take(tmp_path / "4")
    assert two.dead(tmp_path / "4") == []


def test_a_holder_elsewhere_lives_whatever_its_number_means_here(holders: Holders) -> None:
    a_holder(holders, "one", host="far", machine="far/0/1", pid=2**22 - 1)
    assert holders.state("one") == "at work"
    assert [one.name for one in holders.at_work()] == ["one"]
    say_nothing(holders, "one", leases.SECONDS - 20)
    assert holders.state("one") == "at work"


def test_the_clock_is_the_one_of_the_files(holders: Holders, monkeypatch: pytest.MonkeyPatch) -> None:
    a_holder(holders, "one", **ELSEWHERE)
    monkeypatch.setattr(time, "time", lambda: 4e9)  # this machine's is wrong
    assert holders.state("one") == "at work"
    assert not list(holders.folder.glob(".clock*"))


@pytest.mark.parametrize("times", [1, 4])
def test_a_file_that_is_replaced_while_it_is_read_makes_nobody_dead(
    holders: Holders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """NFS says that it is stale. Elsewhere is a holder that renews its file, and leaves a lease."""
    usual, left = reading.content, [times]

    def stale(file: Path, *limits: object) -> bytes:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(file))
        return usual(file, *limits)

    one, two = a_holder(holders, "one", **ELSEWHERE), a_holder(holders, "two")
    assert one.take(tmp_path / "4")
    monkeypatch.setattr(leases.reading, "content", stale)
    assert holders.state("one") == "at work"
    left[0] = times
    assert not two.take(tmp_path / "4")
    left[0] = 10**6
    assert holders.state("nobody") == "died"  # where it is stale for ever


def test_one_of_many_gets_each(holders: Holders, tmp_path: Path) -> None:
    dead = a_holder(holders, "dead", state="died")
    assert all(dead.take(tmp_path / str(number)) for number in range(20))
    names = [f"w{number}" for number in range(6)]
    got: dict[str, list[int]] = {name: [] for name in names}
    barrier = threading.Barrier(len(names))

    def work(name: str) -> None:
        mine = a_holder(Holders(holders.folder), name)
        barrier.wait()
        got[name] = [number for number in range(20) if mine.take(tmp_path / str(number))]

    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(number for numbers in got.values() for number in numbers) == list(range(20))


@pytest.mark.parametrize("content", [b"", b"half a", b"[]"])
def test_a_lease_that_cannot_be_read_holds_nobody_back(
    holders: Holders, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "4.1.lease").write_bytes(content)
    one = a_holder(holders, "one")
    assert one.take(tmp_path / "4")
    assert one.dead(tmp_path / "4") == []


def test_a_holder_is_heard_of_as_long_as_it_lives(holders: Holders) -> None:
    with beating(holders, 0.8, variant="v") as one:
        name = one.holder.name
        file = holders.folder / f"{name}.json"
        first = file.stat().st_mtime_ns
        one.tell(done=5)
        until = time.monotonic() + 300
        while holders.read(name).done != 5 and time.monotonic() < until:  # a beat may be under way
            time.sleep(0.02)
        assert holders.read(name) == msgspec.structs.replace(one.holder, done=5)
        assert file.stat().st_mtime_ns > first
    assert holders.read(name).state == "stopped"
    with pytest.raises(KeyboardInterrupt), beating(holders) as two:
        raise KeyboardInterrupt
    assert holders.state(two.holder.name) == "stopped"
    with beating(holders) as three:
        three.end("died")
    assert holders.state(three.holder.name) == "died"
    assert holders.at_work() == []


def test_a_disk_that_refuses_says_so(tmp_path: Path) -> None:
    (tmp_path / "work").write_text("a file")
    with pytest.raises(QevalError, match="cannot be used"):
        Beating(Holders(tmp_path / "work" / "holders")).begin()


def test_shards_are_taken_by_leases_where_they_are_given(holders: Holders, tmp_path: Path) -> None:
    def a_book(name: str) -> Shards:
        return Shards(tmp_path / "digest", helps=False, leases=a_holder(holders, name))

    one, two = a_book("one"), a_book("two")
    assert one.take(3)
    assert one.begin(3)
    assert not two.take(3)
    one.close()
    assert two.take(3)
    assert not (tmp_path / "digest" / "lock").exists()
    for number in range(TRIES):
        book = a_book(f"mortal{number}")
        assert book.take(5)
        assert book.begin(5)
        a_holder(holders, f"mortal{number}", state="died")
    assert two.take(5)
    assert not two.begin(5), "it killed too many"
    two.close()
    assert not a_book("three").begin(5), "that somebody looked at it heals nothing"


def test_what_is_told_at_once_is_not_written_over_by_an_older_beat(tmp_path: Path) -> None:
    """A beat that the disk holds up says what it knew before; what is told meanwhile comes after it."""
    held_up, go = threading.Event(), threading.Event()

    class Slow(Holders):
        def write(self, holder: Holder) -> None:
            if threading.current_thread() is one._thread and not held_up.is_set():
                held_up.set()
                assert go.wait(120)
            super().write(holder)

    holders = Slow(tmp_path)
    one = Beating(holders, 8.0, "me")
    one.holder = msgspec.structs.replace(one.holder, seconds=0.1)
    one.begin()
    assert held_up.wait(120)
    one.holder = msgspec.structs.replace(one.holder, seconds=8000.0)  # no other beat comes to mend it
    telling = threading.Thread(target=lambda: one.tell(total=7, now=True))
    telling.start()
    telling.join(0.1)  # which it ends within only if it overtakes
    go.set()
    telling.join(120)
    one._over.set()
    one._thread.join(120)
    found = holders.read("me")
    assert found is not None
    assert found.total == 7
