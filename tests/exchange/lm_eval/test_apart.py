"""Large imports are read in two processes, and come out as if in one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from qeval.base.errors import QevalError
from qeval.exchange.lm_eval import apart
from qeval.exchange.lm_eval.reading import import_lm_eval

pytestmark = pytest.mark.slow
RUN = ("run", "--model", "toy[items=40]", "--suite", "demo", "--schemes", "fp16,rtn")
BASELINE = "toy[items=40][scheme=fp16]"


@pytest.fixture
def exported(qeval, tmp_path: Path) -> Path:
    qeval(*RUN)
    qeval("export", "--to", "lm-eval", "-o", tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def _apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "LARGE", 0)
    monkeypatch.setattr(apart, "_cores", lambda: 2)


def stored(place: Path) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def test_two_processes_make_what_one_does(qeval, exported: Path, tmp_path: Path, monkeypatch) -> None:
    words = ("import", exported, "--baseline", BASELINE)
    first = Path(qeval(*words, "--runs-dir", tmp_path / "one").stdout.strip())
    monkeypatch.setattr(apart, "LARGE", 0)
    monkeypatch.setattr(apart, "_cores", lambda: 2)
    second = Path(qeval(*words, "--runs-dir", tmp_path / "two").stdout.strip())
    assert stored(second) == stored(first)
    assert len(stored(first)) > 6


@pytest.mark.usefixtures("_apart")
def test_an_error_there_is_an_error_here(exported: Path) -> None:
    file = max(exported.rglob("samples_*.jsonl"))
    file.write_text(file.read_text() + "{")
    with pytest.raises(QevalError, match="it is no JSON") as error:
        import_lm_eval(exported, baseline=BASELINE)
    assert str(file) in error.value.message
    assert error.value.hint


@pytest.mark.usefixtures("_apart")
def test_a_process_that_is_ended_is_an_error() -> None:
    with pytest.raises(QevalError, match="ended from outside"), apart.each(1) as each:
        list(each(_end, [signal.SIGKILL]))


def _end(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_no_process_outlives_the_command(tmp_path: Path, number: signal.Signals) -> None:
    code = (
        "import signal, time, qeval.exchange.lm_eval.apart as apart\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "apart.LARGE, apart._cores = 0, lambda: 2\n"
        "try:\n"
        "    with apart.each(1) as each:\n"
        "        run = each(time.sleep, [600] * 5)\n"
        "        print('begun', flush=True)\n"
        "        list(run)\n"
        "except KeyboardInterrupt:\n"
        "    print('stopped', flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=tmp_path
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    family = waited(lambda: [one for one in psutil.Process(process.pid).children() if busy(one)])
    for pid in (process.pid, *(one.pid for one in family if number == signal.SIGINT)):  # as a terminal does
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    told, _ = process.communicate(timeout=180)
    assert b"Traceback" not in told
    assert (b"stopped" in told) == (number == signal.SIGINT)
    assert not psutil.wait_procs(family, timeout=120)[1]


def busy(process: psutil.Process) -> bool:
    """Whether it is a reader, which has two threads once it has begun."""
    return process.num_threads() > 1


def waited(found, seconds: float = 180) -> list[psutil.Process]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if len(family := found()) > 1:
            return family
        time.sleep(0.1)
    raise AssertionError("no processes began")
