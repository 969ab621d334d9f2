"""The files and folders that a plan names: noted when it is made, and looked for by its workers."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
from collections.abc import Iterator, Sequence

from qeval.base.errors import QevalError
from qeval.base.messages import Job
from qeval.base.places import at_home
from qeval.load.toy import is_toy
from qeval.store.runs import RunDir
from qeval.store.work import Plan


def paths_of(jobs: Sequence[Job]) -> tuple[str, ...]:
    """What the variants of these jobs name that exists here, as it was typed: models, adapters, checkpoints,
    texts, and the folders of data sets and tasks. The toy reads none of them."""
    named = (name for job in jobs if not is_toy(job.variant.model) for name in _named(job))
    return tuple(name for name in dict.fromkeys(named) if _exists(name))


def _named(job: Job) -> Iterator[str]:
    from qeval.load import adapter

    variant = job.variant
    beside = adapter.split(variant.adapter)[0].path if variant.adapter else None
    options = variant.scheme.options.values()
    folders = job.settings.datasets_dir, job.own_tasks
    for name in (variant.model, beside, variant.scheme.checkpoint, *options, *folders):
        if isinstance(name, str) and name:
            yield name


def _exists(name: str) -> bool:
    return os.path.exists(at_home(name))  # noqa: PTH110 - that of a Path raises for what can be no path


@contextlib.contextmanager
def where_it_was_made(plan: Plan, place: RunDir) -> Iterator[None]:
    """Work in the directory that a plan was made in, where this machine has it: a relative path means the
    same there. Raises QevalError where something that the plan names is not here."""
    with contextlib.ExitStack() as stack:
        if plan.made_in:
            with contextlib.suppress(OSError):  # this machine does not have it
                stack.enter_context(contextlib.chdir(plan.made_in))
        if missing := [name for name in plan.paths if not _exists(name)]:
            raise _refusal(plan, place, missing)
        yield


def _refusal(plan: Plan, place: RunDir, missing: Sequence[str]) -> QevalError:
    there = shlex.quote(plan.made_in)
    return QevalError(
        f"{socket.gethostname()} does not see {', '.join(missing)}, which the run was prepared with in"
        f" {plan.made_in}.",
        "Nothing was begun here. Start the worker on a machine that sees the same files there, with:"
        f" cd {there} && qeval worker {shlex.quote(str(place.path))}",
    )
