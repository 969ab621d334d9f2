"""Commands that are killed at random moments until they have ended by themselves so often."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

QEVAL = (sys.executable, "-m", "qeval")
_PATIENCE = 900.0
"""Seconds after which a command that nobody killed hangs."""


@dataclass
class Killer:
    """Kills commands that write below `place`, and counts. `whom`: "command" alone, so that what it started
    must end by itself, "family" with all that it started, or "worker", one of these."""

    place: Path
    environment: dict[str, str] = field(default_factory=dict)
    whom: Sequence[str] = ("command", "family")
    seed: int = 0
    kills: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def undisturbed(self, *words: str) -> float:
        """Run a command to its end; its seconds."""
        begun = time.monotonic()
        with self._start(words) as process:
            try:
                told, _ = process.communicate(timeout=_PATIENCE)
            finally:
                process.kill()
        assert process.returncode == 0, told
        return time.monotonic() - begun

    def once(self, seconds: float, *words: str) -> bool:
        """Run a command and kill it at a moment of so many seconds, or just after one of its first writes;
        whether it ended by itself before that, as it should."""
        with self._start(words) as process:
            try:
                return self._killed(process, seconds)
            finally:
                process.kill()

    def _killed(self, process: subprocess.Popen[str], seconds: float) -> bool:
        family = _Family(process.pid)
        whom = self.random.choice(self.whom)
        if self.random.random() < 0.5:
            moment = self.random.uniform(0, seconds)
            alive = _waited(process, family, lambda: False, moment)
        else:
            writes, before = self.random.randint(1, 16), _tree(self.place)
            alive = _waited(process, family, lambda: len(_tree(self.place) ^ before) >= writes, seconds)
        if alive:
            self._kill(process, family, whom)
        told, _ = process.communicate(timeout=_PATIENCE)
        assert "unforeseen" not in told, told
        assert "Traceback" not in told, told
        if not alive:
            assert process.returncode == 0, told
        elif whom == "worker":
            assert process.returncode in {0, 1}, told
        family.ended()
        return not alive

    def _kill(self, process: subprocess.Popen[str], family: _Family, whom: str) -> None:
        family.look()
        workers = [one for one in family.members.values() if one.is_running()]
        victims = {
            "command": [process.pid],
            "family": [process.pid, *(one.pid for one in workers)],
            "worker": [self.random.choice(workers).pid] if workers else [],
        }[whom]
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.kills += bool(victims)

    def _start(self, words: Sequence[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            (*QEVAL, *words),
            env={**os.environ, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


class _Family:
    """All that a process started, as far as it was seen."""

    def __init__(self, pid: int) -> None:
        self.members: dict[int, psutil.Process] = {}
        with contextlib.suppress(psutil.Error):
            self.parent = psutil.Process(pid)

    def look(self) -> None:
        with contextlib.suppress(psutil.Error):
            self.members.update({one.pid: one for one in self.parent.children(recursive=True)})

    def ended(self) -> None:
        """Wait until nothing of it is left. Raises AssertionError where something stays."""
        left = psutil.wait_procs([*self.members.values()], timeout=_PATIENCE)[1]
        assert not left, left


def _waited(
    process: subprocess.Popen[str], family: _Family, seen: Callable[[], bool], seconds: float
) -> bool:
    """Wait so long, or until something is seen; whether the process is still there."""
    end, looked = time.monotonic() + seconds, 0.0
    while process.poll() is None and time.monotonic() < end and not seen():
        if time.monotonic() > looked + 0.1:
            family.look()
            looked = time.monotonic()
        time.sleep(0.004)
    return process.poll() is None


def _tree(place: Path) -> set[str]:
    """All that lies below a place to which others write meanwhile, as far as it still lies there."""
    return {
        str(Path(folder) / name) for folder, folders, names in os.walk(place) for name in (*folders, *names)
    }


def hashes(place: Path, *names: str) -> dict[str, str]:
    """The SHA-256 of every file below a place at rest whose name ends so, by its path there."""
    found = [path for path in sorted(place.rglob("*")) if path.name.endswith(names) and path.is_file()]
    return {str(path.relative_to(place)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def strays(place: Path, *kept: str) -> list[str]:
    """What was begun and never finished: hidden names that are not `kept`, locks, shards."""
    return [
        str(path)
        for path in place.rglob("*")
        if (path.name.startswith(".") and path.name not in kept) or path.name == "shards"
    ]


def aged(place: Path) -> None:
    """Make all files below a place older than what is taken for still being written."""
    for path in place.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            os.utime(path, (1_000_000_000, 1_000_000_000), follow_symlinks=False)
