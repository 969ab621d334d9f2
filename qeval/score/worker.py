"""The process that scores one variant: a Job on standard input, Events on standard output.

Whatever libraries print goes to the job's log file. A finished task is a cell on disk before it is
announced, so that nothing computed is lost when the process dies.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

import msgspec

from qeval.base import uses
from qeval.base.errors import BrokenDeviceError, LostDeviceError, QevalError
from qeval.base.messages import Done, Event, Failed, Job, Lost, Note, Progress, Stopped, Todo
from qeval.base.places import COMPILED
from qeval.base.private import withheld
from qeval.base.records import Cell, Provenance, Task
from qeval.base.refusals import refused
from qeval.base.text import printable
from qeval.load.toy import is_toy, parse
from qeval.score.cells import JobCells, Say, StoppedEarly
from qeval.score.clock import CLOCK, phase
from qeval.score.once import refuse_twice
from qeval.store.clusters import count_texts

AHEAD = "--ahead"
"""An argument, known to `run.workers` too: import what will be needed before the job is read."""


def score_toy(job: Job, say: Say) -> None:
    """Answer every task with the toy model."""
    from qeval.score import toy

    if job.part == "help":
        say(Done())
        return
    _refuse_device(job.settings.device)
    cells = JobCells(job, say)
    settings = parse(job.variant.model)
    tasks = tuple(toy.leaf_tasks(job.tasks))
    refuse_twice(tasks)
    found = {task.name: cells.recall(task) for task in tasks}
    todo = [task for task in tasks if found[task.name] is None]
    for known in found.values():
        if known is not None and cells.unverified(known):
            cells.verified(known)
    say(Todo(tuple((task.name, toy.available(task, settings)) for task in todo), len(tasks) - len(todo)))
    provenance = toy.provenance(job.variant.scheme, engine=toy.OTHER_PATH if job.shuffled else toy.PATH)
    done = 0
    for task in todo:
        done += _score_toy_task(job, cells, task, provenance)
        say(Progress(task.name, done))
    if job.fidelity is not None:
        from qeval.score.fidelity import toy as toys

        toys.measure(job)
    say(Done(provenance))


def _refuse_device(asked: str) -> None:
    """Refuse the toy a device that a model would be refused here, where anything can tell."""
    from qeval.load.device import resolve_device

    if asked not in {"auto", "cpu"} and find_spec("torch") is not None:
        resolve_device(asked)


def _score_toy_task(job: Job, cells: JobCells, task: Task, provenance: Provenance) -> int:
    """Answer a task with the toy model and keep its cell; the number of its items."""
    from qeval.score import toy

    settings = parse(job.variant.model)
    start = time.perf_counter()
    samples, items = toy.score(task, job.variant.scheme, settings, job.settings.seed)
    if job.shuffled:
        samples = toy.by_another_path(task, samples, job.settings.seed)
    watcher = cells.watcher([task], [len(samples)])
    if watcher is not None:
        for block in watcher.blocks():
            watcher.judge_block(block, [samples])
    seconds = time.perf_counter() - start
    cell = Cell(
        key=cells.key(task),
        task=task,
        n=len(samples),
        n_available=toy.available(task, settings),
        score=float(samples.value.sum() / samples.weight.sum()),
        task_version="toy",
        dataset="invented",
        seconds=seconds,
        provenance=provenance,
        texts=count_texts(samples.cluster),
    )
    cells.add(cell, samples, items)
    return len(samples)


def score_model(job: Job, say: Say) -> None:
    """Score every task with a real model, on the device that "auto" turns out to be."""
    from qeval.load.device import limit_memory, overlooked, resolve_device, take_threads
    from qeval.score.session import score

    take_threads(job.threads)
    uses.hold(Path(job.cache_dir) / COMPILED)
    settings = replace(job.settings, device=resolve_device(job.settings.device))
    limit_memory(settings.device, settings.gpu_memory)
    if job.settings.device == "auto" and settings.device == "cpu" and (text := overlooked()):
        say(Note(text))
    job = msgspec.structs.replace(job, settings=settings)
    if job.fidelity is not None and not job.tasks:
        from qeval.score.fidelity.alone import measure_alone

        measure_alone(job, say)
        return
    score(job, JobCells(job, say), say)


def _speaker(pipe: BinaryIO) -> Say:
    def say(event: Event) -> None:
        try:
            if isinstance(event, Done):
                event = msgspec.structs.replace(event, seconds=CLOCK.all())
            pipe.write(msgspec.json.encode(event) + b"\n")
            pipe.flush()
        except BrokenPipeError:
            os._exit(1)  # nobody listens any more: the command was killed

    return say


def _score(job: Job, say: Say) -> None:
    """Score the job by the toy or by a model; a GPU that gave up anywhere says so in a QevalError."""
    if is_toy(job.variant.model):
        score_toy(job, say)
        return
    try:
        score_model(job, say)
    except RuntimeError as error:
        from qeval.score.engine.memory import refuse_broken

        refuse_broken(error)
        raise


def answer(job: Job, say: Say) -> None:
    """Score the job and say how it went, whatever happened; tracebacks go to standard error."""
    try:
        _score(job, say)
    except StoppedEarly as end:
        say(Stopped(end.stop, str(end)))
    except QevalError as error:
        _print_traceback()
        say(Failed(error.message, error.hint, withheld(traceback.format_exc()), _lost(error)))
    except MemoryError:
        say(Failed("Memory ran out.", "Take a smaller --batch-size or a larger machine."))
    except Exception as error:  # noqa: BLE001 - the one place where a library's surprise becomes a sentence
        _print_traceback()
        if (told := refused(error)) is not None:
            hint = f"{told.hint} The details are in {job.log}."
            say(Failed(told.message, hint, withheld(traceback.format_exc())))
            return
        what = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        say(
            Failed(
                f"Something unforeseen happened ({what}).",
                f"The details are in {job.log}.",
                withheld(traceback.format_exc()),
            )
        )


def _lost(error: QevalError) -> Lost:
    """Where another worker may succeed: what this one had lost."""
    if isinstance(error, BrokenDeviceError):
        return "gpu"
    return "device" if isinstance(error, LostDeviceError) else ""


def _print_traceback() -> None:
    print(printable(withheld(traceback.format_exc())), file=sys.stderr)  # noqa: T201 - it leads to the log


def import_libraries() -> None:
    """Import what a real model needs. What cannot be imported is told when it is missed."""
    with phase("imports"):
        with _absent("sklearn"):  # which transformers takes a curve from that we never draw, in 1.6 s
            _import_all("torch", "transformers.generation.candidate_generator")
        _import_all("lm_eval.models.huggingface", "datasets", "scipy.stats", *_LAZY)


_LAZY = (
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama",
    "qeval.score.session",
)
"""What libraries import when it is first used."""


def _import_all(*names: str) -> None:
    for name in names:
        with contextlib.suppress(Exception):
            importlib.import_module(name)


@contextlib.contextmanager
def _absent(name: str) -> Iterator[None]:
    """While open, a package that nobody has imported yet is not to be found."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # Python's own mark for it
    try:
        yield
    finally:
        del sys.modules[name]


def _print_to(log: str) -> None:
    """From here on, whatever is printed goes to this file."""
    with Path(log).open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def main() -> None:
    """Read the job and answer it; the exit code is 0 whenever the end was announced."""
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # from here on, whatever is printed goes to the log
    ahead = AHEAD in sys.argv
    if ahead:
        import_libraries()
    with phase("waiting"):
        told = sys.stdin.buffer.read()
    if ahead and not told:
        return  # there was no job
    job = msgspec.json.decode(told, type=Job)
    if ahead:
        _print_to(job.log)
    answer(job, _speaker(pipe))
    sys.stderr.flush()
    os._exit(0)  # all is told and stored; a GPU's libraries take seconds to be taken down


if __name__ == "__main__":
    main()
