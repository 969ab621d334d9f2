"""What was asked before and is asked otherwise now, in a sentence."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from qeval.ask.order import Order
from qeval.base.errors import QevalError
from qeval.base.hashing import digest
from qeval.base.records import Run
from qeval.store.runs import RunDir, Store

_GATE = "--gate"


def before(order: Order, store: Store, place: RunDir, identities: Mapping[str, Any]) -> str | None:
    """A sentence on the newest other run of the same variants, tasks and settings, if there is one."""
    for other in store.runs():
        with contextlib.suppress(QevalError):
            run = other.read()
            same = tuple(result.variant for result in run.results) == order.variants
            names = [task.name for task in run.suite.tasks] == [task.name for task in order.suite.tasks]
            if same and names and run.settings == order.settings and other.path != place.path:
                how = _otherwise(order, run, other, identities)
                return f"{run.id} asked the same {how}; what that changes is scored anew."
    return None


def _otherwise(order: Order, run: Run, place: RunDir, identities: Mapping[str, Any]) -> str:
    """How a run was asked that is not this very order's, as far as it tells."""
    if run.suite.tasks != order.suite.tasks:
        return "with other settings of its tasks"
    if run.baseline != order.baseline:
        return "against another baseline"
    if _policy(run.command) != _policy(order.command) and _of_same_files(run, place, identities):
        return "under another policy, or none"
    return "of other files, or of older versions"


def _policy(command: Sequence[str]) -> str | None:
    """The policy that a command names."""
    for at, word in enumerate(command):
        if word == _GATE or word.startswith(f"{_GATE}="):
            return "".join(command[at : at + 2]) if word == _GATE else word.replace("=", "", 1)
    return None


def _of_same_files(run: Run, place: RunDir, identities: Mapping[str, Any]) -> bool:
    """Whether every stored cell of a run is of the variant that is asked for now, to the last file."""
    told = [
        (result.variant.name, place.made_of(cell).get("variant"))
        for result in run.results
        for cell in result.cells
    ]
    return bool(told) and all(digest(made_of) == digest(identities.get(name)) for name, made_of in told)
