"""How an unfinished run stands: at work, prepared for workers, or interrupted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qeval.base.errors import QevalError
from qeval.base.next_steps import UNKNOWN, Standing
from qeval.store import lock
from qeval.store.work import PLAN_FILE, Work

if TYPE_CHECKING:
    from qeval.base.records import Run
    from qeval.store.runs import RunDir


def standing(place: RunDir, run: Run) -> Standing:
    """How a run stands at this moment; UNKNOWN where it is finished, or was not made by qeval, or its
    directory does not let that be told."""
    if run.source != "qeval" or all(result.status != "partial" for result in run.results):
        return UNKNOWN
    try:
        if lock.is_held(place.path) or Work(place.work).holders.at_work():
            return Standing("at work", str(place.path))
        planned = (place.work / PLAN_FILE).exists()
    except (OSError, QevalError):
        return UNKNOWN
    return Standing("prepared" if planned else "interrupted", str(place.path))


def standings(
    shown: Sequence[Run], opened: Sequence[tuple[RunDir, Run]], *, told: bool
) -> dict[str, Standing]:
    """How the opened runs stand, by the ids that they are shown by. `told`: whether their places may be."""
    found = {one.id: standing(*of) for one, of in zip(shown, opened, strict=True)}
    return found if told else {name: one._replace(place="") for name, one in found.items()}
