"""How an unfinished run stands: at work, prepared for workers, scored by them, or interrupted."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qeval.base.errors import QevalError
from qeval.base.hashing import digest
from qeval.base.next_steps import UNKNOWN, Standing, State, runs_dir_words
from qeval.base.places import at_home
from qeval.store import lock
from qeval.store.work import PLAN_FILE, Work

if TYPE_CHECKING:
    from qeval.base.records import Result, Run, Task
    from qeval.store.runs import RunDir


def standing(place: RunDir, run: Run) -> Standing:
    """How a run stands at this moment; UNKNOWN where it is finished, or was not made by qeval, or its
    directory does not let that be told."""
    left = [result for result in run.results if result.status == "partial"]
    if run.source != "qeval" or not left:
        return UNKNOWN
    try:
        came = _came(place, left)
        state = _state(place, scored=len(came) == len(left))
        failed = tuple(name for name, result in came.items() if result.status == "failed")
        kept = {name: tuple(cell.task for cell in result.cells) for name, result in came.items()}
        kept |= _kept(place, [one for one in left if one.variant.name not in came])
    except (OSError, QevalError):
        return UNKNOWN
    return whereabouts(place, run)._replace(state=state, kept=kept, failed=failed)


def whereabouts(place: RunDir, run: Run) -> Standing:
    """Where a run is kept, and where its own command is to be typed, whether it is finished or not."""
    made_in = _made_in(place)
    return Standing(place=str(place.path), runs_dir=_elsewhere(place, run, made_in), made_in=made_in)


def _state(place: RunDir, *, scored: bool) -> State:
    planned = (place.work / PLAN_FILE).exists()
    held, workers = lock.is_held(place.path), bool(Work(place.work).holders.at_work())
    if not planned:
        return "at work" if held or workers else "interrupted"
    if workers:
        return "at work" if held else "workers"
    if held:
        return "at work" if scored else "awaited"
    return "scored" if scored else "prepared"


def _came(place: RunDir, left: Sequence[Result]) -> dict[str, Result]:
    """What came of unfinished variants by what is planned now, which nobody has taken up yet."""
    work, plan = Work(place.work), None
    with contextlib.suppress(QevalError):  # a damaged plan has no results
        plan = work.plan()
    names = [one.variant.name for one in left]
    found = {name: work.result(name, plan.mark) for name in names} if plan else {}
    return {name: result for name, result in found.items() if result is not None}


def _kept(place: RunDir, left: Sequence[Result]) -> dict[str, tuple[Task, ...]]:
    """The tasks whose cells are there of variants that have no result yet; what is damaged is not."""
    whose = {one.variant_digest: one.variant.name for one in left if one.variant_digest}
    found: dict[str, list[Task]] = {}
    for folder in sorted((place.path / "cells").glob("[!.]*")) if whose else ():
        with contextlib.suppress(QevalError):
            cell = place.cell(folder.name)
            name = whose.get(digest(place.made_of(cell).get("variant"))) if cell else None
            if cell is not None and name is not None:
                found.setdefault(name, []).append(cell.task)
    return {name: tuple(tasks) for name, tasks in found.items()}


def _made_in(place: RunDir) -> str:
    """The directory that what is planned was planned in; "" where that is this one, or is not here."""
    with contextlib.suppress(OSError, QevalError):
        plan = Work(place.work).plan()
        if plan and plan.made_in and Path(plan.made_in).is_dir():
            return "" if Path(plan.made_in).samefile(Path.cwd()) else plan.made_in
    return ""


def _elsewhere(place: RunDir, run: Run, made_in: str) -> str:
    """Where a run is kept, where its own command, typed here, or in the directory that is named, would look
    somewhere else; "" where not."""
    words = runs_dir_words(run.command)
    named = words[-1].removeprefix("--runs-dir=") if words else os.environ.get("QEVAL_RUNS_DIR") or "runs"
    parent = place.path.parent
    return "" if (Path(made_in) / at_home(named)).resolve() == parent.resolve() else str(parent)


def standings(
    shown: Sequence[Run], opened: Sequence[tuple[RunDir, Run]], *, told: bool
) -> dict[str, Standing]:
    """How the opened runs stand, by the ids that they are shown by, and their variants by the names that they
    are shown by. `told`: whether their places may be."""
    found = {}
    for one, (place, run) in zip(shown, opened, strict=True):
        names = dict(zip(_names(run), _names(one), strict=False))
        stands = _renamed(standing(place, run), names)
        found[one.id] = stands if told else stands._replace(place="", runs_dir="", made_in="")
    return found


def _names(run: Run) -> list[str]:
    return [result.variant.name for result in run.results]


def _renamed(stands: Standing, names: Mapping[str, str]) -> Standing:
    kept = {names.get(name, name): tasks for name, tasks in stands.kept.items()}
    return stands._replace(kept=kept, failed=tuple(names.get(name, name) for name in stands.failed))
