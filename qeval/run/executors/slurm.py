"""A Slurm array job of `qeval worker`, and a job after it that reports and judges."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from qeval.base.errors import QevalError, UsageError
from qeval.base.private import WITHHELD, unsecret, withheld

if TYPE_CHECKING:  # the list of executors is imported for every help
    from qeval.ask.order import Order
    from qeval.store.runs import RunDir

_SECONDS = 60.0
"""How long Slurm's commands may take to answer."""
ASK_SECONDS = 10.0
"""How often Slurm is asked whether a job is still there; its controller serves everybody."""
_OF_GPUS = re.compile(r"--(gres|gpus|gpus-per-\w+|ntasks-per-gpu|cpus-per-gpu|mem-per-gpu)(=|$)|-G")
"""Words of sbatch that ask for GPUs, all of which have a value: in the same word, else in the next."""


class Call(NamedTuple):
    """A call of sbatch: its words, and the script on its standard input."""

    words: tuple[str, ...]
    script: str

    def __str__(self) -> str:
        return f"{shlex.join(self.words)} <<'END'\n{self.script}END"


@dataclass(frozen=True)
class Submitted:
    """The jobs of a run, by number; `last` is the one that reports and judges, "" where nobody does."""

    array: str
    last: str = ""


def check(order: Order, words: Sequence[str]) -> None:
    """Raise QevalError where jobs cannot be submitted from here, UsageError where a secret stands in the
    words of the command: Slurm keeps what is submitted."""
    for word in (*words, *_own(order.sbatch_args)):
        if withheld(word) != word:
            raise UsageError(
                f"The command contains a secret ({withheld(word).replace(WITHHELD, '...')}).",
                "Slurm keeps what is submitted. Log in on the nodes: hf auth login",
            )
    if not order.dry_run and shutil.which("sbatch") is None:
        raise QevalError(
            "--executor slurm needs Slurm's sbatch, and there is none here.",
            "Run it where jobs are submitted; --prepare and `qeval worker` work without Slurm.",
        )


def calls(order: Order, place: RunDir, words: Sequence[str], elements: int) -> tuple[Call, Call]:
    """The calls that submit so many workers, and what comes after them; in the second one ARRAY stands for
    the number of the first. `words` are those of `qeval run`."""
    from qeval.base.next_steps import finishing  # which help, that imports this, has no use for

    own = _own(order.sbatch_args)
    logs = place.path.resolve() / "logs"
    common = ("--parsable", "--requeue", "--open-mode=append")
    name = f"qeval-{place.path.name}"
    array = (
        *("sbatch", *common, f"--job-name={name}", f"--array=1-{elements}"),
        *(f"--output={logs}/slurm-%A_%a.log", *own),
    )
    last = (
        *("sbatch", *common, f"--job-name={name}-finish", "--dependency=afterany:ARRAY"),
        *(f"--output={logs}/slurm-%j-finish.log", *_without_gpus(own)),
    )
    worker = ("worker", str(place.path.resolve()))
    return Call(array, _script(worker)), Call(last, _script(finishing(words)))


def submit(order: Order, place: RunDir, words: Sequence[str], elements: int) -> Submitted:
    """Submit the workers of a prepared run and, where nobody waits for them, the job that comes after them.

    Raises QevalError where Slurm refuses; then nothing of it is left in its queue.
    """
    first, last = calls(order, place, words, elements)
    (place.path / "logs").mkdir(exist_ok=True)
    array = _submitted(first)
    if order.wait:
        return Submitted(array)
    try:
        return Submitted(array, _submitted(Call(_after(last.words, array), last.script)))
    except BaseException:
        cancel(array)
        raise


def cancel(job: str) -> None:
    """Have a job end, if it is still there."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        _called(("scancel", job))


class Queue:
    """Whether an array job is still in Slurm's queue, asked now and then."""

    def __init__(self, job: str) -> None:
        self.job = job
        self._asked, self._there = -ASK_SECONDS, True

    def __call__(self) -> bool:
        """Whether some of it waits or runs. Where Slurm does not answer it is taken to be there."""
        if time.monotonic() - self._asked >= ASK_SECONDS:
            self._asked = time.monotonic()
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                done = _called(("squeue", "--noheader", f"--jobs={self.job}", "--format=%T"))
                gone = done.returncode != 0 and "nvalid job id" in done.stderr
                self._there = not gone and (done.returncode != 0 or bool(done.stdout.strip()))
        return self._there


@contextlib.contextmanager
def cancelled_on_ctrl_c(job: str) -> Iterator[None]:
    """Within it, what ends the command ends the job."""
    try:
        yield
    except BaseException:
        cancel(job)
        raise


def _own(words: Sequence[str]) -> tuple[str, ...]:
    """The words of --sbatch-args. Raises UsageError for quotes that do not end."""
    try:
        return tuple(word for text in words for word in shlex.split(text))
    except ValueError as error:
        raise UsageError(f"--sbatch-args: {error}.", "Close its quotes.") from error


def _without_gpus(words: Sequence[str]) -> Iterator[str]:
    """The words but for those that ask for GPUs, which reporting does not need."""
    left = iter(words)
    for word in left:
        if not _OF_GPUS.match(word):
            yield word
        elif "=" not in word and (word == "-G" or word.startswith("--")):
            next(left, None)


def _script(words: Sequence[str]) -> str:
    return f"#!/bin/sh\nexec {shlex.join((sys.executable, '-m', 'qeval', *words))}\n"


def _after(words: Sequence[str], array: str) -> tuple[str, ...]:
    return tuple(word.replace("afterany:ARRAY", f"afterany:{array}") for word in words)


def _submitted(call: Call) -> str:
    """The number of a job that was submitted. Raises QevalError where it was not."""
    try:
        done = _called(call.words, call.script)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise QevalError(f"sbatch does not answer: {error}.", "Check the cluster with: sinfo") from error
    number = done.stdout.strip().partition(";")[0]
    if done.returncode != 0 or not number.isdigit():
        said = (done.stderr or done.stdout).strip().splitlines()
        raise QevalError(
            f"sbatch refused: {said[-1] if said else f'code {done.returncode}'}.",
            "See --sbatch-args, and --dry-run for what is submitted.",
        )
    return number


def _called(words: Sequence[str], script: str = "") -> subprocess.CompletedProcess[str]:
    """Slurm exports the environment to the job and keeps it; secrets are left out of it."""
    return subprocess.run(
        words,
        input=script,
        env=unsecret(os.environ),
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
