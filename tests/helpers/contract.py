"""What holds for every way of scoring a run, however its workers are started: one command, run, and total.

A way is a shell script around `qeval run WORDS`. A test file has a class that inherits `Contract`, and
fixtures: `script`, the way, and `around`, what must be in its environment.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from qeval.base.errors import Exit
from qeval.store.runs import RunDir

QEVAL = f"{shlex.quote(sys.executable)} -m qeval"
Start = Callable[..., subprocess.Popen[str]]
WORDS = ("--schemes", "fp16,rtn,bnb4", "--tasks", "arc_easy,piqa")
PATIENCE = 300
MARK = "QEVAL_TEST_MARK"
"""A variable by which processes are known that a cluster of the test's own started."""


def _hear_ctrl_c() -> None:
    """A shell's background jobs ignore SIGINT, and so would their children: begin as in a terminal."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def the_run(tmp_path: Path) -> RunDir:
    [file] = (tmp_path / "runs").glob("*/run.json")
    return RunDir(file.parent)


def samples(place: Path) -> list[str]:
    """Hashes of the samples of a run. Their keys are left out: the toy's tell the word for its device."""
    files = place.glob("cells/*/samples.parquet")
    return sorted(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)


@functools.cache
def of_one_process() -> list[str]:
    """The samples of one process that nobody disturbs."""
    with tempfile.TemporaryDirectory() as runs:
        words = ("run", "--model", "toy[items=20]", *WORDS, "--runs-dir", runs)
        subprocess.run((sys.executable, "-m", "qeval", *words), check=True, capture_output=True)
        return samples(next(Path(runs).glob("toy*")))


def scorers(place: Path) -> list[psutil.Process]:
    """The processes that score for a run in this folder, wherever they were started."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        words, there = process.info["cmdline"] or [], process.info["environ"] or {}
        ours = there.get("QEVAL_RUNS_DIR") == str(place / "runs")
        marked = MARK in there and there[MARK] == os.environ.get(MARK)
        if (ours or marked) and "qeval.score.worker" in words:
            found.append(process)
    return found


def killed(processes: list[psutil.Process]) -> bool:
    """Kill the first of them that is still there; whether there was one."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
            return True
    return False


def wait_for(what: Callable[[], object], seconds: float = 300) -> None:
    """Wait until something is so; a folder that vanishes while it is read says "not yet"."""

    def so() -> bool:
        with contextlib.suppress(FileNotFoundError):
            return bool(what())
        return False

    until = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.05)


class Contract:
    """The tests, and the fixtures that they share."""

    @pytest.fixture
    def start(self, script: str, around: dict[str, str], tmp_path: Path) -> Iterator[Start]:
        """`start(*words)`: begin a run this way, in a group of processes of its own."""
        begun: list[subprocess.Popen[str]] = []

        def call(*words: str, terminal: int | None = None) -> subprocess.Popen[str]:
            there = {"QEVAL_RUNS_DIR": str(tmp_path / "runs"), "QEVAL_CACHE_DIR": str(tmp_path / "cache")}
            begun.append(
                subprocess.Popen(
                    ("sh", "-c", script, "sh", *words),
                    env={**os.environ, **there, **around, "COLUMNS": "120"},
                    stdout=subprocess.PIPE if terminal is None else terminal,
                    stderr=subprocess.STDOUT,
                    text=True,
                    start_new_session=True,
                    preexec_fn=_hear_ctrl_c,  # noqa: PLW1509 - one call, and no thread but this one
                )
            )
            return begun[-1]

        yield call
        for process in begun:
            with contextlib.suppress(subprocess.TimeoutExpired):
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGINT)  # it has more to end than itself
                process.wait(30)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

    def test_the_numbers_are_those_of_one_process_and_the_logs_are_found(
        self, start: Start, tmp_path: Path
    ) -> None:
        process = start("--model", "toy[items=20]", *WORDS)
        said = process.communicate(timeout=PATIENCE)[0]
        assert process.returncode == 0, said
        assert re.search(r"average +40 +fp16", said), said
        place = the_run(tmp_path)
        assert samples(place.path) == of_one_process()
        assert [result.status for result in place.read().results] == ["done"] * 3
        assert {"fp16.log", "rtn.log", "bnb4.log"} <= {log.name for log in (place.path / "logs").iterdir()}
        left = [str(file) for file in place.path.rglob("*") if {"shards", "work", ".lock"} & set(file.parts)]
        assert left == []

    def test_a_variant_that_fails_is_the_only_one(self, start: Start, tmp_path: Path) -> None:
        process = start("--model", "toy[items=20,fail=rtn]", *WORDS)
        said = process.communicate(timeout=PATIENCE)[0]
        assert process.returncode == Exit.ERROR, said
        assert "told to fail" in said
        place = the_run(tmp_path)
        assert [result.status for result in place.read().results] == ["done", "failed", "done"]
        assert "Traceback" in (place.path / "logs" / "rtn.log").read_text()

    def test_a_worker_that_is_killed_costs_nobody_anything_but_time(
        self, start: Start, tmp_path: Path
    ) -> None:
        process = start("--model", "toy[items=20,delay=0.7]", *WORDS)
        wait_for(lambda: list((tmp_path / "runs").glob("*/cells/*/cell.json")))
        wait_for(lambda: killed(scorers(tmp_path)))
        said = process.communicate(timeout=PATIENCE)[0]
        statuses = sorted(result.status for result in the_run(tmp_path).read().results)
        if process.returncode == 0:
            assert statuses == ["done"] * 3, said
        else:  # with one worker nobody takes over: it is the variant's end, and the same command goes on
            assert statuses == ["done", "done", "failed"], said
            assert "was killed" in said
            again = start("--model", "toy[items=20,delay=0.7]", *WORDS)
            assert again.communicate(timeout=PATIENCE)[0]
            assert again.returncode == 0

    def test_ctrl_c_leaves_no_process_and_the_same_command_begins_again(
        self, start: Start, tmp_path: Path
    ) -> None:
        process = start("--model", "toy[items=20,delay=90]", *WORDS)
        wait_for(lambda: scorers(tmp_path))
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT)
        begun = time.monotonic()
        said = process.communicate(timeout=PATIENCE)[0]
        assert process.returncode != 0, said
        assert time.monotonic() - begun < 80  # and not the 90 of a task
        wait_for(lambda: not scorers(tmp_path), 80)
        assert not list((tmp_path / "runs").rglob(".lock"))
        start("--model", "toy[items=20,delay=90]", *WORDS)
        wait_for(lambda: scorers(tmp_path))

    def test_one_total_counts_all_variants(self, start: Start) -> None:
        ours, theirs = pty.openpty()
        process = start("--model", "toy[items=20,delay=0.8]", *WORDS, terminal=theirs)
        os.close(theirs)
        said = b""
        with contextlib.suppress(OSError):  # the terminal's other end is closed
            while chunk := os.read(ours, 1 << 16):
                said += chunk
        os.close(ours)
        assert process.wait(PATIENCE) == 0, said.decode()
        assert re.search(rb"all \d+  100 %", said), said.decode()

    def test_a_gate_stops_and_judges_as_one_process_does(self, start: Start, tmp_path: Path) -> None:
        gate = tmp_path / "gate.toml"
        gate.write_text("[[rule]]\nmax_drop = 99.0\n")
        words = ("--model", "toy", "--schemes", "fp16,rtn", "--tasks", "arc_easy", "--gate", str(gate))
        process = start(*words)
        said = process.communicate(timeout=PATIENCE)[0]
        assert process.returncode == 0, said
        assert "PASS" in said
