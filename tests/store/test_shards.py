"""What workers of a variant share: files that prove themselves, and a lock for each shard."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from qeval.store.shards import TRIES, Answered, Shards, forget_tries

SOME = Answered("name", 4, 99, b"12345678", b"87654321", b"\1")
TAKE = """
import sys
from pathlib import Path
from qeval.store.shards import Shards
book = Shards(Path(sys.argv[1]), helps=True)
print([book.take(number) for number in (0, 1)], flush=True)
sys.stdin.read()
"""


def a_book(folder: Path) -> Shards:
    return Shards(folder / "variant" / "digest", helps=False)


def test_answers_come_back_whole_and_under_their_name_only(tmp_path: Path) -> None:
    book = a_book(tmp_path)
    assert book.read(3, "name") is None
    book.write(3, SOME)
    assert book.read(3, "name") == SOME
    assert book.read(3, "another") is None
    assert book.read(2, "name") is None


@pytest.mark.parametrize("at", [0, 40, -1])
def test_damaged_answers_are_none(tmp_path: Path, at: int) -> None:
    book = a_book(tmp_path)
    book.write(3, SOME)
    file = book.folder / "3.shard"
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)
    assert book.read(3, "name") is None
    file.write_bytes(file.read_bytes()[:20])
    assert book.read(3, "name") is None
    file.write_bytes(msgspec.msgpack.encode(SOME))
    assert book.read(3, "name") is None


def test_a_shard_is_one_processs_until_it_leaves_or_dies(tmp_path: Path) -> None:
    book = a_book(tmp_path)
    assert book.take(0)
    other = subprocess.Popen(
        [sys.executable, "-c", TAKE, str(book.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout is not None
    assert other.stdin is not None
    assert other.stdout.readline() == "[False, True]\n"
    assert not book.take(1)
    other.kill()
    other.wait()
    other.stdout.close()
    other.stdin.close()
    assert book.take(1)
    book.close()


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_where_a_disk_knows_no_locks_a_shard_is_anybodys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    """As many clusters mount theirs. Both score it, and what they keep is the same."""

    def refused(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "lockf", refused)
    one, two = a_book(tmp_path), a_book(tmp_path)
    for book in (one, two):
        assert book.take(3)
        assert book.begin(3)
        book.write(3, SOME)
        book.leave(3)
        book.close()
    assert one.read(3, "name") == SOME
    monkeypatch.setattr(fcntl, "lockf", lambda *_: _full())
    with pytest.raises(OSError, match="space"):
        one.take(4)
    one.close()


def _full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_shard_may_kill_three_workers(tmp_path: Path) -> None:
    book = a_book(tmp_path)
    assert book.take(5)
    assert [book.begin(5) for _ in range(TRIES + 1)] == [True] * TRIES + [False]
    assert book.begin(6)
    book.leave(6)
    assert [book.begin(6) for _ in range(TRIES)] == [True] * TRIES
    forget_tries(tmp_path / "another")
    book.close()
    assert not book.begin(5)
    forget_tries(tmp_path / "variant")  # of another command
    assert book.begin(5)
    book.close()
