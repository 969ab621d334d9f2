"""What a run keeps as its variants are scored: each function takes the Run and returns the next one."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from qeval.ask.order import Order
from qeval.base import installed
from qeval.base.costs import Cost
from qeval.base.errors import QevalError
from qeval.base.hashing import digest
from qeval.base.names import MACRO
from qeval.base.packing import Packing
from qeval.base.records import Cell, Kind, Result, Run
from qeval.base.repeats import repeats_of, with_repeats_of
from qeval.store.runs import RunDir


def standing(order: Order, place: RunDir) -> tuple[Run, bool]:
    """The run as it stands, and whether it stands on disk; then its version is that of who scored it."""
    fresh = Run(
        id=place.path.name,
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        model=order.variants[0].model,
        suite=order.suite,
        baseline=order.baseline,
        results=tuple(Result(variant=variant, status="partial") for variant in order.variants),
        settings=order.settings,
        command=order.command,
        qeval_version=installed.version(),
    )
    try:
        old = place.read()
    except QevalError:
        return fresh, False
    if old.id != fresh.id:  # a file of another run was copied here
        return fresh, False
    there = {result.variant.name: result for result in old.results}
    results = tuple(there.get(r.variant.name, r) for r in fresh.results)
    version = old.qeval_version if any(result.cells for result in results) else fresh.qeval_version
    return learned(replace(fresh, created=old.created, results=results, qeval_version=version)), True


def knowing(run: Run, identities: Mapping[str, dict[str, Any]]) -> Run:
    """The run whose unfinished variants tell what they are, so that whoever reads it knows their cells."""
    results = (
        replace(one, variant_digest=digest(identities[one.variant.name]))
        if one.status == "partial" and one.variant.name in identities
        else one
        for one in run.results
    )
    return replace(run, results=tuple(results))


def fed(run: Run, name: str, packing: Packing) -> Run:
    """The run that knows how one of its variants is fed, from now on, whatever becomes of the worker."""
    results = (replace(one, packing=packing) if one.variant.name == name else one for one in run.results)
    return _by_this_version(replace(run, results=tuple(results)))


def _by_this_version(run: Run) -> Run:
    """The run, this version the last of those that scored it."""
    return _by(run, [installed.version()])


def _by(run: Run, versions: Sequence[str]) -> Run:
    """The run, these versions behind the others that scored it."""
    new = [one for one in dict.fromkeys(versions) if one]
    others = [one for one in run.qeval_version.split(", ") if one not in {"", *new}]
    return replace(run, qeval_version=", ".join([*others, *new]))


def with_result(run: Run, result: Result, asked: bool | None) -> Run:
    """The run with a result in its place; `asked`: costs were asked for (None: neither way). The versions
    that scored the run are those that its cells tell; where some do not tell, this one is among them if a
    cell is new, or another one than before."""
    known = [cell for old in run.results if old.variant.name == result.variant.name for cell in old.cells]
    rows = {task.name: at for at, task in enumerate(run.suite.tasks)}
    results = tuple(
        with_repeats_of(_in_order(_beside(old, result, asked), old, rows), [old])
        if old.variant.name == result.variant.name
        else old
        for old in run.results
    )
    told = _told(results)
    if told:
        return replace(run, results=results, qeval_version=", ".join(told))
    if new := [cell for cell in result.cells if cell not in known]:
        run = _by(run, [cell.scored.qeval if cell.scored else installed.version() for cell in new])
    return replace(run, results=results)


def _told(results: Sequence[Result]) -> list[str]:
    """The versions that scored all cells, by their last ones; none where a cell does not tell."""
    cells = [cell for result in results for one in (result, *repeats_of(result)) for cell in one.cells]
    scored = [cell.scored for cell in cells if cell.scored is not None and cell.scored.qeval]
    if len(scored) < len(cells):
        return []
    last = sorted(scored, key=lambda one: one.when)
    return list(dict.fromkeys(one.qeval for one in reversed(last)))[::-1]


def _in_order(new: Result, old: Result, rows: Mapping[str, int]) -> Result:
    """The result with its cells in the order of the suite's rows, those of a row as they were known before:
    what is found finished is told first, what is scored anew behind it."""
    before = {cell.task.name: at for at, cell in enumerate(old.cells)}
    last = len(new.cells) + len(before)

    def place(cell: Cell) -> tuple[int, int]:
        return rows.get(cell.task.group or cell.task.name, last), before.get(cell.task.name, last)

    return replace(new, cells=tuple(sorted(new.cells, key=place)))


def _beside(old: Result, new: Result, asked: bool | None) -> Result:
    """The newer result, and what the older one knows that it does not tell."""
    known = {cell.key: cell.scored for cell in old.cells}
    cells = (
        cell if cell.scored is not None else replace(cell, scored=known.get(cell.key)) for cell in new.cells
    )
    cost = _kept(old.cost, new.cost, asked)
    return replace(new, cells=tuple(cells), cost=cost, packing=new.packing or old.packing)


def _kept(old: Cost | None, new: Cost | None, asked: bool | None) -> Cost | None:
    """The newer cost, and what it does not tell of the same hardware from the older one; measures that were
    taken give way only to measures that were asked for."""
    if old is None or new is None or (old.measures and not (asked and new.measures)):
        return old or new
    if old.hardware != new.hardware:
        return new
    return replace(
        new,
        load_seconds=new.load_seconds or old.load_seconds,
        peak_bytes=new.peak_bytes or old.peak_bytes,
    )


def result_of(run: Run, name: str) -> Result:
    """The result of a variant."""
    return next(result for result in run.results if result.variant.name == name)


def learned(run: Run) -> Run:
    """The run, its suite completed by what scoring found out: metrics and kinds that nobody wrote down.

    A perplexity never belongs to the average, nor does a group of nothing else; what is left out of it is
    noted.
    """
    found = {cell.task.group or cell.task.name: cell.task for r in run.results for cell in r.cells}
    tasks = tuple(
        replace(
            task, metric=found[task.name].metric, kind=found[task.name].kind, chance=found[task.name].chance
        )
        if task.name in found
        else task
        for task in run.suite.tasks
    )
    kinds: dict[str, set[Kind]] = {task.name: {task.kind} for task in tasks if task.name not in found}
    for cell in (cell for result in run.results for cell in result.cells):
        kinds.setdefault(cell.task.group or cell.task.name, set()).add(cell.task.kind)
    out = [row for row in run.suite.average if kinds.get(row.removesuffix(MACRO)) == {"perplexity"}]
    average = tuple(row for row in run.suite.average if row not in out)
    left_out = tuple(dict.fromkeys((*run.left_out, *out)))
    return replace(run, suite=replace(run.suite, tasks=tasks, average=average), left_out=left_out)
