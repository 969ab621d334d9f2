"""Who uses an entry of the cache is told by a lock that the system keeps."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from qeval.base import uses

pytest.importorskip("fcntl")
HOLD = (
    "import sys, pathlib; from qeval.base import uses; uses.hold(pathlib.Path(sys.argv[1]));"
    " print('held', flush=True); sys.stdin.read()"
)


@pytest.fixture
def other(tmp_path):
    """Another process that holds an entry until its stdin is closed."""
    words = [sys.executable, "-c", HOLD, str(tmp_path / "entry")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


def test_what_another_process_holds_is_not_free_until_it_ends(tmp_path, other) -> None:
    entry = tmp_path / "entry"
    assert not uses.is_free(entry, 0.0)
    with uses.unused(entry, 0.0) as free:
        assert not free
    other.kill()
    other.wait()
    assert uses.is_free(entry, time.time())


def test_what_this_process_holds_is_free_to_it_and_stays_held(tmp_path) -> None:
    entry = tmp_path / "entry"
    uses.hold(entry)
    with uses.unused(entry, time.time()) as free:
        assert free
    code = (
        "import sys, pathlib; from qeval.base import uses;"
        " sys.exit(uses.is_free(pathlib.Path(sys.argv[1]), 0.0))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(entry)], check=False)
    assert done.returncode == 0


def test_looking_writes_nothing(tmp_path) -> None:
    assert uses.is_free(tmp_path / "entry", 0.0)
    assert list(tmp_path.iterdir()) == []


def test_without_locks_what_was_used_today_counts_as_used(tmp_path, monkeypatch) -> None:
    import fcntl

    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    for ago, expected in ((60, False), (2 * 86_400, True)):
        with uses.unused(tmp_path / "entry", time.time() - ago) as free:
            assert free is expected
    uses.hold(tmp_path / "entry")


def test_what_is_held_counts_as_used_now(tmp_path: Path) -> None:
    import os

    entry = tmp_path / "entry"
    entry.mkdir()
    os.utime(entry, (1.0, 1.0))
    uses.hold(entry)
    assert time.time() - entry.stat().st_mtime < 60
