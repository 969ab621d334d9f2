"""Jobs of a tiny model on a few items of the project's own tasks, scored in this process."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import msgspec

from qeval.base.messages import Event, Finished, Job
from qeval.base.places import tasks_dir
from qeval.base.records import Scheme, Task, Variant
from qeval.base.settings import Settings
from qeval.load.resolve import identity
from qeval.score.cells import JobCells
from qeval.store.runs import Store

TASKS = tuple(
    Task(name, metric, limit=6)
    for name, metric in [
        ("qeval_facts", "acc"),
        ("qeval_continuations", "acc_norm"),
        ("qeval_prose", "word_perplexity"),
    ]
)


def a_job(runs_dir: Path, llama: Path, **changes: object) -> Job:
    known = {field.name for field in fields(Settings)} & set(changes)
    settings = Settings(**{"device": "cpu", **{name: changes.pop(name) for name in known}})
    variant = changes.pop("variant", Variant("fp32", str(llama), Scheme("fp32")))
    job = Job(
        runs_dir=str(runs_dir),
        run_id="r",
        variant=variant,
        identity=identity(variant, runs_dir / "cache"),
        context={},
        tasks=TASKS,
        settings=settings,
        tasks_dir=str(tasks_dir()),
        cache_dir=str(runs_dir / "cache"),
        log=str(runs_dir / "log"),
    )
    return msgspec.structs.replace(job, **changes)


def score(job: Job) -> tuple[dict[str, object], list[Event]]:
    """The samples of each task, and everything that was said."""
    from qeval.score.session import score as score_job

    events: list[Event] = []
    score_job(job, JobCells(job, events.append), events.append)
    place = Store(Path(job.runs_dir)).run_dir(job.run_id)
    cells = [event.cell for event in events if isinstance(event, Finished)]
    return {cell.task.name: place.samples(cell) for cell in cells}, events
