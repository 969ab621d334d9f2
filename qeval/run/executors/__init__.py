"""Where variants are scored: each module of this folder is an executor, called as the module is.

A module has one function `execute`, which takes a Job and a listener, starts qeval.run.workers.WORKER
somewhere, hands on its events as they come and turns whatever happens into the variant's Result. The first
line of the module is its help. docs/extend/executor.md has an example; tests/run/test_executors.py runs
every executor against the same contract. A module without `execute` hands a prepared run to a scheduler.
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

from qeval.run import workers

if TYPE_CHECKING:
    from qeval.ask.order import Order
    from qeval.base.messages import Job
    from qeval.base.records import Result
    from qeval.run.seats import Seats
    from qeval.run.workers import Listener


Prepare = Callable[[Mapping[str, str]], None]
"""The function `prepare` of an executor, with the environment that a job will have."""


End = Callable[[Callable[["Job"], bool]], None]
"""Ends the processes of jobs of which it holds, and returns when they have ended."""


class Execute(Protocol):
    """The function `execute` of an executor."""

    def __call__(self, job: Job, listen: Listener, /) -> Result:
        """Score `job.variant` and return its Result.

        A failure, of the machine too, is a Result and a Failed event, not an exception. What the listener
        raises ends the scoring and is raised again. What was finished before is on disk.
        """


def _modules(folders: Iterable[str]) -> dict[str, ModuleType]:
    """The executors in the folders, by the names that a person writes."""
    names = sorted(name for _, name, _ in pkgutil.iter_modules(folders))
    return {name.replace("_", "-"): importlib.import_module(f"{__name__}.{name}") for name in names}


def _summary(module: ModuleType) -> str:
    return (module.__doc__ or "").partition("\n")[0].strip(" .")


_found = _modules(__path__)
EXECUTORS: dict[str, Execute] = {
    name: module.execute for name, module in _found.items() if hasattr(module, "execute")
}


@contextlib.contextmanager
def ahead(name: str) -> Iterator[Prepare]:
    """A function that has a worker of the executor called `name` get ready, in an environment, before there
    is a job for it, if the executor's module has `prepare` and `give_up` for that; at the end nobody waits
    any more."""
    module = _found.get(name)
    prepare, give_up = (getattr(module, word, None) for word in ("prepare", "give_up"))
    if prepare is None or give_up is None or EXECUTORS[name] is not getattr(module, "execute", None):
        yield lambda _: None
        return
    try:
        yield prepare
    finally:
        give_up()


@contextlib.contextmanager
def opened(order: Order) -> Iterator[Seats | None]:
    """What an order's executor has, or connects to, before the first job and until after the last, if its
    module has `opened` for that: the seats of its workers, which are this machine's where it yields None."""
    module = _found.get(order.executor)
    if module is None or not hasattr(module, "opened"):
        yield None
        return
    with module.opened(order) as found:
        yield found


def end_of(name: str) -> End:
    """What ends workers of the executor called `name` that are followed in other threads: its own `end`, or
    that of `score_in`."""
    found: End = getattr(_found.get(name), "end", workers.end)
    return found


SUMMARIES = {name: _summary(module) for name, module in _found.items()}
"""What each executor is, in a few words, as its file says in the first line."""
