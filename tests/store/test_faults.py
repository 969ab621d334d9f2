"""Each write, flush, rename, link and directory of a run fails once; the same command then heals it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest

pytestmark = pytest.mark.slow
COMMAND = ("run", "--model", "toy[items=30]", "--tasks", "arc_challenge,hellaswag", "--schemes", "fp16,rtn")
FAULTS = (errno.ENOSPC, errno.EIO, errno.EXDEV, errno.EACCES)
CALLS = ("fsync", "replace", "link", "mkdir")


class Disk:
    """Counts what is asked of the disk, and refuses the call of the number `fails` with `error`; of a write
    it takes half first, as a disk does that fills up."""

    def __init__(self, fails: int = -1, error: int = 0) -> None:
        self.fails, self.error, self.count = fails, error, 0

    def asked(self) -> None:
        self.count += 1
        if self.count - 1 == self.fails:
            raise OSError(self.error, os.strerror(self.error))

    def instead_of(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*words: Any, **more: Any) -> Any:
            self.asked()
            return real(*words, **more)

        return call

    def fdopen(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def opened(*words: Any, **more: Any) -> Any:
            file = real(*words, **more)
            write = file.write

            def half_at_first(data: Any) -> int:
                try:
                    self.asked()
                except OSError:
                    write(data[: len(data) // 2])
                    raise
                return int(write(data))

            return _Watched(file, half_at_first)

        return opened


class _Watched:
    """A file whose write is another function."""

    def __init__(self, file: Any, write: Callable[[Any], int]) -> None:
        self.file, self.write = file, write

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> Self:
        self.file.__enter__()
        return self

    def __exit__(self, *told: object) -> Any:
        return self.file.__exit__(*told)


@contextmanager
def on(disk: Disk) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", disk.instead_of(lambda _: None))
        for name in CALLS[1:]:
            patch.setattr(os, name, disk.instead_of(getattr(os, name)))
        patch.setattr(os, "fdopen", disk.fdopen(os.fdopen))
        yield


def kept(runs: Path) -> dict[str, bytes]:
    """The bytes of every file of a store that holds numbers, by their places in it."""
    files = {str(path.relative_to(runs)): path for path in runs.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if name.endswith(".parquet")}


def strays(runs: Path) -> list[str]:
    """What was begun and never finished."""
    return [path.name for path in runs.rglob(".*") if path.name != ".newest" and "lock" not in path.name]


@pytest.mark.parametrize("error", FAULTS, ids=lambda code: errno.errorcode[code])
def test_each_call_of_a_run_fails_once_and_the_same_command_heals(qeval, runs_dir: Path, error: int) -> None:
    disk = Disk()
    with on(disk):
        qeval(*COMMAND)
    whole, calls = kept(runs_dir), disk.count
    assert len(whole) >= 4
    assert calls > 20
    assert strays(runs_dir) == []
    for number in range(FAULTS.index(error), calls, len(FAULTS)):
        for path in sorted(runs_dir.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        with on(Disk(number, error)):
            done = qeval(*COMMAND, code=None)
        told = done.stdout + done.stderr
        assert "unforeseen" not in told, (number, told)
        assert "Traceback" not in told, (number, told)
        assert done.exit_code in {0, 1}, (number, told)
        qeval(*COMMAND)
        assert kept(runs_dir) == whole, (number, told)
        assert strays(runs_dir) == [], number
