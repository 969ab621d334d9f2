"""Carrying out an Order: it becomes jobs, jobs become results, and run.json tells of each variant."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from qeval import __version__
from qeval.ask.order import Order, check
from qeval.base.errors import Exit, QevalError
from qeval.base.messages import Event, Failed, Job, Stage
from qeval.base.places import tasks_dir
from qeval.base.records import Cell, Cost, Result, Run, Variant
from qeval.run import identity
from qeval.run.executors import EXECUTORS
from qeval.store.runs import RunDir, Store, tells_texts

Listener = Callable[[Variant, Event], None]


def farewell(run: Run, path: Path) -> str:
    """Where a run is kept, and what to do next; after a failure, where the libraries' own words are."""
    kept = f"\nSaved to {path}."
    if exit_code(run) != Exit.PASS:
        kept += f" Library logs: {path / 'logs'}."
    scored = any(result.cells for result in run.results)
    return f"{kept} Next: qeval report -o report.html, qeval gate --max-drop 1.0" if scored else kept


def exit_code(run: Run) -> Exit:
    """ERROR where a variant failed; the others' results stand all the same."""
    return Exit.PASS if all(result.status in {"done", "stopped"} for result in run.results) else Exit.ERROR


def execute(order: Order, listen: Listener) -> RunDir:
    """Score every variant, resuming what an earlier attempt finished; returns the run's directory.

    A variant that fails is recorded and the others go on. Raises QevalError for an order that cannot be
    begun at all, KeyboardInterrupt (after writing run.json) when the person stops it.
    """
    refused = check(order)
    identities = identity.identities(order, refused)
    context = identity.context_of(order)
    place = Store(order.runs_dir).run_dir(identity.run_id(order, identities, context))
    run = _begin(order, place)
    for variant in order.variants:
        if variant.name in refused:
            run = _with(run, _refused(variant, refused[variant.name], listen), order.cost)
    for variant in sorted(order.variants, key=lambda variant: variant.name != order.baseline):
        if variant.name in refused:
            continue
        if _finished(run, variant, place, order.cost) and not order.again:
            listen(variant, Stage("finished earlier"))
            continue
        job = _job(order, variant, identities, context, place)
        try:
            result = EXECUTORS[order.executor](job, partial(listen, variant))
        except KeyboardInterrupt:
            place.write(run)
            raise
        run = _learned(_with(run, result, order.cost))
        place.write(run)
    return place


def _refused(variant: Variant, error: QevalError, listen: Listener) -> Result:
    """The result of a variant that cannot be run here, told at once."""
    listen(variant, Failed(error.message, error.hint))
    return Result(variant=variant, status="failed", error=f"{error.message} {error.hint}".strip())


def _with(run: Run, result: Result, asked: bool | None) -> Run:
    """The run with a result in its place; `asked`: costs were asked for (None: neither way)."""
    results = tuple(
        replace(result, cost=_kept(old.cost, result.cost, asked))
        if old.variant.name == result.variant.name
        else old
        for old in run.results
    )
    return replace(run, results=results)


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


def _learned(run: Run) -> Run:
    """The run, its suite completed by what scoring found out: metrics and kinds that nobody wrote down.

    A perplexity never belongs to the average.
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
    perplexities = {task.name for task in tasks if task.kind == "perplexity"}
    average = tuple(row for row in run.suite.average if row not in perplexities)
    return replace(run, suite=replace(run.suite, tasks=tasks, average=average))


def _begin(order: Order, place: RunDir) -> Run:
    fresh = Run(
        id=place.path.name,
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        model=order.variants[0].model,
        suite=order.suite,
        baseline=order.baseline,
        results=tuple(Result(variant=variant, status="partial") for variant in order.variants),
        settings=order.settings,
        command=order.command,
        qeval_version=__version__,
    )
    try:
        old = place.read()
    except QevalError:
        place.write(fresh)
        return fresh
    known = {result.variant.name: result for result in old.results}
    return replace(
        fresh, created=old.created, results=tuple(known.get(r.variant.name, r) for r in fresh.results)
    )


def _finished(run: Run, variant: Variant, place: RunDir, cost: bool | None) -> bool:
    """Whether every cell is there, and measures where costs are asked for."""
    result = next(r for r in run.results if r.variant.name == variant.name)
    lacking = cost and not (result.cost and result.cost.measures)
    scored = result.status == "done" and bool(result.cells) and not lacking
    return scored and all(_whole(place, cell) for cell in result.cells)


def _whole(place: RunDir, cell: Cell) -> bool:
    try:
        found = place.cell(cell.key)
        return found is not None and tells_texts(found) and len(place.samples(cell)) == cell.n
    except QevalError:
        return False


def _job(
    order: Order,
    variant: Variant,
    identities: dict[str, dict[str, Any]],
    context: dict[str, Any],
    place: RunDir,
) -> Job:
    return Job(
        runs_dir=str(order.runs_dir),
        run_id=place.path.name,
        variant=variant,
        identity=identities[variant.name],
        context=context,
        tasks=order.suite.tasks,
        settings=order.settings,
        tasks_dir=str(tasks_dir()),
        cache_dir=str(order.cache_dir),
        log=str(place.log(variant.name)),
        verify=order.verify,
        cost=order.cost,
        policy=order.policy,
        baseline=identities[order.baseline] if order.policy and variant.name != order.baseline else None,
    )
