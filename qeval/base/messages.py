"""What passes between the command and the process that scores a variant: one Job in, Events out.

The job goes to the worker's standard input as one JSON document, the events come from its standard output
as one JSON document a line. Nothing here is heavy.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from qeval.base.costs import Cost
from qeval.base.packing import Packing
from qeval.base.protocols import Protocol
from qeval.base.records import Cell, Policy, Provenance, Stop, Task, Variant
from qeval.base.settings import Settings

REFUTED = "lm-eval's own code gives other numbers"
"""How the error of a variant begins whose numbers were shown not to be lm-eval's."""


class FidelityJob(msgspec.Struct, frozen=True):
    """What to measure of fidelity: by these `protocols`, and by those `on_gpu` where one calculates. `name`
    and `baseline` are the name and the identity of the variant that the others are compared with;
    `cache_limit` is the most bytes that what enters its head may take."""

    protocols: tuple[Protocol, ...]
    on_gpu: tuple[Protocol, ...]
    name: str
    baseline: dict[str, Any]
    cache_limit: int


class Job(msgspec.Struct, frozen=True):
    """Score `variant` on `tasks` and put the cells into the run at `run_dir` of the store `runs_dir`.

    `identity` is everything about the variant that can change its numbers; `context` the same for the
    tasks (lm-eval's version, the data sets' place, the project's own tasks). `log` receives what the
    libraries print. Where `policy` is given, scoring may stop early; `baseline` is then the identity of the
    finished variant that this one is judged against. `shuffled`: the items come in a random order, for a
    second scoring that packs them otherwise. `packing` is what the run knows of how the variant is fed.

    `part`: one worker scores the whole variant; or it leads others of the same variant, whose shards it takes
    over; or it helps the one that leads, scores shards and stores no cell. `environment` is set for the
    worker's process, `threads` are those that it calculates with on a CPU (None: as many as torch takes).
    `holder` is the name under which it takes leases, where workers on several machines share the store.
    `own_tasks` is a folder of tasks beside those that come with qeval.
    `fidelity` is measured once the tasks are scored, or alone where there are none.
    """

    runs_dir: str
    run_id: str
    variant: Variant
    identity: dict[str, Any]
    context: dict[str, Any]
    tasks: tuple[Task, ...]
    settings: Settings
    tasks_dir: str
    cache_dir: str
    log: str
    verify: int = 0
    cost: bool | None = False
    policy: Policy | None = None
    baseline: dict[str, Any] | None = None
    shuffled: bool = False
    packing: Packing | None = None
    part: Literal["whole", "lead", "help"] = "whole"
    environment: dict[str, str] = {}
    threads: int | None = None
    holder: str = ""
    fidelity: FidelityJob | None = None
    own_tasks: str | None = None


Lost = Literal["", "process", "memory", "gpu", "device"]
"""What failed where another worker may well do the same work; of memory that ran out, with less at once; of
a "gpu" that gave up in the middle, rather on another one, for it may do so again; a "device" is gone."""


class Stage(msgspec.Struct, frozen=True, tag="stage"):
    """The worker begins something that a person may wait for."""

    text: str


class Todo(msgspec.Struct, frozen=True, tag="todo"):
    """What is to be scored: (task, requests) of each leaf task, and how many cells were found finished."""

    tasks: tuple[tuple[str, int], ...]
    found: int


class Expected(msgspec.Struct, frozen=True, tag="expected"):
    """What is still to come, predicted once the questions are counted: seconds by phase, and `how`; `tasks`
    are those of scoring by leaf task."""

    seconds: dict[str, float]
    how: str = ""
    tasks: dict[str, float] = {}


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """`done` requests of those planned are answered, `taken` of them by others; `task` is the one at work."""

    task: str
    done: int
    taken: int = 0


class Fed(msgspec.Struct, frozen=True, tag="fed"):
    """How the variant is fed, as far as it is known by now."""

    packing: Packing


class Finished(msgspec.Struct, frozen=True, tag="finished"):
    """A cell is on disk."""

    cell: Cell


class Note(msgspec.Struct, frozen=True, tag="note"):
    """Something that the person at the screen should read."""

    text: str


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The variant cannot be finished; not here, that is, where only its process, its memory or its device was
    `lost`."""

    message: str
    hint: str = ""
    trace: str = ""
    lost: Lost = ""


class Stopped(msgspec.Struct, frozen=True, tag="stopped"):
    """The variant breaks a rule for certain, so the rest of it is not scored."""

    stop: Stop
    text: str
    provenance: Provenance | None = None


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The variant is finished. `seconds` are those of the worker by phase, all of them together its life."""

    provenance: Provenance | None = None
    cost: Cost | None = None
    seconds: dict[str, float] = {}


Event = Stage | Todo | Expected | Progress | Fed | Finished | Note | Failed | Stopped | Done
