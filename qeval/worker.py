"""The process that scores one variant: a Job on standard input, Events on standard output.

Whatever libraries print goes to the job's log file. A finished task is a cell on disk before it is
announced, so that nothing computed is lost when the process dies.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import BinaryIO

import msgspec

from qeval.errors import QevalError
from qeval.jobs import Done, Event, Failed, Finished, Job, Planned, Progress
from qeval.records import Cell, Item, Samples, Task
from qeval.store import RunDir, Store, digest

SCORING_VERSION = 1
"""Raised when a change of qeval's own code changes numbers: cells of an older version are not taken over."""

Say = Callable[[Event], None]


class Cells:
    """The cells of one job: their keys, which of them exist, and the way to add one."""

    def __init__(self, job: Job, say: Say) -> None:
        self.job = job
        self.say = say
        self.store = Store(Path(job.runs_dir))
        self.place: RunDir = self.store.run_dir(job.run_id)

    def key(self, task: Task) -> str:
        """The hash of everything that can change the numbers of this variant on this task."""
        settings = self.job.settings
        return digest(
            {
                "scoring": SCORING_VERSION,
                "variant": self.job.identity,
                "context": self.job.context,
                "task": asdict(task),
                "settings": {
                    name: getattr(settings, name)
                    for name in (
                        "seed",
                        "batch_size",
                        "device",
                        "dtype",
                        "engine",
                        "chat_template",
                        "materialize",
                    )
                },
            }
        )

    def recall(self, task: Task) -> Cell | None:
        """Announce and return the finished cell of a task, taken over from another run if need be."""
        key = self.key(task)
        found = self.store.find(key)
        if found is None:
            return None
        place, cell = found
        if place.path != self.place.path:
            self.place.adopt(place, cell)
        self.say(Finished(replace(cell, provenance=None)))
        return cell

    def add(self, cell: Cell, samples: Samples, items: Sequence[Item]) -> None:
        """Store a cell and announce it."""
        cell = self.place.add(cell, samples, items)
        self.say(Finished(replace(cell, provenance=None)))


def score_toy(job: Job, say: Say) -> None:
    """Answer every task with the toy model."""
    from qeval import toy

    cells = Cells(job, say)
    settings = toy.parse(job.variant.model)
    tasks = tuple(toy.leaf_tasks(job.tasks))
    todo = [task for task in tasks if cells.recall(task) is None]
    say(Planned(tuple((task.name, toy.available(task, settings)) for task in todo), len(tasks) - len(todo)))
    done = 0
    for task in todo:
        start = time.perf_counter()
        samples, items = toy.score(task, job.variant.scheme, settings, job.settings.seed)
        seconds = time.perf_counter() - start
        done += len(samples)
        cell = Cell(
            key=cells.key(task),
            task=task,
            n=len(samples),
            n_available=toy.available(task, settings),
            score=float(samples.value.sum() / samples.weight.sum()),
            task_version="toy",
            dataset="invented",
            seconds=seconds,
            provenance=toy.provenance(job.variant.scheme),
        )
        cells.add(cell, samples, items)
        say(Progress(task.name, done))
    say(Done(toy.provenance(job.variant.scheme)))


def score_model(job: Job, say: Say) -> None:
    """Score every task with a real model."""
    from qeval.session import score

    score(job, Cells(job, say), say)


def _speaker(pipe: BinaryIO) -> Say:
    def say(event: Event) -> None:
        try:
            pipe.write(msgspec.json.encode(event) + b"\n")
            pipe.flush()
        except BrokenPipeError:
            os._exit(1)  # nobody listens any more: the command was killed

    return say


def main() -> None:
    """Read the job, score it, say how it went; the exit code is 0 whenever the end was announced."""
    say = _speaker(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)  # from here on, whatever is printed goes to the log
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    try:
        from qeval.toy import is_toy

        (score_toy if is_toy(job.variant.model) else score_model)(job, say)
    except QevalError as error:
        traceback.print_exc()
        say(Failed(error.message, error.hint, traceback.format_exc()))
    except MemoryError:
        say(Failed("Memory ran out.", "Take a smaller --batch-size or a larger machine."))
    except Exception as error:  # noqa: BLE001 - the one place where a library's surprise becomes a sentence
        traceback.print_exc()
        what = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        say(
            Failed(
                f"Something unforeseen happened ({what}).",
                f"The details are in {job.log}.",
                traceback.format_exc(),
            )
        )


if __name__ == "__main__":
    main()
